//! `subPath`: a part of a volume in the place of all of it.
//!
//! What a guest sees are directories. A file of a volume is shown in a directory of its own, as a copy made when the container starts:
//! Kubernetes does not bring such a file up to date either.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::VolumeMount;

use crate::pod::expand::expand;

/// The path within the volume that a mount names, with the container's variables put in; none for all of the volume.
///
/// # Errors
/// A sentence, if a variable is not defined or the path is not a plain relative one.
pub fn of_mount(mount: &VolumeMount, variables: &[(String, String)]) -> Result<Option<PathBuf>, String> {
    let plain = mount.sub_path.as_deref().filter(|path| !path.is_empty());
    let expression = mount.sub_path_expr.as_deref().filter(|path| !path.is_empty());
    let text = match (plain, expression) {
        (Some(path), _) => path.to_owned(),
        (None, None) => return Ok(None),
        (None, Some(expression)) => {
            let missing = RefCell::new(None);
            let expanded = expand(expression, |name| {
                let value = variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                if value.is_none() {
                    missing.replace(Some(name.to_owned()));
                }
                value
            });
            if let Some(name) = missing.into_inner() {
                return Err(format!(
                    "subPathExpr {expression:?} names the variable {name}, which the container does not have"
                ));
            }
            expanded
        }
    };
    let path = PathBuf::from(&text);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(Some(path));
    }
    Err(format!("subPath {text:?} must be a relative path without \"..\""))
}

/// Where `path` is in the volume at `root`. A link that leads out of the volume, which a guest may have made, is not followed. With
/// `create`, directories that are missing are made.
///
/// # Errors
/// A sentence.
pub fn resolve(root: &Path, path: &Path, create: bool) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("subPath {:?}: {error}", path.display());
    let root = root.canonicalize().map_err(failed)?;
    let mut at = root.clone();
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        let next = at.join(part);
        at = match next.canonicalize() {
            Ok(found) if found.starts_with(&root) => found,
            Ok(_) => return Err(format!("subPath {:?} leads out of its volume", path.display())),
            // Also a link to nowhere, at which nothing can be made.
            Err(error) if error.kind() == ErrorKind::NotFound && create => {
                std::fs::create_dir(&next).map_err(failed)?;
                next
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!("subPath {:?} is not in the volume", path.display()));
            }
            Err(error) => return Err(failed(error)),
        };
    }
    Ok(at)
}

/// Single files by the guest's directory in which they are to be seen: name and place on this machine.
#[derive(Default)]
pub struct Files(BTreeMap<String, Vec<(String, PathBuf)>>);

impl Files {
    /// The file at `host` is to be seen at `guest`.
    ///
    /// # Errors
    /// A sentence, if `guest` is no path of a file.
    pub fn add(&mut self, guest: &str, host: PathBuf) -> Result<(), String> {
        let trimmed = guest.trim_end_matches('/');
        let (folder, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        if name.is_empty() {
            return Err(format!("mountPath {guest:?} names no file, and the volume's subPath is one"));
        }
        let folder = if folder.is_empty() { "/" } else { folder };
        self.0.entry(folder.to_owned()).or_default().push((name.to_owned(), host));
        Ok(())
    }

    /// Copies them into directories below `place`, which is emptied first; answers the guest's directories and ours.
    ///
    /// # Errors
    /// A sentence.
    pub fn copy(self, place: &Path) -> Result<Vec<(String, PathBuf)>, String> {
        let failed = |error: std::io::Error| format!("copying the files of subPath: {error}");
        if let Err(error) = std::fs::remove_dir_all(place)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let mut folders = Vec::new();
        for (number, (guest, files)) in self.0.into_iter().enumerate() {
            let folder = place.join(number.to_string());
            std::fs::create_dir_all(&folder).map_err(failed)?;
            for (name, host) in files {
                std::fs::copy(host, folder.join(name)).map_err(failed)?;
            }
            folders.push((guest, folder));
        }
        Ok(folders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: Option<&str>, expression: Option<&str>) -> VolumeMount {
        let text = |text: Option<&str>| text.map(str::to_owned);
        VolumeMount { sub_path: text(path), sub_path_expr: text(expression), ..VolumeMount::default() }
    }

    #[test]
    fn a_path_is_relative_and_its_variables_are_defined() {
        let variables = [("POD".to_owned(), "web-0".to_owned()), ("UP".to_owned(), "..".to_owned())];
        let of = |path, expression| of_mount(&mount(path, expression), &variables);
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("a/b"), None), Ok(Some(PathBuf::from("a/b"))));
        assert_eq!(of(None, Some("logs/$(POD)")), Ok(Some(PathBuf::from("logs/web-0"))));
        for (path, expression) in
            [(Some("../x"), None), (Some("/x"), None), (None, Some("$(UP)/x")), (None, Some("$(NO)"))]
        {
            assert!(of(path, expression).is_err(), "{path:?} {expression:?}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_volume() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("volume");
        std::fs::create_dir_all(root.join("inside")).expect("made");
        std::fs::create_dir(place.path().join("secret")).expect("made");
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        std::os::unix::fs::symlink("inside", root.join("alias")).expect("a link");
        let inside = root.canonicalize().expect("there").join("inside");
        assert_eq!(resolve(&root, Path::new("alias"), false), Ok(inside.clone()));
        assert_eq!(resolve(&root, Path::new("inside/new/deep"), true), Ok(inside.join("new/deep")));
        assert!(inside.join("new/deep").is_dir());
        for (path, create) in [("out", true), ("out/x", true), ("missing", false)] {
            assert!(resolve(&root, Path::new(path), create).is_err(), "{path}");
        }
        assert!(!place.path().join("secret/x").exists());
    }

    #[test]
    fn files_are_seen_in_their_directories() {
        let place = tempfile::tempdir().expect("a directory");
        let file = |name: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, name).expect("written");
            path
        };
        let mut files = Files::default();
        files.add("/etc/app/a.yaml", file("one")).expect("a file");
        files.add("/etc/app/b.yaml", file("two")).expect("a file");
        files.add("/motd", file("three")).expect("a file");
        assert!(files.add("/", file("four")).is_err());
        let folders = files.copy(&place.path().join("copies")).expect("copied");
        let guests: Vec<&str> = folders.iter().map(|(guest, _)| guest.as_str()).collect();
        assert_eq!(guests, ["/", "/etc/app"]);
        assert_eq!(std::fs::read_to_string(folders[1].1.join("b.yaml")).expect("a file"), "two");
    }
}

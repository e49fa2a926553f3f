//! Which directories of the node pods may have: those below the prefixes that the worker was started with, and no others.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// What a person can do about a path that is not allowed.
const REMEDY: &str = "this worker does not allow it; it allows what it is started with as --allow-host-path PREFIX";

/// Why a pod cannot have this path; `None` if it can. Only names are compared: where links lead is seen when it is mounted.
pub fn refusal(source: &HostPathVolumeSource, allowed: &[PathBuf]) -> Option<(&'static str, String)> {
    if !matches!(source.type_.as_deref().unwrap_or_default(), "" | "Directory" | "DirectoryOrCreate") {
        let why = "a Wasm module is given directories only: Directory, DirectoryOrCreate or nothing";
        return Some(("hostPath.type", why.to_owned()));
    }
    let path = Path::new(&source.path);
    (!is_below(path, allowed)).then(|| ("hostPath.path", format!("{:?}: {REMEDY}", source.path)))
}

/// Whether the path is below one of the prefixes, or is one, by its name alone.
pub fn is_below(path: &Path, allowed: &[PathBuf]) -> bool {
    let is_plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    is_plain && allowed.iter().any(|prefix| path.starts_with(prefix))
}

/// The directory at `path`, wherever links lead, made if it is missing and `create`.
///
/// # Errors
/// A sentence: it is not allowed, leads out of what is allowed, is missing, or is no directory.
pub fn open(path: &Path, allowed: &[PathBuf], create: bool) -> Result<PathBuf, String> {
    let shown = path.display();
    if !is_below(path, allowed) {
        return Err(format!("host path {shown:?}: {REMEDY}"));
    }
    let failed = |error: std::io::Error| format!("host path {shown:?}: {error}");
    let is_inside = |real: &Path| {
        let roots = allowed.iter().filter(|prefix| path.starts_with(prefix));
        roots.filter_map(|prefix| prefix.canonicalize().ok()).any(|prefix| real.starts_with(prefix))
    };
    let out = || format!("host path {shown:?} leads out of the prefixes that the worker allows, or they do not exist");
    // What is there is looked at before anything is made below it.
    let there = path.ancestors().find(|part| part.exists()).ok_or_else(out)?;
    if !is_inside(&there.canonicalize().map_err(failed)?) {
        return Err(out());
    }
    if there != path {
        if !create {
            return Err(format!("hostPath type check failed: {shown} is not a directory"));
        }
        std::fs::create_dir_all(path).map_err(failed)?;
    }
    let real = path.canonicalize().map_err(failed)?;
    match real.is_dir() {
        true if is_inside(&real) => Ok(real),
        true => Err(out()),
        false => Err(format!("hostPath type check failed: {shown} is not a directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.to_owned(), type_: Some(kind.to_owned()) }
    }

    #[test]
    fn only_what_is_below_a_prefix_is_allowed() {
        let allowed = [PathBuf::from("/srv/data")];
        let field = |path: &str, kind: &str| refusal(&source(path, kind), &allowed).map(|(field, _)| field);
        for path in ["/srv/data", "/srv/data/", "/srv/data/a/b"] {
            assert_eq!(field(path, "DirectoryOrCreate"), None, "{path}");
        }
        for path in ["/", "/srv", "/srv/database", "/srv/data/../x", "srv/data", ""] {
            assert_eq!(field(path, ""), Some("hostPath.path"), "{path}");
        }
        assert_eq!(field("/srv/data", "Socket"), Some("hostPath.type"));
        assert!(refusal(&source("/srv/data", ""), &[]).is_some_and(|(_, why)| why.contains("--allow-host-path")));
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("allowed");
        std::fs::create_dir_all(root.join("inside")).expect("made");
        std::fs::create_dir(place.path().join("secret")).expect("made");
        std::fs::write(root.join("file"), "").expect("written");
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        std::os::unix::fs::symlink("inside", root.join("alias")).expect("a link");
        let allowed = [root.clone()];
        let inside = root.canonicalize().expect("there").join("inside");
        assert_eq!(open(&root.join("alias"), &allowed, false), Ok(inside.clone()));
        assert_eq!(open(&root.join("inside/new"), &allowed, true), Ok(inside.join("new")));
        for (path, create) in [("out", false), ("out/new", true), ("missing", false), ("file", true)] {
            assert!(open(&root.join(path), &allowed, create).is_err(), "{path}");
        }
        assert!(!place.path().join("secret/new").exists());
    }
}

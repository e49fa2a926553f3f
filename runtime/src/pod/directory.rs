//! Writing a volume's files so that a reader sees all of one version or all of the next, never a mixture.
//!
//! As Kubernetes does it: the files stand in a directory of their own; `..data` is a symbolic link to it and is swapped by
//! one rename; every top-level name is a link through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use super::volumes::File;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes `directory` show exactly `files`. Does nothing, and returns false, if it does already.
///
/// # Errors
/// What the file system says; the version before stays in place.
pub fn write(directory: &Path, files: &BTreeMap<String, File>) -> io::Result<bool> {
    fs::create_dir_all(directory)?;
    let before = fs::read_link(directory.join(DATA)).ok();
    if let Some(before) = &before
        && holds(&directory.join(before), files)
    {
        return Ok(false);
    }
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let target = directory.join(&version);
    fs::create_dir(&target)?;
    for (path, file) in files {
        write_file(&target.join(path), file)?;
    }
    let _ = fs::remove_file(directory.join(DATA_NEXT));
    symlink(&version, directory.join(DATA_NEXT))?;
    fs::rename(directory.join(DATA_NEXT), directory.join(DATA))?;
    link_names(directory, files)?;
    if let Some(before) = before {
        let _ = fs::remove_dir_all(directory.join(before));
    }
    Ok(true)
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode | 0o400).open(path)?;
    open.write_all(&file.bytes)
}

fn link_names(directory: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(name.as_ref()) {
            fs::remove_file(directory.join(name.as_ref()))?;
        }
    }
    Ok(())
}

fn holds(version: &Path, files: &BTreeMap<String, File>) -> bool {
    files.iter().all(|(path, file)| fs::read(version.join(path)).is_ok_and(|bytes| bytes == file.bytes))
        && count(version) == files.len()
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, File> {
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o644 }))
            .collect()
    }

    fn shown(directory: &Path) -> BTreeSet<String> {
        let names = fs::read_dir(directory)
            .expect("read")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with("..")).collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_one_at_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path();
        assert!(write(path, &files(&[("a", "1"), ("sub/b", "2")])).expect("write"));
        assert_eq!(fs::read_to_string(path.join("sub/b")).expect("read"), "2");
        assert!(!write(path, &files(&[("a", "1"), ("sub/b", "2")])).expect("write"));
        assert!(write(path, &files(&[("a", "3"), ("c", "4")])).expect("write"));
        assert_eq!(fs::read_to_string(path.join("a")).expect("read"), "3");
        assert_eq!(shown(path), ["a", "c"].map(str::to_owned).into());
        let versions = fs::read_dir(path)
            .expect("read")
            .filter(|e| e.as_ref().expect("entry").file_type().expect("type").is_dir())
            .count();
        assert_eq!(versions, 1);
    }

    #[test]
    fn a_file_that_only_went_away_is_noticed() {
        let directory = tempfile::tempdir().expect("directory");
        write(directory.path(), &files(&[("a", "1"), ("b", "2")])).expect("write");
        assert!(write(directory.path(), &files(&[("a", "1")])).expect("write"));
        assert_eq!(shown(directory.path()), ["a".to_owned()].into());
    }
}

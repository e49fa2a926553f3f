//! The agent's own crash-safe store: everything that it needs to run its pods without a control plane.
//!
//! One JSON file an object, written beside, synced and renamed, so that a file is whole or absent. What cannot be read is
//! put aside with a warning and never stops the agent: the API has it too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the files' form; another one is put aside.
const FORM: u32 = 1;

/// A directory of JSON files by collection and name. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
}

#[derive(Serialize, serde::Deserialize)]
struct Envelope<T> {
    form: u32,
    object: T,
}

impl LocalStore {
    /// Opens the store below `root`; only the owner may read it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: &Path) -> io::Result<LocalStore> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        Ok(LocalStore { root: root.to_owned() })
    }

    /// Keeps an object; it is on disk when this returns. Blocks.
    ///
    /// # Errors
    /// What the file system says; the object before stays in place.
    pub fn save<T: Serialize>(&self, collection: &str, name: &str, object: &T) -> io::Result<()> {
        let directory = self.root.join(collection);
        fs::create_dir_all(&directory)?;
        let path = directory.join(file_name(name));
        let beside = directory.join(format!(".{}.{}", file_name(name), uuid::Uuid::new_v4().simple()));
        let bytes = serde_json::to_vec(&Envelope { form: FORM, object })?;
        let written = write_synced(&beside, &bytes)
            .and_then(|()| fs::rename(&beside, &path))
            .and_then(|()| File::open(&directory)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// An object; `None` if there is none that can be read. Blocks.
    pub fn load<T: DeserializeOwned>(&self, collection: &str, name: &str) -> Option<T> {
        read(&self.root.join(collection).join(file_name(name)))
    }

    /// All objects of a collection. Blocks.
    pub fn list<T: DeserializeOwned>(&self, collection: &str) -> Vec<T> {
        let entries = fs::read_dir(self.root.join(collection)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        paths.sort();
        let mut objects = Vec::new();
        for path in paths {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                // What a crash left of a write.
                let _ = fs::remove_file(&path);
            } else if path.extension().is_some_and(|e| e == "json") {
                objects.extend(read(&path));
            }
        }
        objects
    }

    /// Forgets an object. Blocks.
    pub fn remove(&self, collection: &str, name: &str) {
        let path = self.root.join(collection).join(file_name(name));
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "removing a stored object failed");
        }
    }
}

/// A name as a file's; Kubernetes' names need no escape but for the slash between namespace and name.
fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':') { c } else { '~' })
        .collect();
    format!("{safe}.json")
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "reading a stored object failed");
            return None;
        }
    };
    match serde_json::from_slice::<Envelope<T>>(&bytes) {
        Ok(envelope) if envelope.form == FORM => Some(envelope.object),
        Ok(_) => put_aside(path, "of another version"),
        Err(error) => put_aside(path, &error.to_string()),
    }
}

fn put_aside<T>(path: &Path, why: &str) -> Option<T> {
    tracing::warn!(path = %path.display(), why, "a stored object cannot be read and is put aside");
    let _ = fs::rename(path, path.with_extension("unreadable"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_found_again_and_only_that() {
        let directory = tempfile::tempdir().expect("directory");
        let store = LocalStore::open(&directory.path().join("store")).expect("open");
        store.save("pods", "a", &1).expect("save");
        store.save("pods", "shop/b", &2).expect("save");
        store.save("pods", "a", &3).expect("save");
        let again = LocalStore::open(&directory.path().join("store")).expect("open");
        assert_eq!(again.list::<i32>("pods"), [3, 2]);
        again.remove("pods", "a");
        again.remove("pods", "a");
        assert_eq!(again.load::<i32>("pods", "a"), None);
        assert_eq!(again.load::<i32>("pods", "shop/b"), Some(2));
    }

    #[test]
    fn what_a_crash_or_a_broken_disk_leaves_is_no_hindrance() {
        let directory = tempfile::tempdir().expect("directory");
        let store = LocalStore::open(directory.path()).expect("open");
        store.save("pods", "good", &1).expect("save");
        fs::write(directory.path().join("pods/torn.json"), b"{\"form\":1,\"obj").expect("write");
        fs::write(directory.path().join("pods/newer.json"), b"{\"form\":99,\"object\":1}").expect("write");
        fs::write(directory.path().join("pods/.beside.json.x"), b"{").expect("write");
        assert_eq!(store.list::<i32>("pods"), [1]);
        assert!(!directory.path().join("pods/.beside.json.x").exists());
        assert!(directory.path().join("pods/torn.unreadable").exists());
    }

    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("directory");
        let store = LocalStore::open(&directory.path().join("s")).expect("open");
        store.save("secrets", "a/b", &"x").expect("save");
        let mode = fs::metadata(directory.path().join("s/secrets/a~b.json")).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(directory.path().join("s")).expect("directory").permissions().mode() & 0o777, 0o700);
    }
}

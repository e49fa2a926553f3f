//! Compiled code on disk: one file per module and compiler, authenticated before it is mapped.
//!
//! Loading compiled code is running it, so the folder is its owner's alone, and each file stands beside a MAC whose key never leaves
//! the folder. Files are named for the module's digest and for all that the code depends on: another engine version, another
//! CPU or another setting finds nothing and compiles anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;
use ring::{digest, hmac};

/// The folder of compiled code.
pub(crate) struct Cache {
    directory: PathBuf,
    key: hmac::Key,
    engine: String,
}

impl Cache {
    /// Opens the folder, making it and its key if they are missing.
    pub(crate) fn open(directory: &Path, engine: &wasmtime::Engine) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It may have been there before, open to others.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
        let path = directory.join("key");
        let key = match std::fs::read(&path) {
            Ok(key) if key.len() == 32 => key,
            _ => {
                let mut key = vec![0; 32];
                ring::rand::SystemRandom::new()
                    .fill(&mut key)
                    .map_err(|_| io::Error::other("the system has no randomness"))?;
                write_private(&path, &key)?;
                key
            }
        };
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = format!("{:016x}", hasher.finish());
        Ok(Self { directory: directory.to_path_buf(), key: hmac::Key::new(hmac::HMAC_SHA256, &key), engine })
    }

    /// The file of the module's code, if it is there and is what we wrote. One that is not is removed.
    pub(crate) fn get(&self, module: &str) -> Option<PathBuf> {
        let path = self.path(module);
        let code = digest_of_file(&path).ok()?;
        let mac = std::fs::read(path.with_extension("mac")).ok()?;
        if hmac::verify(&self.key, &signed(module, code), &mac).is_ok() {
            return Some(path);
        }
        tracing::warn!(path = %path.display(), "compiled code is not what was written: it is compiled again");
        // If it cannot be removed it is written over.
        let _ = std::fs::remove_file(&path);
        None
    }

    /// Keeps the module's code, durably enough: a file that a crash cuts off is seen by its MAC.
    pub(crate) fn put(&self, module: &str, code: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(module);
        let mac = hmac::sign(&self.key, &signed(module, digest::digest(&digest::SHA256, code)));
        write_private(&path.with_extension("mac"), mac.as_ref())?;
        write_private(&path, code)?;
        Ok(path)
    }

    fn path(&self, module: &str) -> PathBuf {
        self.directory.join(format!("{}.{}.cwasm", file_name(module), self.engine))
    }
}

/// Removes the module's code, that of other engines' too. What is mapped from it stays as long as it is used.
pub(crate) fn remove(directory: &Path, module: &str) -> io::Result<()> {
    let prefix = format!("{}.", file_name(module));
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn file_name(module: &str) -> String {
    module.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// What the MAC is of: the code, and for which module.
fn signed(module: &str, code: digest::Digest) -> Vec<u8> {
    [module.as_bytes(), b"\0", code.as_ref()].concat()
}

/// Read piece by piece: a worker that starts loads hundreds, and the allocator keeps what each of them once took.
fn digest_of_file(path: &Path) -> io::Result<digest::Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(digest.finish()),
            Ok(length) => digest.update(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{:?}", std::thread::current().id()).replace(['(', ')'], ""));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_was_tampered_with_is_not_found() {
        let folder = std::env::temp_dir().join(format!("shoal-cache-{}", std::process::id()));
        let cache = Cache::open(&folder, &wasmtime::Engine::default()).expect("a cache");
        cache.put("sha256:ab", b"code").expect("kept");
        let path = cache.get("sha256:ab").expect("it is there");
        assert!(cache.get("sha256:cd").is_none());
        std::fs::write(&path, b"evil").expect("written");
        assert!(cache.get("sha256:ab").is_none());
        assert!(!path.exists());
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn code_goes_with_its_module() {
        let folder = std::env::temp_dir().join(format!("shoal-cache-removed-{}", std::process::id()));
        let cache = Cache::open(&folder, &wasmtime::Engine::default()).expect("a cache");
        for module in ["sha256:ab", "sha256:abc"] {
            cache.put(module, b"code").expect("kept");
        }
        std::fs::write(folder.join("sha256-ab.0123.cwasm"), b"of another engine").expect("written");
        remove(&folder, "sha256:ab").expect("removed");
        remove(&folder, "sha256:ab").expect("there is nothing more to remove");
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left.len(), 3, "the key, and code and MAC of the other module: {left:?}");
        assert!(cache.get("sha256:abc").is_some());
        std::fs::remove_dir_all(folder).expect("removed");
    }
}

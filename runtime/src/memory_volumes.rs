//! Volumes in memory: `emptyDir` with `medium: Memory`.
//!
//! They are directories of a file system that is in memory and that the machine has anyway, since mounting one of our own would
//! need its privileges. So their sizes are watched as those on the disk are, and what is in them is gone when the machine
//! restarts, but not when the worker does.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where Linux has such a file system for everybody.
const USUAL: &str = "/dev/shm";
/// What a file system in memory says of itself (Linux, `statfs`).
const TMPFS: i64 = 0x0102_1994;
/// The beginning of the name of a worker's directory.
const PREFIX: &str = "shoal-";
/// A link in it to the worker's folder, by which it is known whose it is.
const OWNER: &str = ".worker";

/// Where a worker has its volumes in memory.
#[derive(Debug, Clone)]
pub struct MemoryVolumes {
    place: Option<PathBuf>,
    data_dir: PathBuf,
}

impl MemoryVolumes {
    /// Below `directory`, else where the machine has a file system in memory. `data_dir` is the worker's folder.
    pub fn new(directory: Option<&Path>, data_dir: &Path) -> MemoryVolumes {
        let usual = || is_in_memory(Path::new(USUAL)).then(|| PathBuf::from(USUAL));
        let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        MemoryVolumes { place: directory.map(Path::to_owned).or_else(usual), data_dir }
    }

    /// Whether there are any on this node.
    pub fn are_here(&self) -> bool {
        self.place.is_some()
    }

    /// The directory of a pod's volume.
    pub fn directory(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        Some(self.root()?.join(uid).join(volume))
    }

    /// Makes a directory that [`MemoryVolumes::directory`] names, for this worker's eyes alone. Blocks.
    ///
    /// # Errors
    /// What the file system says; also when the worker's directory there is somebody else's.
    pub fn make(&self, directory: &Path) -> io::Result<()> {
        let root = self.root().ok_or(io::ErrorKind::NotFound)?;
        match DirBuilder::new().mode(0o700).create(&root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(&root)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} is somebody else's", root.display())));
        }
        match symlink(&self.data_dir, root.join(OWNER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::create_dir_all(directory)
    }

    /// Removes what a pod had. Blocks.
    pub fn forget(&self, uid: &str) {
        if let Some(root) = self.root() {
            let _ = fs::remove_dir_all(root.join(uid));
        }
    }

    /// Removes what workers left whose folders are gone. Blocks.
    pub fn sweep(&self) {
        let own = rustix::process::geteuid().as_raw();
        for entry in self.place.iter().flat_map(fs::read_dir).flatten().flatten() {
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
                && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
            let owner = fs::read_link(entry.path().join(OWNER));
            if is_ours && owner.is_ok_and(|folder| !folder.exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn root(&self) -> Option<PathBuf> {
        let digest = Sha256::digest(self.data_dir.as_os_str().as_encoded_bytes());
        Some(self.place.as_ref()?.join(format!("{PREFIX}{}", hex::encode(&digest[..8]))))
    }
}

/// Whether what is at `path` is in memory.
fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_left_goes_with_its_folder_and_not_before() {
        let machine = tempfile::tempdir().expect("a directory");
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let [first, second] = [0, 1].map(|number| MemoryVolumes::new(Some(machine.path()), folders[number].path()));
        for volumes in [&first, &second] {
            let directory = volumes.directory("uid", "v").expect("a place");
            volumes.make(&directory).expect("made");
            volumes.make(&directory).expect("a second time changes nothing");
            fs::write(directory.join("file"), "x").expect("written");
        }
        let root = fs::metadata(first.root().expect("a place")).expect("made");
        assert_eq!(root.mode() & 0o077, 0, "nobody else may look");
        let [gone, kept] = folders;
        drop(gone);
        second.sweep();
        assert!(!first.root().expect("a place").exists());
        assert!(second.directory("uid", "v").expect("a place").join("file").exists());
        second.forget("uid");
        assert!(!second.directory("uid", "v").expect("a place").exists());
        drop(kept);
    }

    #[test]
    fn nobody_else_s_directory_is_used() {
        let machine = tempfile::tempdir().expect("a directory");
        let volumes = MemoryVolumes::new(Some(machine.path()), machine.path());
        let root = volumes.root().expect("a place");
        symlink("/", &root).expect("a link");
        assert!(volumes.make(&root.join("uid/v")).is_err());
    }
}

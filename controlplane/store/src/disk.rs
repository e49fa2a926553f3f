//! The disk as the store uses it: few operations, so that a simulated one can lose what was not synced, and tests can make it fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// A folder of files, with one level of folders in it. Names are relative, such as `wal/00000000000000000001.wal`.
pub trait Disk: Send + Sync + 'static {
    /// The names in a folder, without it; none when there is no such folder.
    ///
    /// # Errors
    /// When the disk refuses.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// A new, empty file with room for `size` bytes, which read as zero; one that is there is replaced. It outlives a crash once
    /// it and its folder were synced.
    ///
    /// # Errors
    /// When the disk refuses, such as when it is full.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// A file that is there.
    ///
    /// # Errors
    /// When it is not, or the disk refuses.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, at once, in place of any file of that name.
    ///
    /// # Errors
    /// When the disk refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away.
    ///
    /// # Errors
    /// When the disk refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until the names in a folder are on stable storage.
    ///
    /// # Errors
    /// When the disk refuses: nobody knows what it has then.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// Lets another process use it; nothing is written here any more.
    fn close(&self) {}

    /// Whether its operations keep the thread waiting, as all but a simulated one's do.
    fn blocks(&self) -> bool {
        true
    }

    /// Takes as long as the next sync would: only for a simulated disk, whose operations themselves take no time.
    fn delay(&self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Its length, in bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// When the file ends before, or the disk refuses.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// When the disk refuses, such as when it is full.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off, or fills it with zeros.
    ///
    /// # Errors
    /// When the disk refuses.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Waits until all that was written is on stable storage.
    ///
    /// # Errors
    /// When the disk refuses: nobody knows what it has then.
    fn sync(&self) -> io::Result<()>;
}

/// The whole of a file.
pub(crate) fn read_all(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// A folder of the file system, used by one process at a time.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked until this is closed or dropped.
    lock: File,
}

impl Folder {
    /// Uses the folder at `path`; made if it is missing, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made, or another process uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        make_folder(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process uses this directory")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { path: path.to_path_buf(), lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Disk for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        match fs::read_dir(self.file(folder)) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.file(name);
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            make_folder(folder)?;
            sync_path(&self.path)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        if size > 0 {
            // Blocks that are there already are written faster; and a full disk is better noticed here.
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.file(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        sync_path(&self.file(folder))
    }

    fn close(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "failed to unlock {}", self.path.display());
        }
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Makes `name` have this content, durably and at once: it has the old one or the new one.
pub(crate) fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = format!("{name}.new");
    let file = disk.create(&beside, 0)?;
    file.write_at(0, content)?;
    file.sync()?;
    disk.rename(&beside, name)?;
    disk.sync_folder(name.rsplit_once('/').map_or("", |(folder, _)| folder))
}

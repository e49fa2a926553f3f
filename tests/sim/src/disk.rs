//! A disk in memory that keeps what was synced, and of the rest what chance leaves it when the power goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shoal_store::{Disk, DiskFile};

/// One write that was not synced yet.
enum Write {
    At(u64, Vec<u8>),
    Size(u64),
}

#[derive(Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
}

/// A change of names that was not synced yet.
#[derive(Clone)]
enum Naming {
    Put(String, usize),
    Gone(String),
}

struct Inner {
    random: StdRng,
    /// Counts crashes: what was opened before the last one is dead.
    life: u64,
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Naming>,
    slow: Duration,
    /// Whether syncs fail from now on.
    broken: bool,
}

/// The disk of one server. It outlives the server; [`SimDisk::plugged_in`] is what a server uses until the next crash.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    life: u64,
}

struct Open {
    disk: SimDisk,
    file: usize,
}

fn apply(content: &mut Vec<u8>, write: &Write) {
    match write {
        Write::At(offset, bytes) => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(bytes);
        }
        Write::Size(size) => content.resize(*size as usize, 0),
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            life: 0,
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            slow: Duration::ZERO,
            broken: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)), life: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the server that is started now.
    pub fn plugged_in(&self) -> Self {
        Self { inner: self.inner.clone(), life: self.lock().life }
    }

    /// The power goes: of each file's unsynced writes, any may be there, and any but whole; of the names, those up to some change.
    pub fn crash(&self) {
        let inner = &mut *self.lock();
        inner.life += 1;
        inner.broken = false;
        let kept = inner.random.random_range(0..=inner.unsynced_names.len());
        for change in inner.unsynced_names.drain(..).take(kept) {
            match change {
                Naming::Put(name, file) => inner.synced_names.insert(name, file),
                Naming::Gone(name) => inner.synced_names.remove(&name),
            };
        }
        inner.names = inner.synced_names.clone();
        for file in &mut inner.files {
            for write in file.unsynced.drain(..) {
                match (&write, inner.random.random_range(0..4)) {
                    (_, 0) => {}
                    (Write::At(offset, bytes), 1) if !bytes.is_empty() => {
                        let length = inner.random.random_range(0..bytes.len());
                        apply(&mut file.synced, &Write::At(*offset, bytes[..length].to_vec()));
                    }
                    _ => apply(&mut file.synced, &write),
                }
            }
            file.now = file.synced.clone();
        }
    }

    /// How much longer every sync takes.
    pub fn set_slow(&self, slow: Duration) {
        self.lock().slow = slow;
    }

    /// Lets the next syncs fail until the next crash.
    pub fn break_syncs(&self) {
        self.lock().broken = true;
    }

    /// The state, if this life of the disk is not over.
    fn live(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        if inner.life == self.life { Ok(inner) } else { Err(io::Error::other("the power is off")) }
    }
}

impl Disk for SimDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inner = self.live()?;
        let inside = |name: &String| match folder {
            "" => Some(name.split_once('/').map_or(name.as_str(), |(top, _)| top).to_string()),
            folder => name.strip_prefix(folder)?.strip_prefix('/').map(str::to_string),
        };
        let mut names: Vec<String> = inner.names.keys().filter_map(inside).collect();
        names.dedup();
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.live()?;
        let file = inner.files.len();
        let mut new = File::default();
        // Not all of the room, which would only be copied about.
        if size > 0 {
            let size = size.min(4096);
            new.now.resize(size as usize, 0);
            new.unsynced.push(Write::Size(size));
        }
        inner.files.push(new);
        inner.names.insert(name.to_string(), file);
        inner.unsynced_names.push(Naming::Put(name.to_string(), file));
        Ok(Arc::new(Open { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.live()?.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.live()?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_string(), file);
        // One change: a file system never shows half of it.
        inner.unsynced_names.push(Naming::Put(to.to_string(), file));
        inner.unsynced_names.push(Naming::Gone(from.to_string()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.live()?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.unsynced_names.push(Naming::Gone(name.to_string()));
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut inner = self.live()?;
        if inner.broken {
            return Err(io::Error::other("injected: the sync failed"));
        }
        let is_here = |change: &Naming| {
            let (Naming::Put(name, _) | Naming::Gone(name)) = change;
            name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder
        };
        let (here, elsewhere): (Vec<Naming>, _) =
            std::mem::take(&mut inner.unsynced_names).into_iter().partition(is_here);
        inner.unsynced_names = elsewhere;
        for change in here {
            match change {
                Naming::Put(name, file) => inner.synced_names.insert(name, file),
                Naming::Gone(name) => inner.synced_names.remove(&name),
            };
        }
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }

    fn delay(&self) -> BoxFuture<'static, ()> {
        let mut inner = self.lock();
        let slow = inner.slow;
        let delay = Duration::from_micros(inner.random.random_range(100..3_000)) + slow;
        tokio::time::sleep(delay).boxed()
    }
}

impl DiskFile for Open {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.live()?.files[self.file].now.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.live()?;
        let content = inner.files[self.file].now.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(Write::At(offset, bytes.to_vec()))
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.write(Write::Size(size))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.live()?;
        if inner.broken {
            return Err(io::Error::other("injected: the sync failed"));
        }
        let File { synced, unsynced, .. } = &mut inner.files[self.file];
        for write in unsynced.drain(..) {
            apply(synced, &write);
        }
        Ok(())
    }
}

impl Open {
    fn write(&self, write: Write) -> io::Result<()> {
        let mut inner = self.disk.live()?;
        let file = &mut inner.files[self.file];
        apply(&mut file.now, &write);
        file.unsynced.push(write);
        Ok(())
    }
}

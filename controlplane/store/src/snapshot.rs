//! Snapshots as files: sealed, versioned, written beside and renamed, so that the newest whole one counts.
//!
//! Layout: the eight bytes `SHOALSN2`; then pieces (see `pieces`): the meta (a version byte, then postcard: last log id and
//! membership), and the image's chunks.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shoal_state::{Image, ImageReader};

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::pieces::{PieceReader, PieceWriter};
use crate::raft::{LogId, SnapshotMeta, StoredMembership};
use crate::seal::{HEAD, Keyring};

const MAGIC: &[u8; 8] = b"SHOALSN2";

/// What its files are sealed for.
const PURPOSE: &str = "shoal snapshot";

/// The version of the meta that is written now.
const META: u8 = 1;

/// The folder of the snapshots.
pub(crate) const FOLDER: &str = "snapshots";

/// The snapshot that is being written.
const NEW: &str = "snapshots/new";

#[derive(Serialize, Deserialize)]
struct Meta {
    last_log_id: Option<LogId>,
    membership: StoredMembership,
}

/// One server's snapshots.
#[derive(Clone)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    keys: Keyring,
    /// One at a time: a snapshot that is made and one that arrives must not meet.
    in_use: Arc<Mutex<()>>,
}

impl Snapshots {
    pub(crate) fn new(disk: Arc<dyn Disk>, keys: Keyring) -> Self {
        Self { disk, keys, in_use: Arc::default() }
    }

    /// The newest snapshot, if there is one.
    pub(crate) fn load(&self) -> Result<Option<(SnapshotMeta, Image)>, OpenError> {
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.names().map_err(|source| OpenError::Disk { name: FOLDER.to_string(), source })?.pop();
        let Some(name) = newest else { return Ok(None) };
        self.read(&name).map(Some).map_err(|error| OpenError::Snapshot { name, reason: error.to_string() })
    }

    fn read(&self, name: &str) -> io::Result<(SnapshotMeta, Image)> {
        let mut input = io::BufReader::with_capacity(1 << 20, Stream { file: self.disk.open(name)?, offset: 0 });
        let mut magic = [0; 8];
        input.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::Error::other("it is no snapshot of a version that this program reads"));
        }
        let mut pieces = PieceReader::new(input, &self.keys, PURPOSE)?;
        let meta = pieces.read()?;
        let meta: Meta = match meta.split_first() {
            Some((&META, rest)) => postcard::from_bytes(rest).map_err(io::Error::other)?,
            _ => return Err(io::Error::other("it is of a version that this program does not read")),
        };
        let mut image = ImageReader::default();
        while !image.is_whole() {
            image.take(&pieces.read()?).map_err(io::Error::other)?;
        }
        let meta = SnapshotMeta { last_log_id: meta.last_log_id, last_membership: meta.membership };
        Ok((meta, image.finish().map_err(io::Error::other)?))
    }

    /// Makes a snapshot durable, then removes the older ones. Blocks on the disk.
    pub(crate) fn save(&self, meta: &SnapshotMeta, image: Image) -> io::Result<()> {
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let name = format!("{FOLDER}/{index:020}.snapshot");
        let file = self.disk.create(NEW, 0)?;
        let mut out = io::BufWriter::with_capacity(1 << 20, Stream { file: file.clone(), offset: 0 });
        out.write_all(MAGIC)?;
        let mut pieces = PieceWriter::new(out, &self.keys, PURPOSE)?;
        let meta = Meta { last_log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        pieces.write(&postcard::to_extend(&meta, vec![META]).map_err(io::Error::other)?)?;
        for chunk in image.chunks() {
            pieces.write(&chunk)?;
        }
        pieces.into_inner().flush()?;
        file.sync()?;
        self.disk.rename(NEW, &name)?;
        self.disk.sync_folder(FOLDER)?;
        for old in self.names()?.into_iter().filter(|old| *old < name) {
            self.disk.remove(&old)?;
        }
        Ok(())
    }

    /// Does `work` where it may block.
    pub(crate) async fn blocking(&self, work: impl FnOnce(&Self) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let own = self.clone();
        self.disk.delay().await;
        if !self.disk.blocks() {
            return work(&own);
        }
        tokio::task::spawn_blocking(move || work(&own)).await.map_err(io::Error::other)?
    }

    /// The ids of the keys with which they are sealed.
    pub(crate) fn key_ids(&self) -> io::Result<Vec<u32>> {
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let id = |name: String| {
            let mut head = [0; 8 + HEAD];
            self.disk.open(&name)?.read_at(0, &mut head)?;
            Ok(u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
        };
        self.names()?.into_iter().map(id).collect()
    }

    /// The snapshots' names, the oldest first.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list(FOLDER)?;
        names.retain(|name| name.ends_with(".snapshot"));
        names.sort();
        Ok(names.into_iter().map(|name| format!("{FOLDER}/{name}")).collect())
    }
}

/// A file read or written from its beginning on.
struct Stream {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.file.size()?.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let length = rest.min(bytes.len());
        self.file.read_at(self.offset, &mut bytes[..length])?;
        self.offset += length as u64;
        Ok(length)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Folder, read_all};
    use shoal_state::{Command, State, Transaction};

    #[test]
    fn a_snapshot_comes_back_sealed_and_a_flipped_bit_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk: Arc<dyn Disk> = Arc::new(Folder::open(folder.path()).expect("a disk"));
        let snapshots = Snapshots::new(disk.clone(), Keyring::generate().expect("a ring"));
        assert!(snapshots.load().expect("nothing is there").is_none());
        let mut state = State::new();
        let mut transaction = Transaction::default();
        transaction.put("/registry/core/secrets/default/a", "a secret value");
        state.apply(Command::Transaction(transaction));
        snapshots.save(&SnapshotMeta::default(), state.image()).expect("saved");
        let (_, image) = snapshots.load().expect("loaded").expect("one is there");
        assert!(image.chunks().eq(state.image().chunks()));

        let name = snapshots.names().expect("listed").pop().expect("one is there");
        let content = read_all(disk.as_ref(), &name).expect("read");
        assert!(!content.windows(8).any(|window| window == b"a secret"));
        for place in (0..content.len()).step_by(7) {
            let mut content = content.clone();
            content[place] ^= 1;
            disk.open(&name).expect("opened").write_at(0, &content).expect("written");
            let error = snapshots.load().expect_err("the bit is seen").to_string();
            assert!(error.contains(".snapshot"), "{error}");
        }
        for length in [0, 7, 30, content.len() - 1] {
            let file = disk.create(&name, 0).expect("created");
            file.write_at(0, &content[..length]).expect("written");
            assert!(snapshots.load().is_err(), "cut off at {length}");
        }
    }
}

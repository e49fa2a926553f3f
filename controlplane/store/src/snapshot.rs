//! Snapshots as files: checked, versioned, written beside and renamed, so that the newest whole one counts.
//!
//! Layout: the eight bytes `SHOALSN1`; the sha256 of the rest; the length of the meta as u32 (little endian); the meta
//! (postcard: last log id and membership); the state in its own encoding.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::OpenError;
use crate::raft::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: &[u8; 8] = b"SHOALSN1";

#[derive(Serialize, Deserialize)]
struct Meta {
    last_log_id: Option<LogId>,
    membership: StoredMembership,
}

/// The folder of one server's snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    directory: PathBuf,
    /// One at a time: a snapshot that is made, one that arrives and one that is read must not meet.
    in_use: Arc<Mutex<()>>,
}

impl Snapshots {
    pub(crate) fn open(directory: PathBuf) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&directory)
            .map_err(|source| OpenError::Directory { path: directory.clone(), source })?;
        Ok(Self { directory, in_use: Arc::default() })
    }

    /// The newest snapshot, if there is one.
    pub(crate) fn load(&self) -> Result<Option<(SnapshotMeta, Bytes)>, OpenError> {
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) =
            self.newest().map_err(|source| OpenError::Directory { path: self.directory.clone(), source })?
        else {
            return Ok(None);
        };
        let damaged = |reason: String| OpenError::Snapshot { path: path.clone(), reason };
        let content = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        decode(&content.into()).map(Some).map_err(damaged)
    }

    /// Makes a snapshot durable, then removes the older ones. Blocks on the disk.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> std::io::Result<()> {
        let _in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let path = self.directory.join(format!("{index:020}.snapshot"));
        let beside = self.directory.join("new");
        let mut file = std::fs::File::create(&beside)?;
        let meta =
            postcard::to_allocvec(&Meta { last_log_id: meta.last_log_id, membership: meta.last_membership.clone() })
                .map_err(std::io::Error::other)?;
        let length = u32::try_from(meta.len()).map_err(std::io::Error::other)?.to_le_bytes();
        let sum = Sha256::new().chain_update(length).chain_update(&meta).chain_update(state).finalize();
        for part in [&MAGIC[..], &sum[..], &length[..], &meta[..], state] {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, &path)?;
        std::fs::File::open(&self.directory)?.sync_all()?;
        for old in self.files()?.into_iter().filter(|old| *old < path) {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }

    fn newest(&self) -> std::io::Result<Option<PathBuf>> {
        Ok(self.files()?.into_iter().max())
    }

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "snapshot");
        let entries = std::fs::read_dir(&self.directory)?.map(|entry| entry.map(|entry| entry.path()));
        entries.filter(|path| path.as_ref().map_or(true, is_snapshot)).collect()
    }

    /// The folder.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn decode(content: &Bytes) -> Result<(SnapshotMeta, Bytes), String> {
    let rest =
        content.strip_prefix(MAGIC.as_slice()).ok_or("it is no snapshot of a version that this program reads")?;
    let (sum, rest) = rest.split_at_checked(32).ok_or("it is cut off")?;
    if Sha256::digest(rest).as_slice() != sum {
        return Err("its checksum is wrong".to_string());
    }
    let (length, rest) = rest.split_at_checked(4).ok_or("it is cut off")?;
    let length = u32::from_le_bytes(length.try_into().expect("split at four")) as usize;
    let (meta, state) = rest.split_at_checked(length).ok_or("it is cut off")?;
    let meta: Meta = postcard::from_bytes(meta).map_err(|error| error.to_string())?;
    let meta = SnapshotMeta { last_log_id: meta.last_log_id, last_membership: meta.membership };
    Ok((meta, content.slice_ref(state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_back_and_a_flipped_bit_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path().to_path_buf()).expect("a folder");
        assert!(snapshots.load().expect("nothing is there").is_none());
        snapshots.save(&SnapshotMeta::default(), b"the state").expect("saved");
        let (_, state) = snapshots.load().expect("loaded").expect("one is there");
        assert_eq!(&state[..], b"the state");

        let path = snapshots.newest().expect("listed").expect("one is there");
        let mut content = std::fs::read(&path).expect("read");
        let last = content.len() - 1;
        content[last] ^= 1;
        std::fs::write(&path, content).expect("written");
        let error = snapshots.load().expect_err("the bit is seen").to_string();
        assert!(error.contains("checksum") && error.contains(".snapshot"), "{error}");
    }
}

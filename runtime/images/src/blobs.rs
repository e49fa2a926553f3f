//! Content-addressed files: a blob is written beside, checked against its digest, and only then put in its place.
//!
//! A file under `sha256/` is whole and right, whatever died while it was written: the rename is the last step. Shared by the
//! worker's image store and the cluster's registry.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

/// A sha256 digest in its OCI form, `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

/// A text that is no digest of a kind we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: it must be sha256: and 64 hexadecimal digits")]
pub struct BadDigest(String);

impl Digest {
    /// Reads `sha256:…`.
    ///
    /// # Errors
    /// [`BadDigest`] for any other text, other algorithms included.
    pub fn parse(text: &str) -> Result<Self, BadDigest> {
        let is_hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.strip_prefix("sha256:") {
            Some(hex) if is_hex(hex) => Ok(Self(text.to_string())),
            _ => Err(BadDigest(text.chars().take(100).collect())),
        }
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    /// The 64 hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How long the beginning of a blob is kept that nobody goes on with.
const BEGINNINGS_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// A folder of blobs.
#[derive(Debug)]
pub struct BlobStore {
    directory: PathBuf,
}

/// Why a blob was not stored; nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes are not those that the digest names.
    #[error("the content's digest is {found}, not {expected}")]
    Mismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The disk failed or is full.
    #[error("failed to write a blob in {}", directory.display())]
    Io {
        /// The folder of the store.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl BlobStore {
    /// Opens the folder, making it if it is missing, and removes what an earlier process left half-written, but for the beginnings of
    /// blobs that [`BlobStore::resume`] may go on with, for a day.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> std::io::Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(directory.join("sha256"))?;
        let partial = directory.join("partial");
        std::fs::create_dir_all(&partial)?;
        for entry in std::fs::read_dir(&partial)? {
            let entry = entry?;
            let age = || entry.metadata()?.modified()?.elapsed().map_err(std::io::Error::other);
            let is_beginning = Digest::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).is_ok();
            if !is_beginning || age().is_ok_and(|age| age > BEGINNINGS_KEPT) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory })
    }

    /// The file of a blob that is here.
    pub fn get(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        path.exists().then_some(path)
    }

    /// Begins a blob whose digest need not be known yet.
    ///
    /// # Errors
    /// When no file can be made.
    pub async fn writer(&self) -> std::io::Result<BlobWriter> {
        let partial = self.directory.join("partial");
        let temporary = tempfile::NamedTempFile::new_in(partial)?;
        let (file, path) = temporary.into_parts();
        Ok(self.write_to(file, Place::Temporary(path), Sha256::new(), 0))
    }

    /// Goes on with the blob that has this digest, where its writer was left before: what is here of it counts as written. One writer
    /// for a digest at a time.
    ///
    /// # Errors
    /// When the file cannot be made or read.
    pub(crate) async fn resume(&self, digest: &Digest) -> std::io::Result<BlobWriter> {
        let path = self.directory.join("partial").join(digest.hex());
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::options().create(true).read(true).append(true).open(&path)?;
            let mut hash = Sha256::new();
            let (mut buffer, mut size) = (vec![0; 64 * 1024], 0);
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    return Ok::<_, std::io::Error>((file, path, hash, size));
                }
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        });
        let (file, path, hash, size) = opened.await.map_err(std::io::Error::other).flatten()?;
        Ok(self.write_to(file, Place::Kept(path), hash, size))
    }

    fn write_to(&self, file: std::fs::File, place: Place, hash: Sha256, size: u64) -> BlobWriter {
        let file = tokio::io::BufWriter::with_capacity(256 * 1024, tokio::fs::File::from_std(file));
        BlobWriter { file, place, hash, size, directory: self.directory.clone() }
    }

    /// Stores what `content` reads to, which may be `most` bytes, and answers its digest. Blocks.
    ///
    /// # Errors
    /// What `content` or the file system says.
    pub(crate) fn keep(&self, content: &mut dyn Read, most: u64) -> std::io::Result<Digest> {
        let mut temporary = tempfile::NamedTempFile::new_in(self.directory.join("partial"))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut left = most;
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            left = left
                .checked_sub(read as u64)
                .ok_or_else(|| std::io::Error::other(format!("it has more than the {most} bytes that are taken")))?;
            hash.update(&buffer[..read]);
            temporary.write_all(&buffer[..read])?;
        }
        temporary.as_file().sync_all()?;
        let digest = Digest(format!("sha256:{}", hex::encode(hash.finalize())));
        let place = self.path(&digest);
        temporary.persist(&place).map_err(|error| error.error)?;
        sync_directory(place.parent().unwrap_or(&self.directory))?;
        Ok(digest)
    }

    /// Stores `bytes` whole; answers their digest.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.get(&digest).is_none() {
            let failed = |source| StoreError::Io { directory: self.directory.clone(), source };
            let mut writer = self.writer().await.map_err(failed)?;
            writer.write(bytes).await.map_err(failed)?;
            writer.finish(&digest).await?;
        }
        Ok(digest)
    }

    /// Removes a blob, if it is here.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn delete(&self, digest: &Digest) -> std::io::Result<()> {
        match std::fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All blobs that are here, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> std::io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in std::fs::read_dir(self.directory.join("sha256"))? {
            let name = entry?.file_name();
            digests.extend(Digest::parse(&format!("sha256:{}", name.to_string_lossy())));
        }
        Ok(digests)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("sha256").join(digest.hex())
    }
}

/// A blob that is being written. Dropping it removes the file, unless it may be gone on with.
#[derive(Debug)]
pub struct BlobWriter {
    file: tokio::io::BufWriter<tokio::fs::File>,
    place: Place,
    hash: Sha256,
    size: u64,
    directory: PathBuf,
}

/// Where a blob is until it is whole.
#[derive(Debug)]
enum Place {
    /// Gone with the writer.
    Temporary(tempfile::TempPath),
    /// To be gone on with.
    Kept(PathBuf),
}

impl Place {
    /// As a file that goes when nobody needs it.
    fn temporary(self) -> std::io::Result<tempfile::TempPath> {
        match self {
            Self::Temporary(path) => Ok(path),
            Self::Kept(path) => tempfile::TempPath::try_from_path(path),
        }
    }
}

impl BlobWriter {
    /// Sees to it that what was written so far is there when it is gone on with.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(crate) async fn leave(mut self) -> std::io::Result<()> {
        self.file.flush().await
    }

    /// Begins anew: nothing of what is here counts.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn restart(&mut self) -> std::io::Result<()> {
        self.file.flush().await?;
        self.file.get_mut().set_len(0).await?;
        (self.hash, self.size) = (Sha256::new(), 0);
        Ok(())
    }

    /// Appends `bytes`. Not cancel safe: a writer whose `write` was dropped must be dropped too.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// The bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Checks the content against `expected`; it stays beside, until what is answered is dropped.
    ///
    /// # Errors
    /// [`StoreError`]; the file is removed.
    pub(crate) async fn beside(mut self, expected: &Digest) -> Result<tempfile::TempPath, StoreError> {
        let failed = |source| StoreError::Io { directory: self.directory.clone(), source };
        let path = self.place.temporary().map_err(failed)?;
        let found = Digest(format!("sha256:{}", hex::encode(self.hash.finalize())));
        if found != *expected {
            return Err(StoreError::Mismatch { expected: expected.clone(), found });
        }
        self.file.flush().await.map_err(failed)?;
        Ok(path)
    }

    /// Checks the content against `expected`, makes it durable and puts it in its place.
    ///
    /// # Errors
    /// [`StoreError`]; the file is removed.
    pub async fn finish(self, expected: &Digest) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { directory: self.directory.clone(), source };
        let path = self.place.temporary().map_err(failed)?;
        let found = Digest(format!("sha256:{}", hex::encode(self.hash.finalize())));
        if found != *expected {
            return Err(StoreError::Mismatch { expected: expected.clone(), found });
        }
        let place = self.directory.join("sha256").join(found.hex());
        let durable = async {
            let mut file = self.file;
            file.flush().await?;
            file.get_ref().sync_all().await?;
            path.persist(&place).map_err(|error| error.error)?;
            sync_directory(place.parent().unwrap_or(&self.directory))
        };
        durable.await.map_err(failed)
    }
}

/// Makes a rename in `directory` durable.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_there_only_when_it_is_whole_and_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path()).expect("a store");
        let digest = Digest::of(b"abalone");
        let mut writer = store.writer().await.expect("a writer");
        writer.write(b"aba").await.expect("written");
        assert!(store.get(&digest).is_none());
        writer.write(b"lone").await.expect("written");
        writer.finish(&digest).await.expect("the digest fits");
        assert_eq!(std::fs::read(store.get(&digest).expect("it is there")).expect("a file"), b"abalone");

        let mut wrong = store.writer().await.expect("a writer");
        wrong.write(b"oyster").await.expect("written");
        assert!(matches!(wrong.finish(&digest).await, Err(StoreError::Mismatch { .. })));
        assert_eq!(store.list().expect("a list"), vec![digest]);
        assert_eq!(std::fs::read_dir(folder.path().join("partial")).expect("a folder").count(), 0);
    }

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        assert!(Digest::parse(&Digest::of(b"x").to_string()).is_ok());
        for text in
            ["", "sha256:", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../../../etc/passwd"]
        {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        assert!(Digest::parse(&Digest::of(b"x").to_string().to_uppercase()).is_err());
    }
}

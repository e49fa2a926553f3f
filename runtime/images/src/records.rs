//! What references were resolved to, remembered on disk: a worker starts its pods without any registry.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::blobs::Digest;

/// What is known of one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The form of this record; another one is not read.
    pub version: u32,
    /// The reference in its canonical form.
    pub reference: String,
    /// The digest of the manifest or index.
    pub digest: String,
    /// The digest of the module.
    pub module: String,
    pub entrypoint: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The fingerprints of the credentials with which the registry gave it, newest last; none if it gives it to everybody.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// The fingerprints of the keys that are known to have signed it, newest last.
    #[serde(default)]
    pub signers: Vec<String>,
}

/// The form that this code writes.
pub(crate) const VERSION: u32 = 1;

/// Reads a record of this form.
pub(crate) fn read(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok().filter(|record: &Record| record.version == VERSION)
}

/// A folder with a file for each reference.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// What is known of `reference`; a file that cannot be read is as good as none.
    pub(crate) fn load(&self, reference: &str) -> Option<Record> {
        read(&std::fs::read(self.path(reference)).ok()?).filter(|record| record.reference == reference)
    }

    /// Remembers `record`, durably, in place of an older one.
    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.as_file().sync_all()?;
        file.persist(self.path(&record.reference)).map_err(|error| error.error)?;
        std::fs::File::open(&self.directory)?.sync_all()
    }

    /// Everything that is known, in no order.
    pub(crate) fn list(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            // One that is removed meanwhile, or half-written, is none.
            let Ok(bytes) = std::fs::read(entry?.path()) else { continue };
            records.extend(read(&bytes));
        }
        Ok(records)
    }

    /// Forgets what is known of `reference`.
    pub(crate) fn remove(&self, reference: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(reference)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A reference may be longer than a file's name.
    fn path(&self, reference: &str) -> PathBuf {
        Path::new(&self.directory).join(format!("{}.json", Digest::of(reference.as_bytes()).hex()))
    }
}

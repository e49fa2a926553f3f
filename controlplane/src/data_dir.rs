//! The files of a server: who it is, the cluster's keys, and what tells a second start from the first.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shoal_link::ca::CertificateAuthority;
use shoal_link::{Identity, write_private};
use shoal_store::Member;

/// The name of the server's own identity files.
pub(crate) const SERVER: &str = "server";

/// The name of the admin's identity files.
pub(crate) const ADMIN: &str = "admin";

/// The folder; only its owner may look into it.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// `member.json`: the server belongs to a cluster once this is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The file's version.
    pub version: u32,
    /// This server as the others know it.
    pub member: Member,
    /// Whether the cluster counts it: the first server has made the cluster, or a later one was added.
    pub admitted: bool,
    /// Link addresses of servers that were there when it joined; empty for the first server.
    pub servers: Vec<String>,
}

/// The version of `member.json` that this program writes.
pub(crate) const MEMBERSHIP_VERSION: u32 = 1;

/// The keys that all servers share, and nobody else has.
pub(crate) struct ClusterKeys {
    /// The cluster's CA.
    pub authority: CertificateAuthority,
    /// The key that signs service accounts' tokens, in PEM.
    pub service_account_key: String,
}

impl DataDir {
    /// Makes the folder if it is missing.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("failed to make the data directory {}", path.display()))?;
        Ok(Self { path: path.to_path_buf() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store keeps its log and its snapshots.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Where the registry keeps its blobs.
    pub(crate) fn registry(&self) -> PathBuf {
        self.path.join("registry")
    }

    pub(crate) fn membership(&self) -> anyhow::Result<Option<Membership>> {
        let Some(text) = self.read("member.json")? else { return Ok(None) };
        let membership: Membership = serde_json::from_str(&text)
            .with_context(|| format!("failed to understand {}/member.json", self.path.display()))?;
        anyhow::ensure!(
            membership.version == MEMBERSHIP_VERSION,
            "{}/member.json is of version {}, which this program does not know",
            self.path.display(),
            membership.version
        );
        Ok(Some(membership))
    }

    pub(crate) fn save_membership(&self, membership: &Membership) -> anyhow::Result<()> {
        self.write("member.json", &serde_json::to_string_pretty(membership)?)
    }

    pub(crate) fn cluster_keys(&self) -> anyhow::Result<ClusterKeys> {
        let authority = CertificateAuthority::from_pem(&self.expect("ca.crt")?, &self.expect("ca.key")?)
            .with_context(|| format!("failed to use the cluster's CA in {}", self.path.display()))?;
        Ok(ClusterKeys { authority, service_account_key: self.expect("sa.key")? })
    }

    pub(crate) fn save_cluster_keys(&self, keys: &ClusterKeys) -> anyhow::Result<()> {
        self.write("ca.key", keys.authority.key_pem())?;
        self.write("ca.crt", keys.authority.certificate_pem())?;
        self.write("sa.key", &keys.service_account_key)
    }

    pub(crate) fn identity(&self, name: &str) -> anyhow::Result<Identity> {
        Identity::load(&self.path, name).context("failed to load an identity")
    }

    pub(crate) fn save_identity(&self, identity: &Identity, name: &str) -> anyhow::Result<()> {
        identity.save(&self.path, name).context("failed to save an identity")
    }

    /// The text of a file; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    /// Writes a file for its owner only, durably.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(write_private(&self.path.join(name), text.as_bytes())?)
    }

    fn expect(&self, name: &str) -> anyhow::Result<String> {
        self.read(name)?
            .with_context(|| format!("{} is missing: restore it from another server", self.path.join(name).display()))
    }
}

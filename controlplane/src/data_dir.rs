//! The files of a server: who it is, the cluster's keys, and what tells a second start from the first.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shoal_link::ca::CertificateAuthority;
use shoal_link::{Identity, write_private};
use shoal_store::Member;
use shoal_store::seal::Keyring;

/// The name of the server's own identity files.
pub(crate) const SERVER: &str = "server";

/// The name of the admin's identity files.
pub(crate) const ADMIN: &str = "admin";

/// The folder; only its owner may look into it.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Where the encryption keys are, when not here.
    ring: Option<PathBuf>,
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
    /// Link addresses of the other servers, as far as it knows; empty for a first server.
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
    /// The keys with which files are sealed.
    pub ring: Keyring,
}

/// What sealed files of a server begin with, and what they are sealed for.
const SEALED: &str = "shoal sealed file 1 ";
const PURPOSE: &str = "shoal file";

/// The file of the keys with which the others are sealed.
pub(crate) const RING: &str = "encryption.keys";

/// The folder of what `shoal restore` made, until a server founds a cluster with it.
pub(crate) const RESTORED: &str = "restored";

impl DataDir {
    /// Makes the folder if it is missing.
    pub(crate) fn create(path: &Path, ring: Option<PathBuf>) -> anyhow::Result<Self> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("failed to make the data directory {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), ring })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store keeps its log and its snapshots.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Where what `shoal restore` made waits for a server.
    pub(crate) fn restored(&self) -> PathBuf {
        self.path.join(RESTORED)
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
        let ring = self.ring()?;
        let ca_key = self.expect_sealed("ca.key", &ring)?;
        let authority = CertificateAuthority::from_pem(&self.expect("ca.crt")?, &ca_key)
            .with_context(|| format!("failed to use the cluster's CA in {}", self.path.display()))?;
        Ok(ClusterKeys { authority, service_account_key: self.expect_sealed("sa.key", &ring)?, ring })
    }

    /// Also seals them anew with the ring's active key. The ring is written first: without it the others are of no use.
    pub(crate) fn save_cluster_keys(&self, keys: &ClusterKeys) -> anyhow::Result<()> {
        self.save_ring(&keys.ring)?;
        self.write_sealed("ca.key", keys.authority.key_pem(), &keys.ring)?;
        self.write("ca.crt", keys.authority.certificate_pem())?;
        self.write_sealed("sa.key", &keys.service_account_key, &keys.ring)
    }

    fn ring(&self) -> anyhow::Result<Keyring> {
        let path = self.ring_path();
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "failed to read the encryption keys in {}: without them nothing here can be read; restore the file, or start with \
                 --repair to have this server begin anew from the others",
                path.display()
            )
        })?;
        Keyring::parse(&text).with_context(|| format!("failed to understand {}", path.display()))
    }

    pub(crate) fn save_ring(&self, ring: &Keyring) -> anyhow::Result<()> {
        Ok(write_private(&self.ring_path(), ring.render().as_bytes())?)
    }

    fn ring_path(&self) -> PathBuf {
        self.ring.clone().unwrap_or_else(|| self.path.join(RING))
    }

    fn write_sealed(&self, name: &str, text: &str, ring: &Keyring) -> anyhow::Result<()> {
        let sealed = ring.seal(PURPOSE, text.as_bytes())?;
        self.write(name, &format!("{SEALED}{}\n", hex::encode(sealed)))
    }

    fn expect_sealed(&self, name: &str, ring: &Keyring) -> anyhow::Result<String> {
        let text = self.expect(name)?;
        let opened = || {
            let sealed =
                text.strip_prefix(SEALED).context("it is no sealed file of a version that this program reads")?;
            anyhow::Ok(String::from_utf8(ring.open(PURPOSE, &hex::decode(sealed.trim())?)?)?)
        };
        opened().with_context(|| format!("failed to open {}", self.path.join(name).display()))
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

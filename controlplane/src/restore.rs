//! From a backup to a new cluster: `shoal restore` leaves the state and the keys in a folder, and the server that finds them there
//! founds a cluster with them.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shoal_apiserver::ServiceAccountKey;
use shoal_link::ca::CertificateAuthority;
use shoal_store::backup::{self, Head, Opening};
use shoal_store::seal::Keyring;
use shoal_store::{Folder, Image, Member, Revision};

use crate::config::ServerConfig;
use crate::data_dir::{ClusterKeys, DataDir, RESTORED, SERVER};
use crate::founding::{Belonging, server_subject};

/// How many revisions are left out between the backup and the restored cluster: more than there can have been since the backup,
/// even after years of thousands of writes a second, and few enough for every client's arithmetic (2^53) to bear thousands of restores.
const REVISIONS_LEFT_OUT: u64 = 1_000_000_000_000;

/// What is in a backup under its passphrase.
#[derive(Serialize, Deserialize)]
pub(crate) struct Secrets {
    pub ca_certificate: String,
    pub ca_key: String,
    pub service_account_key: String,
    pub encryption_keys: String,
}

/// What a restore came to.
#[derive(Debug)]
pub struct Restored {
    /// The backup's own description.
    pub head: Head,
    /// Whether the cluster keeps its CA, and with it every certificate and kubeconfig.
    pub keeps_ca: bool,
}

/// Makes `data_dir` the beginning of a cluster with what the backup in `file` has: the server, or `up`, that is started on it
/// next founds that cluster.
///
/// # Errors
/// When the backup cannot be opened or is damaged, or the folder has a server or a cluster already.
pub fn restore(file: &Path, data_dir: &Path, opening: &Opening) -> anyhow::Result<Restored> {
    for taken in ["member.json", "cluster.json", RESTORED] {
        anyhow::ensure!(
            !data_dir.join(taken).exists(),
            "{} has a cluster already ({taken}): restore into a folder of its own",
            data_dir.display()
        );
    }
    let input = std::fs::File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
    let (head, backup) = backup::read(BufReader::with_capacity(1 << 20, input), Some(opening))
        .with_context(|| format!("failed to restore {}", file.display()))?;
    let backup = backup.context("the backup was not opened")?;
    let keys = match &backup.secrets {
        Some(secrets) => {
            let secrets: Secrets =
                serde_json::from_slice(secrets).context("failed to understand the backup's secrets")?;
            ClusterKeys {
                authority: CertificateAuthority::from_pem(&secrets.ca_certificate, &secrets.ca_key)?,
                service_account_key: secrets.service_account_key,
                ring: Keyring::parse(&secrets.encryption_keys)?,
            }
        }
        None => ClusterKeys {
            authority: CertificateAuthority::create("restored")?,
            service_account_key: ServiceAccountKey::generate_pem()?,
            ring: match opening {
                Opening::Keys(ring) => ring.clone(),
                Opening::Passphrase(_) => Keyring::generate()?,
            },
        },
    };
    // Beside, so that a folder that is called so is whole.
    DataDir::create(data_dir, None)?;
    let beside = data_dir.join(format!("{RESTORED}.new"));
    if beside.exists() {
        std::fs::remove_dir_all(&beside).with_context(|| format!("failed to remove {}", beside.display()))?;
    }
    let directory = DataDir::create(&beside, None)?;
    directory.save_cluster_keys(&keys)?;
    let disk = Arc::new(Folder::open(&directory.store())?);
    shoal_store::park(disk, keys.ring, raised(backup.image)).context("failed to write the state")?;
    std::fs::rename(&beside, data_dir.join(RESTORED)).context("failed to finish the restore")?;
    Ok(Restored { head, keeps_ca: backup.secrets.is_some() })
}

/// No revision and no member id of the former cluster is used again.
fn raised(image: Image) -> Image {
    let (revision, member) = (image.revision(), image.last_member());
    image.raised(Revision(revision.0 + REVISIONS_LEFT_OUT), member + 1)
}

/// Takes over the keys and the state of a restored cluster: this server is to be its first.
pub(crate) fn found(config: &ServerConfig, directory: &DataDir) -> anyhow::Result<Belonging> {
    let restored = DataDir::create(&directory.restored(), None)?;
    let keys = restored.cluster_keys()?;
    directory.save_cluster_keys(&keys)?;
    let identity = keys.authority.issue(&server_subject(config))?;
    directory.save_identity(&identity, SERVER)?;
    let image = parked(&restored, &keys.ring)?;
    tracing::info!(
        server = config.name,
        revision = image.revision().0,
        keys = image.len(),
        "founding a restored cluster"
    );
    Ok(Belonging { member_id: image.last_member(), keys, servers: Vec::new() })
}

fn parked(restored: &DataDir, ring: &Keyring) -> anyhow::Result<Image> {
    let disk = Arc::new(Folder::open(&restored.store())?);
    shoal_store::parked(disk, ring.clone()).context("failed to read what was restored")
}

/// Puts the restored state where the store finds it. Done again from the beginning after a crash: a store that is half there is
/// nobody's yet.
pub(crate) async fn seed(directory: &DataDir, ring: &Keyring, member: &Member) -> anyhow::Result<()> {
    let restored = directory.restored();
    if !restored.exists() {
        return Ok(());
    }
    let image = parked(&DataDir::create(&restored, None)?, ring)?;
    let store = directory.store();
    if store.exists() {
        std::fs::remove_dir_all(&store).with_context(|| format!("failed to remove {}", store.display()))?;
    }
    let disk = Arc::new(Folder::open(&store)?);
    shoal_store::seed(disk, ring.clone(), member.clone(), image).await.context("failed to write the restored state")
}

/// Forgets what was restored, once a cluster was founded with it.
pub(crate) fn finish(directory: &DataDir) -> anyhow::Result<()> {
    let restored = directory.restored();
    if restored.exists() {
        std::fs::remove_dir_all(&restored).with_context(|| format!("failed to remove {}", restored.display()))?;
    }
    Ok(())
}

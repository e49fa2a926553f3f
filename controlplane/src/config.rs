//! What a server is given: from flags, or from a TOML file with the same words.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use shoal_controllers::node::Patience;
use shoal_link::token::JoinToken;
use shoal_store::{Capacity, Timing, limits};

/// Everything that one control-plane server needs to know.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The server's name; it must be another one for each server, and stay.
    pub name: String,
    /// Where its identity, its log and its blobs are kept.
    pub data_dir: PathBuf,
    /// Where the API listens (TCP). Port 0 means: the port of the last start, or any.
    pub api_address: SocketAddr,
    /// Where the link listens (UDP). Port 0 means: the port of the last start, or any.
    pub link_address: SocketAddr,
    /// The host under which the others reach this server, when it is not the one it listens on, as behind a NAT or on `0.0.0.0`.
    pub advertise_host: Option<String>,
    /// Further names and addresses that the API's certificate is to be good for.
    pub names: Vec<String>,
    /// The cluster to join; `None` for the first server. Not looked at once the server belongs to a cluster.
    pub join: Option<Join>,
    /// How patient the servers are with one another.
    pub timing: Profile,
    /// The file of the encryption keys, where that is not `encryption.keys` in `data_dir`.
    pub encryption_keys: Option<PathBuf>,
    /// Whether to put aside what the store has on disk and begin anew from the other servers, as a new member.
    pub repair: bool,
    /// How much the store keeps.
    pub capacity: Capacity,
    /// How long an event stays after its last write.
    pub event_ttl: Duration,
    /// Backups to be made by themselves.
    pub backups: Option<Backups>,
}

/// Backups that a server makes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backups {
    /// The folder.
    pub directory: PathBuf,
    /// The time from one to the next.
    pub every: Duration,
    /// How many are kept.
    pub keep: usize,
    /// With it the CA and the encryption keys are in them too.
    pub passphrase: Option<String>,
}

/// How to join a cluster.
#[derive(Debug, Clone)]
pub struct Join {
    /// The link addresses of servers, each host and port; one that answers is enough.
    pub addresses: Vec<String>,
    /// A token for servers.
    pub token: JoinToken,
}

/// How patient the servers are with one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A local network and SSDs.
    #[default]
    Lan,
    /// Flash cards and slow links.
    Edge,
}

impl Profile {
    pub(crate) fn timing(self) -> Timing {
        match self {
            Self::Lan => Timing::LAN,
            Self::Edge => Timing::EDGE,
        }
    }

    /// How patient the cluster is with silent workers.
    pub(crate) fn patience(self) -> Patience {
        match self {
            Self::Lan => Patience::LAN,
            Self::Edge => Patience::KUBERNETES,
        }
    }
}

/// How long an event stays, as with kube-apiserver.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// How many hours there are from one backup to the next, and how many are kept, when nothing else is said.
const BACKUP_HOURS: u64 = 6;
const BACKUPS_KEPT: usize = 8;

/// The port of the API and of the link, when nothing else is said.
pub const DEFAULT_PORT: u16 = 6443;

impl ServerConfig {
    /// The first server of a cluster, on loopback, with `data_dir` and otherwise what is usual.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            api_address: address,
            link_address: address,
            advertise_host: None,
            names: Vec::new(),
            join: None,
            timing: Profile::Lan,
            encryption_keys: None,
            repair: false,
            capacity: Capacity::default(),
            event_ttl: EVENT_TTL,
            backups: None,
        }
    }
}

/// The configuration file: every word is optional, and a flag overrides it.
///
/// Worked example:
///
/// ```toml
/// name = "server-2"
/// data_dir = "/var/lib/shoal"
/// api_address = "0.0.0.0:6443"
/// advertise_host = "10.0.0.2"
/// join = ["10.0.0.1:6443"]
/// token = "shoal1.s.…"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// As [`ServerConfig::name`].
    pub name: Option<String>,
    /// As [`ServerConfig::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// As [`ServerConfig::api_address`].
    pub api_address: Option<SocketAddr>,
    /// As [`ServerConfig::link_address`]; without it the API's address.
    pub link_address: Option<SocketAddr>,
    /// As [`ServerConfig::advertise_host`].
    pub advertise_host: Option<String>,
    /// As [`ServerConfig::names`].
    pub names: Vec<String>,
    /// The link addresses of servers to join.
    pub join: Vec<String>,
    /// The token to join with.
    pub token: Option<String>,
    /// As [`ServerConfig::timing`].
    pub timing: Option<Profile>,
    /// As [`ServerConfig::encryption_keys`].
    pub encryption_keys: Option<PathBuf>,
    /// The size of all keys and values, in MiB, above which the store takes nothing but deletes.
    pub store_mib: Option<u64>,
    /// How many changes can be watched from and looked back to.
    pub history_changes: Option<usize>,
    /// How many MiB of former values are kept for that.
    pub history_mib: Option<u64>,
    /// How many minutes an event stays after its last write.
    pub event_minutes: Option<u64>,
    /// The folder for backups that are made by themselves.
    pub backup_dir: Option<PathBuf>,
    /// How many hours there are from one to the next.
    pub backup_hours: Option<u64>,
    /// How many of them are kept.
    pub backup_keep: Option<usize>,
    /// A file with the passphrase for them; without it they hold neither the CA nor the encryption keys.
    pub backup_passphrase_file: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is no TOML, or has a word that is not known; the text says where.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("failed to understand {}", path.display()))
    }

    /// Puts the file's words into a configuration; what is not said is as in [`ServerConfig::new`].
    ///
    /// # Errors
    /// When there is no data directory, or the token is none.
    pub fn into_config(self) -> anyhow::Result<ServerConfig> {
        let data_dir = self.data_dir.context("a data directory is needed")?;
        let name = self.name.unwrap_or_else(host_name);
        let mut config = ServerConfig::new(name, data_dir);
        if let Some(address) = self.api_address {
            config.api_address = address;
        }
        config.link_address = self.link_address.unwrap_or(config.api_address);
        config.advertise_host = self.advertise_host;
        config.names = self.names;
        config.timing = self.timing.unwrap_or_default();
        config.join = join(self.join, self.token)?;
        config.encryption_keys = self.encryption_keys;
        let mib = |field: &str, value: u64| {
            value
                .checked_mul(1 << 20)
                .filter(|bytes| *bytes > 0)
                .with_context(|| format!("{field} = {value} is no size"))
        };
        if let Some(value) = self.store_mib {
            config.capacity.state_bytes = mib("store_mib", value)?;
            anyhow::ensure!(
                config.capacity.state_bytes <= limits::STATE_BYTES,
                "store_mib = {value} is above the limit of {}",
                limits::STATE_BYTES >> 20
            );
        }
        if let Some(value) = self.history_mib {
            config.capacity.history.bytes = mib("history_mib", value)?;
        }
        if let Some(changes) = self.history_changes {
            anyhow::ensure!(changes > 0, "history_changes must be above 0: watches go on from what is kept");
            config.capacity.history.changes = changes;
        }
        if let Some(minutes) = self.event_minutes {
            anyhow::ensure!(minutes > 0, "event_minutes must be above 0");
            config.event_ttl = Duration::from_secs(60 * minutes);
        }
        config.backups = backups(
            self.backup_dir,
            (self.backup_hours.unwrap_or(BACKUP_HOURS), self.backup_keep.unwrap_or(BACKUPS_KEPT)),
            self.backup_passphrase_file.as_deref(),
        )?;
        Ok(config)
    }
}

fn backups(
    directory: Option<PathBuf>,
    (hours, keep): (u64, usize),
    passphrase: Option<&Path>,
) -> anyhow::Result<Option<Backups>> {
    let Some(directory) = directory else { return Ok(None) };
    anyhow::ensure!(hours > 0, "backup_hours must be above 0");
    anyhow::ensure!(keep > 0, "backup_keep must be above 0");
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let text = text.trim_end_matches(['\r', '\n']).to_string();
        anyhow::ensure!(!text.is_empty(), "there is no passphrase in {}", path.display());
        Ok(text)
    };
    let passphrase = passphrase.map(read).transpose()?;
    Ok(Some(Backups { directory, every: Duration::from_secs(3600 * hours), keep, passphrase }))
}

fn join(addresses: Vec<String>, token: Option<String>) -> anyhow::Result<Option<Join>> {
    match (addresses.is_empty(), token) {
        (true, None) => Ok(None),
        (false, Some(token)) => Ok(Some(Join { addresses, token: token.parse()? })),
        (true, Some(_)) => anyhow::bail!("a token is of no use without the address of a server to join"),
        (false, None) => anyhow::bail!("joining a cluster needs a token: `shoal token create --role server` makes one"),
    }
}

/// This machine's name, as far as a server may be called so.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let name: String = name.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "server".to_string() } else { name.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_differs_from_the_usual() {
        let text = "data_dir = \"/d\"\nname = \"a\"\napi_address = \"127.0.0.1:7000\"\ntiming = \"edge\"";
        let file: ConfigFile = toml::from_str(text).expect("a file");
        let config = file.into_config().expect("a configuration");
        assert_eq!((config.name.as_str(), config.link_address.port()), ("a", 7000));
        assert_eq!(config.timing, Profile::Edge);
        assert!(config.join.is_none());
    }

    #[test]
    fn a_word_that_is_not_known_and_a_bad_token_are_named() {
        let error = toml::from_str::<ConfigFile>("data_dri = \"/d\"").expect_err("refused");
        assert!(error.to_string().contains("data_dri"), "{error}");
        let file = ConfigFile {
            data_dir: Some("/d".into()),
            join: vec!["a:1".into()],
            token: Some("x".into()),
            ..Default::default()
        };
        let error = file.into_config().expect_err("refused");
        assert!(error.to_string().contains("no join token"), "{error}");
    }
}

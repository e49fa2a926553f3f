//! How a server comes to belong to a cluster: it founds one, joins one, or finds that it belongs to one already.

use std::net::IpAddr;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use shoal_apiserver::ServiceAccountKey;
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::join::Wish;
use shoal_link::limits::{ADMIN_CERTIFICATE, MEMBER_CERTIFICATE};
use shoal_link::token::JoinRole;
use shoal_link::{Identity, PeerIdentity, SERVERS};
use shoal_store::Member;
use shoal_store::seal::Keyring;

use crate::config::{Join, ServerConfig};
use crate::data_dir::{ADMIN, ClusterKeys, DataDir, SERVER};

/// The first address of the cluster's Service network: the API's own Service.
const KUBERNETES_SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

/// The names under which pods and clients know the API.
const API_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// What a new server is given beside its certificate.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerGrant {
    /// Its member id.
    pub member_id: u64,
    /// The CA's key, PEM.
    pub ca_key: String,
    /// The key that signs service accounts' tokens, PEM.
    pub service_account_key: String,
    /// The keys with which files are sealed, as their text.
    pub encryption_keys: String,
    /// The servers that are there.
    pub members: Vec<Member>,
}

/// What founding and joining come to.
pub(crate) struct Belonging {
    pub keys: ClusterKeys,
    pub member_id: u64,
    /// Link addresses of the servers that were there before.
    pub servers: Vec<String>,
}

/// Makes a new cluster's keys and this server's identity in it.
pub(crate) fn found(config: &ServerConfig, directory: &DataDir) -> anyhow::Result<Belonging> {
    let authority = CertificateAuthority::create(&config.name)?;
    let ring = Keyring::generate()?;
    let keys = ClusterKeys { authority, service_account_key: ServiceAccountKey::generate_pem()?, ring };
    directory.save_cluster_keys(&keys)?;
    let identity = keys.authority.issue(&server_subject(config))?;
    directory.save_identity(&identity, SERVER)?;
    tracing::info!(server = config.name, "made the keys of a new cluster");
    Ok(Belonging { keys, member_id: 1, servers: Vec::new() })
}

/// Joins a cluster through the first of its servers that answers, and keeps what it gives.
pub(crate) async fn join(config: &ServerConfig, join: &Join, directory: &DataDir) -> anyhow::Result<Belonging> {
    anyhow::ensure!(
        join.token.role == JoinRole::Server,
        "this token is for workers: `shoal token create --role server` makes one for servers"
    );
    let wish = Wish { name: config.name.clone(), addresses: Vec::new(), details: serde_json::Value::Null };
    let (identity, reply) = ask_any(join, &wish).await?;
    let grant: ServerGrant =
        serde_json::from_value(reply.grant).context("failed to understand what the cluster gave this server")?;
    let keys = cluster_keys(&identity.ca_pem(), &grant)?;
    directory.save_cluster_keys(&keys)?;
    directory.save_identity(&identity, SERVER)?;
    tracing::info!(server = config.name, member = grant.member_id, "joined the cluster");
    Ok(Belonging { keys, member_id: grant.member_id, servers: reply.servers })
}

/// The keys in what the cluster gave.
pub(crate) fn cluster_keys(ca_certificate: &str, grant: &ServerGrant) -> anyhow::Result<ClusterKeys> {
    let authority =
        CertificateAuthority::from_pem(ca_certificate, &grant.ca_key).context("failed to use the cluster's CA")?;
    let ring = Keyring::parse(&grant.encryption_keys).context("failed to use the cluster's encryption keys")?;
    Ok(ClusterKeys { authority, service_account_key: grant.service_account_key.clone(), ring })
}

async fn ask_any(join: &Join, wish: &Wish) -> anyhow::Result<(Identity, shoal_link::join::JoinReply)> {
    let mut reasons = Vec::new();
    for address in &join.addresses {
        match shoal_link::join::join(address, &join.token, wish).await {
            Ok(joined) => return Ok(joined),
            // The others would say the same.
            Err(error @ shoal_link::join::JoinError::Refused(_)) => {
                return Err(error).with_context(|| format!("{address} refused to let this server join"));
            }
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    anyhow::bail!("failed to join the cluster: {}", reasons.join("; "))
}

/// What a server's certificate says: under which names and addresses its API is reached.
pub(crate) fn server_subject(config: &ServerConfig) -> Subject {
    let mut names: Vec<String> = API_NAMES.iter().map(|name| (*name).to_string()).collect();
    names.push(config.name.clone());
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), KUBERNETES_SERVICE];
    if !config.api_address.ip().is_unspecified() {
        addresses.push(config.api_address.ip());
    }
    for name in config.advertise_host.iter().chain(&config.names) {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    names.sort();
    names.dedup();
    addresses.sort();
    addresses.dedup();
    Subject { identity: server_identity(&config.name), member: true, names, addresses, validity: MEMBER_CERTIFICATE }
}

/// Who a server is, in its certificate.
pub(crate) fn server_identity(name: &str) -> PeerIdentity {
    PeerIdentity { common_name: format!("system:shoal:server:{name}"), organizations: vec![SERVERS.to_string()] }
}

/// The admin's identity, made when there is none or little of its life is left; and the kubeconfig that holds it.
pub(crate) fn write_admin_kubeconfig(
    directory: &DataDir,
    authority: &CertificateAuthority,
    api_address: &str,
) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let is_fresh = |identity: &Identity| {
        identity.validity().is_some_and(|(from, until)| until.duration_since(now) * 3 > until.duration_since(from))
    };
    let admin = match directory.identity(ADMIN).ok().filter(is_fresh) {
        Some(admin) => admin,
        None => {
            let identity = PeerIdentity {
                common_name: "shoal-admin".to_string(),
                organizations: vec!["system:masters".to_string()],
            };
            let subject = Subject {
                identity,
                member: false,
                names: Vec::new(),
                addresses: Vec::new(),
                validity: ADMIN_CERTIFICATE,
            };
            let admin = authority.issue(&subject)?;
            directory.save_identity(&admin, ADMIN)?;
            admin
        }
    };
    let kubeconfig = shoal_client::Kubeconfig {
        servers: vec![format!("https://{api_address}")],
        ca_pem: admin.ca_pem(),
        certificate_pem: admin.chain_pem(),
        key_pem: admin.key_pem(),
        ..Default::default()
    };
    directory.write("admin.kubeconfig", &kubeconfig.render())
}

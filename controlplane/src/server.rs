//! A server from its start to its end.
//!
//! Start: the listeners are bound, the server finds or gets its place in a cluster, the store is opened, the link serves (the
//! other servers must reach it), the place is confirmed, the API serves, the loops follow leadership. Stop: nothing new is
//! accepted, watches end, open requests are drained, the loops end, then the store, and the link last.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shoal_apiserver::{ApiServer, ServiceAccountKey};
use shoal_controllers::node::Patience;
use shoal_link::tasks::Tasks;
use shoal_link::token::{JoinRole, JoinToken};
use shoal_link::{Endpoint, IdentitySource, Pool, SERVERS};
use shoal_registry::{BlobStore, Registry};
use shoal_store::{Folder, Member, Store, Threads, Work};
use tokio::net::TcpListener;

use crate::catalog::StoreCatalog;
use crate::config::ServerConfig;
use crate::data_dir::{ClusterKeys, DataDir, MEMBERSHIP_VERSION, Membership, SERVER};
use crate::founding::{self, Belonging};
use crate::peers::{LinkPeers, OtherServers, keep_connected};
use crate::registry_peers::RegistryPeers;
use crate::workers::{NodeRouter, Workers};
use crate::{
    backups, keys, leadership, limits, link_service, place, registry_upkeep, repair, restore, route, standing, tokens,
};

/// The parts that requests need.
pub(crate) struct Core {
    pub store: Store,
    pub keys: ClusterKeys,
    pub nodes: NodeRouter,
    pub registry: Registry,
    pub api: ApiServer,
}

/// A running control-plane server. Call [`Server::shutdown`]; dropping it stops nothing in order.
pub struct Server {
    core: Arc<Core>,
    member: Member,
    directory: DataDir,
    endpoint: Endpoint,
    /// The thread of the link and of Raft.
    threads: Arc<Threads>,
    /// The API's listener and its requests.
    front: Tasks,
    /// The loops.
    leading: Tasks,
    /// All else.
    background: Tasks,
}

impl Server {
    /// Starts a server. When this answers, the server is a member of its cluster and serves; [`Server::ready`] says when the
    /// cluster does.
    ///
    /// # Errors
    /// When an address is taken, the data directory is damaged, or the cluster does not let it in.
    pub async fn start(mut config: ServerConfig) -> anyhow::Result<Self> {
        shoal_link::install_crypto();
        let directory = DataDir::create(&config.data_dir, config.encryption_keys.clone())?;
        let mut before = directory.membership()?;
        if let Some(before) = &before {
            place::use_former_ports(&mut config, before)?;
        }
        let listener = TcpListener::bind(config.api_address).await;
        let listener = listener.with_context(|| format!("failed to listen on {} (TCP)", config.api_address))?;
        config.api_address = listener.local_addr()?;

        if config.repair {
            let damaged = before
                .take()
                .context("there is no server here that could be repaired: --repair is for one that was a member")?;
            before = Some(repair::begin_anew(&config, &directory, damaged).await?);
        }
        let belonging = match &before {
            Some(before) => Belonging {
                keys: directory.cluster_keys()?,
                member_id: before.member.id,
                servers: before.servers.clone(),
            },
            None if directory.restored().exists() => restore::found(&config, &directory)?,
            None => match &config.join {
                Some(join) => founding::join(&config, join, &directory).await?,
                None => founding::found(&config, &directory)?,
            },
        };
        let source = IdentitySource::new(directory.identity(SERVER)?);
        let threads = Arc::new(Threads::start().context("failed to start a thread")?);
        let endpoint = bind(&threads, config.link_address, &source).await;
        let endpoint = endpoint.with_context(|| format!("failed to listen on {} (UDP)", config.link_address))?;
        config.link_address = endpoint.local_address()?;
        let started =
            Self::start_at(config, directory, listener, (&endpoint, &threads), &source, (before, belonging)).await;
        if started.is_err() {
            // Its port is free again when this answers.
            endpoint.close().await;
        }
        started
    }

    /// The rest of the start, with the listeners bound.
    async fn start_at(
        config: ServerConfig,
        directory: DataDir,
        listener: TcpListener,
        (endpoint, threads): (&Endpoint, &Arc<Threads>),
        source: &Arc<IdentitySource>,
        (before, belonging): (Option<Membership>, Belonging),
    ) -> anyhow::Result<Self> {
        let membership = membership(&config, &directory, before, &belonging)?;
        founding::write_admin_kubeconfig(&directory, &belonging.keys.authority, &membership.member.api_address)?;

        let pool = Arc::new(Pool::new(endpoint.clone()).only(SERVERS));
        if !membership.admitted {
            restore::seed(&directory, &belonging.keys.ring, &membership.member).await?;
        }
        let core = Arc::new(open(&config, &directory, &membership, belonging.keys, (&pool, threads)).await?);
        let server = Self {
            core,
            member: membership.member.clone(),
            directory,
            endpoint: endpoint.clone(),
            threads: threads.clone(),
            front: Tasks::new(),
            leading: Tasks::new(),
            background: Tasks::new(),
        };
        server.serve_link(&config, source).await?;
        if let Err(error) = place::take(&server.core, &pool, &server.directory, membership).await {
            server.shutdown().await;
            return Err(error);
        }
        restore::finish(&server.directory)?;
        server.keep_in_order(&config);
        server.serve_api(listener, source, config.timing.patience())?;
        tracing::info!(
            server = server.member.name,
            api = server.member.api_address,
            link = server.member.link_address,
            "the server runs"
        );
        Ok(server)
    }

    /// Its link, with this server's own certificate made anew for the names and addresses that it has now.
    async fn serve_link(&self, config: &ServerConfig, source: &Arc<IdentitySource>) -> anyhow::Result<()> {
        let (core, subject) = (self.core.clone(), founding::server_subject(config));
        let sign = move |request: Vec<u8>| {
            let signed = core.keys.authority.sign(&request, &subject);
            std::future::ready(signed.map(|certificate| certificate.to_vec()).map_err(|error| error.to_string()))
        };
        let path = self.directory.path().to_path_buf();
        shoal_link::renew::renew(source, &path, SERVER, &sign)
            .await
            .context("failed to make the server's certificate")?;
        self.background.spawn("certificate", shoal_link::renew::keep_fresh(source.clone(), path, SERVER, sign));
        self.background.spawn_essential("link", link_service::run(self.endpoint.clone(), self.core.clone()));
        self.background.spawn("connections to the other servers", keep_connected(self.core.nodes.servers.clone()));
        Ok(())
    }

    /// What goes on beside the requests.
    fn keep_in_order(&self, config: &ServerConfig) {
        let (core, directory) = (self.core.clone(), self.directory.clone());
        self.background.spawn("encryption keys", keys::follow(core, directory));
        let (core, directory) = (self.core.clone(), self.directory.clone());
        self.background.spawn("the other servers' addresses", standing::remember_others(core, directory));
        self.background.spawn("the registry's blobs", registry_upkeep::keep_tidy(self.core.clone()));
        if let Some(wish) = config.backups.clone() {
            self.background.spawn("backups", backups::keep_making(self.core.clone(), wish));
        }
    }

    fn serve_api(&self, listener: TcpListener, source: &Arc<IdentitySource>, patience: Patience) -> anyhow::Result<()> {
        let tls = Arc::new(shoal_link::tls_server_config(source)?);
        let core = self.core.clone();
        self.front.spawn_draining("api", move |stop| {
            shoal_apiserver::serve_tls(listener, tls, stop, move |request, peer| {
                route::answer(core.clone(), request, peer)
            })
        });
        let core = self.core.clone();
        self.leading.spawn_draining("leadership", move |stop| leadership::run(core, patience, stop));
        Ok(())
    }

    /// This server as the others know it.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Where the API listens, host and port.
    pub fn api_address(&self) -> &str {
        &self.member.api_address
    }

    /// Where workers and servers dial, host and port.
    pub fn link_address(&self) -> &str {
        &self.member.link_address
    }

    /// The token with which servers or workers may join, made when this server founded the cluster; `None` on the others. It
    /// may have been removed since.
    pub fn first_token(&self, role: JoinRole) -> Option<JoinToken> {
        self.directory.read(place::token_file(role)).ok()??.parse().ok()
    }

    /// Makes a token that is good for `life`, or until it is removed.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn create_token(&self, role: JoinRole, life: Option<Duration>) -> anyhow::Result<JoinToken> {
        Ok(tokens::create(&self.core.store, self.core.keys.authority.certificate(), role, life, None).await?)
    }

    /// Waits until the cluster has a leader, this server has its newest state, and that holds what every cluster must hold.
    /// Cancel safe.
    pub async fn ready(&self) {
        while !self.is_ready().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        // The last thing that the leader makes when it starts.
        const LAST: &str = "/registry/discovery.k8s.io/endpointslices/default/kubernetes";
        self.core.store.read_barrier().await.is_ok() && self.core.store.view().get(LAST).is_some()
    }

    /// Ends when the server cannot go on, such as after a failed write to disk, or is to go on no longer because it was removed from
    /// its cluster; answers why. The process must end then.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.core.store.failed() => reason,
            reason = standing::removed(&self.core) => reason,
            () = self.background.failed().cancelled() => "a part of the server is over".to_string(),
        }
    }

    /// Stops everything in order.
    pub async fn shutdown(self) {
        let (drained, ()) = tokio::join!(self.front.end(limits::DRAIN), self.core.api.stop());
        if !drained {
            tracing::info!("requests that were still open are cut off");
        }
        self.leading.end(limits::STOP_LOOPS).await;
        self.core.store.shutdown().await;
        self.background.end(limits::STOP_LOOPS).await;
        self.endpoint.close().await;
        self.threads.end(limits::STOP_LOOPS).await;
        tracing::info!(server = self.member.name, "the server has stopped");
    }
}

/// The link's endpoint. The socket of the server that ran here before may need a moment to go: its connections hold it.
async fn bind(threads: &Threads, address: SocketAddr, source: &Arc<IdentitySource>) -> std::io::Result<Endpoint> {
    let begun = tokio::time::Instant::now();
    loop {
        match Endpoint::bind_on(threads.handle(), address, source) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < limits::FREE_PORT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// This server's entry in the list of members, from its file or new.
fn membership(
    config: &ServerConfig,
    directory: &DataDir,
    before: Option<Membership>,
    belonging: &Belonging,
) -> anyhow::Result<Membership> {
    let member = Member {
        id: belonging.member_id,
        name: config.name.clone(),
        link_address: place::advertised(config, config.link_address)?,
        api_address: place::advertised(config, config.api_address)?,
    };
    if let Some(before) = before {
        place::check_unchanged(&before.member, &member)?;
        return Ok(before);
    }
    let membership =
        Membership { version: MEMBERSHIP_VERSION, member, admitted: false, servers: belonging.servers.clone() };
    directory.save_membership(&membership)?;
    Ok(membership)
}

/// Opens the store and puts the parts over it together.
async fn open(
    config: &ServerConfig,
    directory: &DataDir,
    membership: &Membership,
    keys: ClusterKeys,
    (pool, threads): (&Arc<Pool>, &Arc<Threads>),
) -> anyhow::Result<Core> {
    let service_account_key =
        Arc::new(ServiceAccountKey::from_pem(&keys.service_account_key).context("failed to use sa.key")?);
    let blobs = BlobStore::open(directory.registry())
        .with_context(|| format!("failed to open {}", directory.registry().display()))?;
    let store = open_store(config, directory, membership, &keys, (pool, threads)).await?;
    let servers = OtherServers { pool: pool.clone(), store: store.clone() };
    let catalog = Arc::new(StoreCatalog { store: store.clone() });
    let registry = Registry::new(Arc::new(blobs), catalog, Arc::new(RegistryPeers { servers: servers.clone() }));
    let nodes = NodeRouter { workers: Arc::new(Workers::default()), servers };
    let api = ApiServer::new(shoal_apiserver::Config {
        store: store.clone(),
        server_name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        service_account_key,
        event_ttl: config.event_ttl,
        node_requests: Arc::new(nodes.clone()),
    });
    Ok(Core { store, keys, nodes, registry, api })
}

/// Opens the store, which is damaged when a member has none.
async fn open_store(
    config: &ServerConfig,
    directory: &DataDir,
    membership: &Membership,
    keys: &ClusterKeys,
    (pool, threads): (&Arc<Pool>, &Arc<Threads>),
) -> anyhow::Result<Store> {
    let path = directory.store();
    let remedy = || {
        format!(
            "the store in {} cannot be used. Restore the files; or start with --repair to have this server begin anew from the others; \
             or, where there are no others, restore a backup (`shoal restore`)",
            path.display()
        )
    };
    let disk = Folder::open(&path).with_context(|| format!("failed to use {}", path.display()))?;
    if membership.admitted && shoal_store::is_empty(&disk)? {
        let gone = anyhow::anyhow!("nothing is there, and this server was a member of its cluster: its disk was lost");
        return Err(gone.context(remedy()));
    }
    let store = shoal_store::Config {
        timing: config.timing.timing(),
        capacity: config.capacity,
        work: Work::On(threads.clone()),
        ..shoal_store::Config::new(Arc::new(disk), keys.ring.clone(), membership.member.clone())
    };
    Store::open(store, Arc::new(LinkPeers { pool: pool.clone() })).await.with_context(remedy)
}

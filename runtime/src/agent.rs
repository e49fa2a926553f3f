//! The agent, put together: what is started in which order, and how it stops.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use shoal_client::{Client, Transport};
use shoal_link::tasks::Tasks;
use shoal_link::{Accepted, Endpoint, IdentitySource, Pool};
use shoal_network::Network;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::addresses::{Addresses, Range};
use crate::allocator;
use crate::config::AgentConfig;
use crate::context::Context;
use crate::events::{Events, send_events};
use crate::eviction::evictor;
use crate::eviction::signals::{MachineSignals, Signals};
use crate::follow::{self, KEPT_NETWORK, KEPT_RANGE, KeptNetwork};
use crate::groups::Groups;
use crate::guests::Guests;
use crate::image_gc::collector::{self, LastUses};
use crate::image_policies::{self, ImagePolicies};
use crate::keeper::Keeper;
use crate::limits::{POD_WRITES, SHUTDOWN_GRACE};
use crate::local_store::LocalStore;
use crate::memory_volumes::MemoryVolumes;
use crate::metrics::Metrics;
use crate::node::Machine;
use crate::outbound::Outside;
use crate::pod_record::{self, PodRecord};
use crate::pods::{Origin, Pods};
use crate::sources::SourceHub;
use crate::static_pods::{directory, mirrors};
use crate::tokens::TokenHub;
use crate::uplink::Uplink;
use crate::usage::{ThisProcess, Usages};
use crate::{host_ports, join, kubelet_api, local_api, node_loop, shutdown};

/// Where the port of the QUIC endpoint is kept: collection and name.
const KEPT_PORT: (&str, &str) = ("node", "link-port");

/// A running agent.
pub struct Agent {
    context: Arc<Context>,
    pods: Arc<Pods>,
    endpoint: Option<Endpoint>,
    link_address: SocketAddr,
    registered: watch::Receiver<Option<Arc<k8s_openapi::api::core::v1::Node>>>,
    store: LocalStore,
}

/// What an agent is made of, beside its configuration: the cluster's connection and the engine.
pub(crate) struct Parts {
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) guests: Arc<dyn Guests>,
    pub(crate) uplink: Uplink,
    pub(crate) pool: Pool,
    pub(crate) link_address: SocketAddr,
    pub(crate) store: LocalStore,
    /// What the node has left; none means what this machine says.
    pub(crate) signals: Option<Arc<dyn Signals>>,
}

impl Agent {
    /// Joins if it has not yet, starts the pods that it knows, then dials. Returns when its own parts run; that a server
    /// answers is not waited for, see [`Agent::registered`].
    ///
    /// # Errors
    /// With its context: the data directory, the identity, the token, the addresses, the engine.
    pub async fn start(config: AgentConfig) -> anyhow::Result<Agent> {
        config.check().map_err(|message| anyhow::anyhow!(message))?;
        let config = config.completed();
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("making the data directory {}", config.data_dir.display()))?;
        let store = LocalStore::open(&config.data_dir.join("store")).context("opening the local store")?;
        let identity = IdentitySource::new(join::identity(&config, &store).await?);
        let endpoint = bind(&config, &store, &identity)?;
        let link_address = endpoint.local_address().context("the link's address")?;
        store.save(KEPT_PORT.0, KEPT_PORT.1, &link_address.port())?;
        let uplink = Uplink::new(join::servers(&config, &store));
        let guests = crate::engine_guests::EngineGuests::open(&config, uplink.clone())?;
        let parts = Parts {
            transport: None,
            guests: Arc::new(guests),
            uplink: uplink.clone(),
            pool: Pool::new(endpoint.clone()),
            link_address,
            store,
            signals: None,
        };
        let mut agent = Agent::assemble(config, parts).await;
        agent.connect(&endpoint, &identity);
        agent.endpoint = Some(endpoint);
        if let Some(address) = agent.context.config.local_api {
            let listener = local_api::bind(address, &agent.context.config.data_dir).await?;
            let serve = local_api::serve(Arc::clone(&agent.context), Arc::clone(&agent.pods), listener);
            agent.context.tasks.spawn("local api", serve);
        }
        Ok(agent)
    }

    /// Starts everything but the link.
    pub(crate) async fn assemble(config: AgentConfig, parts: Parts) -> Agent {
        let Parts { transport, guests, uplink, pool, link_address, store, signals } = parts;
        let client = Client::new(transport.unwrap_or_else(|| Arc::new(uplink.clone())));
        let tasks = Tasks::new();
        let keeper = Arc::new(Keeper::default());
        let network = Network::new(pool);
        let (events, queued_events) = Events::new(&config.node_name);
        let (changed_sources, changes) = mpsc::channel(64);
        let kept_range = store.load::<String>(KEPT_RANGE.0, KEPT_RANGE.1).and_then(|text| Range::parse(&text));
        if let Some(range) = kept_range {
            network.set_gateway(range.gateway());
        }
        let sources = SourceHub::new(
            client.clone(),
            uplink.clone(),
            store.clone(),
            Arc::clone(&keeper),
            tasks.stop().clone(),
            changed_sources,
        );
        let image_policies = ImagePolicies::new(client.clone(), uplink.clone(), &store, tasks.stop().clone());
        let context = Arc::new(Context {
            addresses: Mutex::new(Addresses::new(kept_range)),
            client: client.clone(),
            uplink,
            pod_writes: Semaphore::new(POD_WRITES),
            network,
            guests,
            events,
            sources,
            tokens: TokenHub::new(client.clone(), store.clone(), Arc::clone(&keeper)),
            outside: Outside::default(),
            store: store.clone(),
            keeper: Arc::clone(&keeper),
            tasks: tasks.clone(),
            services: watch::Sender::default(),
            host_ports: Arc::default(),
            groups: Groups::default(),
            memory_volumes: MemoryVolumes::new(config.memory_dir.as_deref(), &config.data_dir),
            modules: Mutex::new(HashMap::new()),
            image_policies,
            image_uses: LastUses::default(),
            open_logs: Mutex::new(HashMap::new()),
            live: Mutex::new(HashMap::new()),
            usages: Arc::new(Usages::new(Arc::new(ThisProcess))),
            mirrors: watch::Sender::default(),
            metrics: Arc::new(Metrics::new(&config.node_name)),
            node_state: watch::Sender::default(),
            config,
        });
        let memory_volumes = context.memory_volumes.clone();
        drop(tokio::task::spawn_blocking(move || memory_volumes.sweep()));
        let pods = Arc::new(Pods::new(Arc::clone(&context)));
        let (registered_sender, registered) = watch::channel(None);
        let kept = restore(&context, &pods, &store).await;
        let machine = Machine::read(&context.config.data_dir);

        let (range_sender, range_known) = watch::channel(kept_range.is_some());
        let signals = signals.unwrap_or_else(|| {
            let (data_dir, memory_bytes) = (context.config.data_dir.clone(), context.config.memory_bytes);
            Arc::new(MachineSignals { data_dir, memory_bytes })
        });
        let collect = collector::keep_collecting(Arc::clone(&context), Arc::clone(&pods), Arc::clone(&signals));
        tasks.spawn("images", collect);
        tasks.spawn("evictions", evictor::keep_watch(Arc::clone(&context), Arc::clone(&pods), signals));
        tasks.spawn("usage", Arc::clone(&context.usages).keep_looking());
        tasks.spawn("memory", allocator::give_back(Arc::clone(&context)));
        tasks.spawn("local store", Arc::clone(&keeper).work(store.clone()));
        tasks.spawn("events", send_events(client, queued_events));
        tasks.spawn(
            "node",
            node_loop::keep_node(Arc::clone(&context), machine, link_address.to_string(), registered_sender),
        );
        tasks.spawn("lease", node_loop::keep_lease(Arc::clone(&context), registered.clone()));
        tasks.spawn("network table", follow::follow_network(Arc::clone(&context), kept, range_sender));
        tasks.spawn("image policies", image_policies::keep(Arc::clone(&context)));
        tasks.spawn("host ports", host_ports::keep(Arc::clone(&context)));
        tasks.spawn("mirrors", mirrors::keep(Arc::clone(&context), Arc::clone(&pods), registered.clone()));
        match context.config.pod_manifest_path.clone() {
            Some(path) => {
                let follow = directory::follow(Arc::clone(&context), Arc::clone(&pods), path, range_known.clone());
                tasks.spawn("manifests", follow);
            }
            // No static pod is wanted; one that was may have left a mirror.
            None => pods.synchronize(&[], Origin::File).await,
        }
        tasks.spawn("pods", follow::follow_pods(Arc::clone(&context), Arc::clone(&pods), range_known));
        tasks.spawn("sources", tell_sources(Arc::clone(&pods), changes));
        Agent { context, pods, endpoint: None, link_address, registered, store }
    }

    /// Dials servers and takes connections of other workers.
    fn connect(&self, endpoint: &Endpoint, identity: &Arc<IdentitySource>) {
        let (context, pods) = (Arc::clone(&self.context), Arc::clone(&self.pods));
        let serve = move |connection| kubelet_api::serve(Arc::clone(&context), Arc::clone(&pods), connection);
        let tasks = &self.context.tasks;
        tasks.spawn("uplink", self.context.uplink.clone().keep(endpoint.clone(), serve));
        tasks.spawn("peers", take_peers(Arc::clone(&self.context.network), endpoint.clone()));
        tasks.spawn(
            "certificate",
            renew(self.context.uplink.clone(), Arc::clone(identity), self.context.config.data_dir.clone()),
        );
    }

    /// Waits until the node is registered with the API. Cancel safe.
    pub async fn registered(&self) {
        // The task that says so lives as long as the agent.
        let _ = self.registered.clone().wait_for(Option::is_some).await;
    }

    /// Whether a server is connected.
    pub fn is_connected(&self) -> bool {
        self.context.uplink.is_connected()
    }

    /// The network of this node.
    pub fn network(&self) -> &Arc<Network> {
        &self.context.network
    }

    #[cfg(test)]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    #[cfg(test)]
    pub(crate) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Where the QUIC endpoint for other workers listens.
    pub fn link_address(&self) -> SocketAddr {
        self.link_address
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.context.config.node_name
    }

    /// Ends everything: listeners, connections, guests. Where the configuration has a `shutdown_grace_s` the pods are ended
    /// before, in order, and have failed; else they stay the node's and start again with the next agent.
    pub async fn shutdown(self) {
        if self.context.config.shutdown_grace_s > 0 {
            shutdown::end_pods(&self.context, &self.pods).await;
        }
        if !self.context.tasks.end(SHUTDOWN_GRACE).await {
            tracing::warn!("some tasks of the agent did not end in time");
        }
        let (keeper, store) = (Arc::clone(&self.context.keeper), self.store.clone());
        // A panic in it is in the log already.
        let _ = tokio::task::spawn_blocking(move || keeper.flush(&store)).await;
        if let Some(endpoint) = &self.endpoint {
            endpoint.close().await;
        }
    }
}

/// The port of the last start, if it is free: other workers may know no other while no server tells them.
fn bind(config: &AgentConfig, store: &LocalStore, identity: &Arc<IdentitySource>) -> anyhow::Result<Endpoint> {
    let kept: Option<u16> = store.load(KEPT_PORT.0, KEPT_PORT.1).filter(|_| config.link_port == 0);
    if let Some(endpoint) =
        kept.and_then(|port| Endpoint::bind(SocketAddr::new(config.node_address, port), identity).ok())
    {
        return Ok(endpoint);
    }
    let address = SocketAddr::new(config.node_address, config.link_port);
    Endpoint::bind(address, identity).with_context(|| format!("listening on {address} (UDP)"))
}

/// Starts what the last process knew: the network's table, then the pods.
async fn restore(context: &Arc<Context>, pods: &Pods, store: &LocalStore) -> KeptNetwork {
    let reader = store.clone();
    let read = tokio::task::spawn_blocking(move || {
        let network: KeptNetwork = reader.load(KEPT_NETWORK.0, KEPT_NETWORK.1).unwrap_or_default();
        (network, reader.list::<PodRecord>(pod_record::COLLECTION))
    });
    let Ok((network, records)) = read.await else { return KeptNetwork::default() };
    follow::apply(context, &network);
    if !records.is_empty() {
        tracing::info!(pods = records.len(), "starting the pods of the last run");
    }
    for record in records {
        pods.restore(record);
    }
    network
}

async fn tell_sources(pods: Arc<Pods>, mut changes: mpsc::Receiver<Vec<String>>) {
    while let Some(uids) = changes.recv().await {
        pods.sources_changed(&uids).await;
    }
}

async fn take_peers(network: Arc<Network>, endpoint: Endpoint) {
    while let Some(accepted) = endpoint.accept().await {
        // A worker has nothing to give to those who want to join.
        if let Accepted::Peer(connection) = accepted {
            shoal_link::tasks::spawn_connection("peer", shoal_network::serve_peer(Arc::clone(&network), connection));
        }
    }
}

/// Renews the certificate over the link before it expires.
async fn renew(uplink: Uplink, identity: Arc<IdentitySource>, directory: std::path::PathBuf) {
    let sign = move |request: Vec<u8>| {
        let uplink = uplink.clone();
        async move { crate::renewal::sign(&uplink, request).await }
    };
    shoal_link::renew::keep_fresh(identity, directory, join::IDENTITY, sign).await;
}

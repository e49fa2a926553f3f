//! What every part of the agent shares.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use shoal_client::Client;
use shoal_link::tasks::Tasks;
use shoal_network::Network;
use tokio::sync::{Semaphore, watch};

use crate::addresses::Addresses;
use crate::config::AgentConfig;
use crate::events::Events;
use crate::exec::Live;
use crate::groups::Groups;
use crate::guests::{Guests, Prepared};
use crate::host_ports::HostPorts;
use crate::image_gc::collector::LastUses;
use crate::image_policies::ImagePolicies;
use crate::keeper::Keeper;
use crate::local_store::LocalStore;
use crate::logs::{ContainerLog, LogDirectory};
use crate::memory_volumes::MemoryVolumes;
use crate::metrics::Metrics;
use crate::node_state::NodeState;
use crate::outbound::Outside;
use crate::persistent;
use crate::pod::Observed;
use crate::pod::fields::Place;
use crate::pod::spec;
use crate::pod_record::{self, PodRecord};
use crate::sources::SourceHub;
use crate::tokens::TokenHub;
use crate::uplink::Uplink;
use crate::usage::Usages;

/// Shared by all tasks of one agent.
pub struct Context {
    /// What the agent was told.
    pub config: AgentConfig,
    /// The API, over the link.
    pub client: Client,
    /// The connection to a server.
    pub uplink: Uplink,
    /// Places for writes of pods' statuses.
    pub pod_writes: Semaphore,
    /// The pods' network.
    pub network: Arc<Network>,
    /// What runs the containers.
    pub guests: Arc<dyn Guests>,
    /// Takes events.
    pub events: Events,
    /// ConfigMaps and Secrets.
    pub sources: SourceHub,
    /// The pods' service account tokens.
    pub tokens: TokenHub,
    /// Requests to the outside.
    pub outside: Outside,
    /// What outlives the process.
    pub store: LocalStore,
    /// Writes to the local store.
    pub keeper: Arc<Keeper>,
    /// The agent's long-lived tasks.
    pub tasks: Tasks,
    /// The Services as they are known.
    pub services: watch::Sender<Arc<Vec<Arc<Service>>>>,
    /// The pods' addresses.
    pub addresses: Mutex<Addresses>,
    /// The pods' ports on the node.
    pub host_ports: Arc<HostPorts>,
    /// What pods may use as a whole.
    pub groups: Groups,
    /// Volumes in memory.
    pub memory_volumes: MemoryVolumes,
    /// The modules of containers that were pulled, by pod uid and container name.
    pub modules: Mutex<HashMap<(String, String), Prepared>>,
    /// Whose signatures images need.
    pub image_policies: ImagePolicies,
    /// When the images were used.
    pub image_uses: LastUses,
    /// The logs that are being written, by pod uid and container name.
    pub open_logs: Mutex<HashMap<(String, String), Arc<ContainerLog>>>,
    /// The containers that run, by pod uid and container name.
    pub live: Mutex<HashMap<(String, String), Arc<Live>>>,
    /// What the node and its containers use.
    pub usages: Arc<Usages>,
    /// The mirrors of static pods as the API has them; none before it was heard of.
    pub mirrors: watch::Sender<Option<Arc<Vec<Arc<Pod>>>>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the node runs out of, and whether it is going down.
    pub node_state: watch::Sender<NodeState>,
}

impl Context {
    /// The node's address as text.
    pub fn host_address(&self) -> String {
        self.config.node_address.to_string()
    }

    /// The address at which others know a pod that has this one in the pods' network.
    pub fn shown_address(&self, pod: &Pod, address: Option<IpAddr>) -> Option<IpAddr> {
        address.map(|own| if spec::has_host_network(pod) { self.config.node_address } else { own })
    }

    /// Where the pod is, for `fieldRef` and `resourceFieldRef`.
    pub fn place(&self, pod: &Pod, address: Option<IpAddr>) -> Place {
        Place {
            pod_address: self.shown_address(pod, address).map(|a| a.to_string()).unwrap_or_default(),
            host_address: self.host_address(),
            node_cpu_millis: i64::try_from(self.config.cpu_millis).unwrap_or(i64::MAX),
            node_memory_bytes: i64::try_from(self.config.memory_bytes).unwrap_or(i64::MAX),
        }
    }

    /// The uid of a static pod's mirror, if the API has one of its manifest.
    pub fn mirror_uid(&self, pod: &Pod) -> Option<String> {
        let mirrors = self.mirrors.borrow();
        let of_pod = |mirror: &&Arc<Pod>| spec::annotation(mirror, spec::CONFIG_MIRROR) == Some(spec::uid(pod));
        mirrors.as_ref()?.iter().find(of_pod).map(|mirror| spec::uid(mirror).to_owned())
    }

    /// The directories of a pod's volumes.
    pub fn volume_root(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("volumes").join(uid)
    }

    /// Where all logs are.
    pub fn log_root(&self) -> PathBuf {
        self.config.data_dir.join("logs")
    }

    /// The logs of a container.
    pub fn log_directory(&self, uid: &str, container: &str) -> LogDirectory {
        LogDirectory::new(&self.log_root(), uid, container)
    }

    /// An address for a pod that has none yet: the one of its status if it is free.
    pub fn take_address(&self, pod: &Pod) -> Option<IpAddr> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let told = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()?.parse().ok());
        // One that shares the node's address has one of its own beside it.
        let told = told.filter(|_| !spec::has_host_network(pod));
        match told {
            Some(address) if addresses.keep(address, spec::uid(pod)) => Some(address),
            _ => addresses.take(spec::uid(pod)),
        }
    }

    /// The address of a pod of this node.
    pub fn address(&self, uid: &str) -> Option<IpAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).of(uid)
    }

    /// A container that runs.
    pub fn live(&self, uid: &str, container: &str) -> Option<Arc<Live>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// Keeps a pod on disk soon.
    pub fn keep_pod(&self, pod: &Pod, observed: &Observed) {
        self.keeper.keep(pod_record::COLLECTION, spec::uid(pod), &PodRecord { pod, observed });
    }

    /// Forgets everything that is kept of a pod: its record, volumes, logs and address.
    pub fn forget_pod(&self, pod: &Pod) {
        let uid = spec::uid(pod).to_owned();
        self.keeper.forget(pod_record::COLLECTION, &uid);
        self.keeper.forget(persistent::KEPT, &uid);
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).free(&uid);
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != uid);
        self.host_ports.release(&uid);
        self.groups.forget(&uid);
        self.sources.forget(&uid);
        self.tokens.forget(pod);
        let directories = [self.volume_root(&uid), self.log_root().join(&uid)];
        let memory_volumes = self.memory_volumes.clone();
        // Files of a pod that is gone: nobody waits for their removal.
        drop(tokio::task::spawn_blocking(move || {
            for directory in directories {
                let _ = std::fs::remove_dir_all(directory);
            }
            memory_volumes.forget(&uid);
        }));
    }
}

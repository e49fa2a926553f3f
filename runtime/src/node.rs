//! What the agent says of its node. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};

use crate::cluster_table::LINK_ADDRESS;
use crate::config::AgentConfig;
use crate::eviction::pressure::Pressure;
use crate::eviction::threshold::Signal;
use crate::image_gc::shown::Shown;
use crate::node_state::NodeState;

/// The namespace of the nodes' Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The level of Kubernetes' API that this node speaks, and ours behind it.
const KUBELET_VERSION: &str = concat!("v1.35.0+shoal.", env!("CARGO_PKG_VERSION"));

/// What the machine says of itself, read once.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Of `/etc/machine-id`.
    pub machine_id: String,
    /// Of this boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution's name.
    pub os_image: String,
    /// Bytes of the data directory's file system.
    pub disk_bytes: u64,
}

impl Machine {
    /// Reads the machine. Blocks for a moment.
    pub fn read(data_dir: &std::path::Path) -> Machine {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let release = text("/etc/os-release");
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let disk = rustix::fs::statvfs(data_dir).map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
        Machine {
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: pretty.trim_matches('"').to_owned(),
            disk_bytes: disk,
        }
    }
}

/// The annotation that says where this agent keeps the volumes that outlive pods.
const VOLUMES_DIRECTORY: &str = "shoal.dev/volumes-directory";

/// The Node's labels and annotations.
pub fn metadata(config: &AgentConfig, link_address: &str) -> ObjectMeta {
    let os = std::env::consts::OS;
    let own = [
        ("kubernetes.io/arch", "wasm32"),
        ("kubernetes.io/os", os),
        ("kubernetes.io/hostname", &config.node_name),
        ("beta.kubernetes.io/arch", "wasm32"),
        ("beta.kubernetes.io/os", os),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta {
        name: Some(config.node_name.clone()),
        labels: Some(own.chain(config.labels.clone()).collect()),
        annotations: Some(
            [
                (LINK_ADDRESS.to_owned(), link_address.to_owned()),
                (VOLUMES_DIRECTORY.to_owned(), config.kept_volumes().display().to_string()),
            ]
            .into(),
        ),
        ..ObjectMeta::default()
    }
}

/// The Node's status. Transition times are kept from `before` where a condition's status is.
pub fn status(
    config: &AgentConfig,
    machine: &Machine,
    state: &NodeState,
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let reserved = reserved(config, machine);
    let resources = |cpu_millis: u64, memory_bytes: u64, disk_bytes: u64| -> BTreeMap<String, Quantity> {
        [
            ("cpu".to_owned(), cpu(cpu_millis)),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory_bytes / 1024))),
            ("pods".to_owned(), Quantity(config.pods.to_string())),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", disk_bytes / 1024))),
        ]
        .into()
    };
    let capacity = resources(config.cpu_millis, config.memory_bytes, machine.disk_bytes);
    let allocatable = resources(
        config.cpu_millis.saturating_sub(reserved.cpu_millis),
        config.memory_bytes.saturating_sub(reserved.memory_bytes),
        machine.disk_bytes.saturating_sub(reserved.disk_bytes),
    );
    let address = |kind: &str, address: &str| NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
    NodeStatus {
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        addresses: Some(vec![
            address("InternalIP", &config.node_address.to_string()),
            address("Hostname", &config.node_name),
        ]),
        conditions: Some(conditions(state, before, now)),
        images: Some(state.images.iter().map(image).collect()),
        node_info: Some(NodeSystemInfo {
            architecture: "wasm32".to_owned(),
            operating_system: std::env::consts::OS.to_owned(),
            boot_id: machine.boot_id.clone(),
            machine_id: machine.machine_id.clone(),
            system_uuid: machine.machine_id.clone(),
            kernel_version: machine.kernel.clone(),
            os_image: machine.os_image.clone(),
            container_runtime_version: concat!("shoal://", env!("CARGO_PKG_VERSION")).to_owned(),
            kubelet_version: KUBELET_VERSION.to_owned(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

fn image(shown: &Shown) -> ContainerImage {
    ContainerImage { names: Some(shown.names.clone()), size_bytes: i64::try_from(shown.size_bytes).ok() }
}

fn cpu(millis: u64) -> Quantity {
    Quantity(if millis.is_multiple_of(1_000) { (millis / 1_000).to_string() } else { format!("{millis}m") })
}

/// What pods do not get.
struct Reserved {
    cpu_millis: u64,
    memory_bytes: u64,
    disk_bytes: u64,
}

/// What is reserved for the system, and what lies below the thresholds at which pods are evicted.
fn reserved(config: &AgentConfig, machine: &Machine) -> Reserved {
    let system = |resource: &str| -> Option<shoal_api::quantity::Quantity> {
        config.system_reserved.get(resource)?.parse().ok()
    };
    let bytes = |resource: &str| system(resource).map_or(0, |q| u64::try_from(q.bytes()).unwrap_or(0));
    let below =
        |signal: Signal, capacity: u64| config.eviction_hard.level(signal).map_or(0, |level| level.of(capacity));
    Reserved {
        cpu_millis: system("cpu").map_or(0, |q| u64::try_from(q.millis()).unwrap_or(0)),
        memory_bytes: bytes("memory").saturating_add(below(Signal::MemoryAvailable, config.memory_bytes)),
        disk_bytes: bytes("ephemeral-storage").saturating_add(below(Signal::NodefsAvailable, machine.disk_bytes)),
    }
}

fn conditions(state: &NodeState, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let pressures = Pressure::ALL.into_iter().map(|pressure| {
        let (words, is_on) = (pressure.words(), state.pressures.contains(&pressure));
        let (status, index) = if is_on { ("True", 0) } else { ("False", 1) };
        (words.condition, status, words.reasons[index], words.messages[index])
    });
    let ready = if state.is_shutting_down {
        ("Ready", "False", "KubeletNotReady", "node is shutting down")
    } else {
        ("Ready", "True", "KubeletReady", "the Wasm runtime is ready")
    };
    pressures
        .chain([ready])
        .map(|(name, status, reason, message)| {
            let known =
                before.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == name && c.status == status));
            NodeCondition {
                type_: name.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: known.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            }
        })
        .collect()
}

/// The node's Lease.
pub fn lease(config: &AgentConfig, node: &Node, now: Timestamp) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: config.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(config.node_name.clone()),
            lease_duration_seconds: i32::try_from(config.pace.lease_duration_s).ok(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AgentConfig {
        AgentConfig {
            node_name: "w1".into(),
            cpu_millis: 2_500,
            memory_bytes: 1 << 30,
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            ..AgentConfig::default()
        }
    }

    #[test]
    fn a_node_says_what_schedulers_and_people_read() {
        let metadata = metadata(&config(), "127.0.1.1:7000");
        let labels = metadata.labels.expect("labels");
        assert_eq!(
            (labels["kubernetes.io/arch"].as_str(), labels["kubernetes.io/hostname"].as_str(), labels["zone"].as_str()),
            ("wasm32", "w1", "a")
        );
        assert_eq!(metadata.annotations.expect("annotations")[LINK_ADDRESS], "127.0.1.1:7000");
        let status = status(&config(), &Machine::default(), &NodeState::default(), None, Timestamp::UNIX_EPOCH);
        let capacity = status.capacity.expect("capacity");
        assert_eq!(
            (capacity["cpu"].0.as_str(), capacity["memory"].0.as_str(), capacity["pods"].0.as_str()),
            ("2500m", "1048576Ki", "250")
        );
    }

    #[test]
    fn pods_get_neither_what_is_reserved_nor_what_lies_below_the_thresholds() {
        let reserved = [("cpu", "500m"), ("memory", "24Mi"), ("ephemeral-storage", "1Ki")];
        let config = AgentConfig {
            system_reserved: reserved.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            ..config()
        };
        assert_eq!(config.check(), Ok(()));
        let machine = Machine { disk_bytes: 100 << 10, ..Machine::default() };
        let status = status(&config, &machine, &NodeState::default(), None, Timestamp::UNIX_EPOCH);
        let allocatable = status.allocatable.expect("allocatable");
        let of = |name: &str| allocatable[name].0.clone();
        let expected = ["2", &format!("{}Ki", (1024 - 124) * 1024), "89Ki"].map(str::to_owned);
        assert_eq!([of("cpu"), of("memory"), of("ephemeral-storage")], expected);
    }

    #[test]
    fn conditions_have_the_kubelet_s_words() {
        let state = NodeState { pressures: vec![Pressure::Disk], is_shutting_down: true, ..NodeState::default() };
        let told = conditions(&state, None, Timestamp::UNIX_EPOCH);
        let told: Vec<_> = told.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("MemoryPressure", "False", Some("KubeletHasSufficientMemory")),
                ("DiskPressure", "True", Some("KubeletHasDiskPressure")),
                ("PIDPressure", "False", Some("KubeletHasSufficientPID")),
                ("Ready", "False", Some("KubeletNotReady")),
            ]
        );
    }

    #[test]
    fn a_condition_keeps_its_transition_time() {
        let first = status(&config(), &Machine::default(), &NodeState::default(), None, Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(100).expect("time");
        let second = status(&config(), &Machine::default(), &NodeState::default(), Some(&first), later);
        let ready = second.conditions.expect("conditions").into_iter().find(|c| c.type_ == "Ready").expect("ready");
        assert_eq!(
            (ready.last_transition_time, ready.last_heartbeat_time),
            (Some(Time(Timestamp::UNIX_EPOCH)), Some(Time(later)))
        );
    }
}

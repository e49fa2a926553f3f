//! Every limit and pace of the agent, in one place.

use std::time::Duration;

/// A log file of this many bytes is rotated.
pub const LOG_FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Files kept for one container, the current one included.
pub const LOG_FILES: usize = 5;
/// A line longer than this is written in parts.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// Bytes that a log answer hands over at a time.
pub const LOG_CHUNK_BYTES: usize = 64 * 1024;

/// Events waiting for the API; more are dropped, oldest first served.
pub const EVENT_QUEUE: usize = 1_024;
/// Different events remembered for counting.
pub const EVENT_MEMORY: usize = 4_096;
/// Characters of an event's message, as in Kubernetes.
pub const EVENT_CHARACTERS: usize = 1_024;
/// At most one event in this time says that a function failed.
pub const FAILURE_PERIOD: Duration = Duration::from_secs(10);
/// Connections that the local API has open at a time.
pub const LOCAL_CONNECTIONS: usize = 64;
/// Happenings waiting for a pod's worker.
pub const HAPPENING_QUEUE: usize = 256;

/// How long a new pod that is only starting is not reported: mostly it is ready sooner, and each write less brings that forward.
pub const STARTING_QUIET: Duration = Duration::from_millis(30);
/// How long a pod with which there is nothing to do keeps its worker.
pub const REST_AFTER: Duration = Duration::from_secs(1);
/// Pods a node takes by default: one /24 of addresses less network, gateway and broadcast, rounded down.
pub const DEFAULT_PODS: u32 = 250;

/// How long a dial or join may take before the next server is tried.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The first pause after every server failed.
pub const REDIAL_FIRST: Duration = Duration::from_millis(200);
/// The longest pause after every server failed.
pub const REDIAL_LONGEST: Duration = Duration::from_secs(5);

/// Pods' statuses that are on their way to the API at once. Thousands of pods start together, and what a server has not begun
/// would only grow old there, together with the heartbeat that stands behind it.
pub const POD_WRITES: usize = 32;
/// How long one status or lease write may take before it is tried again.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause after a failed write.
pub const WRITE_RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest pause after a failed write.
pub const WRITE_RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Streams that servers may have open on this worker at a time.
pub const KUBELET_STREAMS: usize = 1_024;

/// How long containers may take to end when the agent itself is asked to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How often node ports that could not be opened are tried again.
pub const NODE_PORT_RETRY: Duration = Duration::from_secs(5);
/// How soon a token that could not be renewed is asked for again.
pub const TOKEN_RETRY: Duration = Duration::from_secs(30);
/// How long an outgoing connection to the outside may take.
pub const OUTSIDE_CONNECT: Duration = Duration::from_secs(10);
/// How often the directory of manifests is looked at, and what the API has of their pods.
pub const MANIFEST_PERIOD: Duration = Duration::from_secs(2);
/// The largest manifest that is read.
pub const MANIFEST_BYTES: u64 = 1024 * 1024;
/// How often the pods' files are counted and it is looked at what the node has left.
pub const EVICTION_PERIOD: Duration = Duration::from_secs(10);
/// Each so many times it is looked at the files of pods that rest, too.
pub const EVICTION_LOOKS_AT_REST: u32 = 6;
/// Files of one pod that are looked at in one scan.
pub const DISK_SCAN_FILES: usize = 100_000;
/// How long the containers of a pod that is evicted may take to end, as in Kubernetes.
pub const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// How long the end of an evicted pod is waited for before another may go.
pub const EVICTION_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at what the node and its containers use.
pub const USAGE_PERIOD: Duration = Duration::from_secs(5);
/// How long the system's resolver may take for a name of the outside.
pub const OUTSIDE_NAMES: Duration = Duration::from_secs(10);
/// Names of the world that are kept for a pod that has servers of its own, each as long as its server says.
pub const POD_NAMES_KEPT: u64 = 128;
/// How often it is looked at which images are used, and whether some must go; as in Kubernetes.
pub const IMAGE_PERIOD: Duration = Duration::from_secs(300);
/// How long an image stays at least, as in Kubernetes.
pub const IMAGE_LEAST_AGE: Duration = Duration::from_secs(120);

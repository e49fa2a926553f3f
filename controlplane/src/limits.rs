//! Every deadline of a server, with its unit.

use std::time::Duration;

/// How long another server may take to say whether a worker is connected to it.
pub const FIND_NODE: Duration = Duration::from_secs(2);

/// How long another server may take to begin sending a blob.
pub const FETCH_BLOB: Duration = Duration::from_secs(10);

/// How long another server may take to store a blob.
pub const STORE_BLOB: Duration = Duration::from_secs(300);

/// How long the loops may take to end when leadership is lost or the server stops.
pub const STOP_LOOPS: Duration = Duration::from_secs(5);

/// How long open requests may go on when the server stops.
pub const DRAIN: Duration = Duration::from_secs(10);

/// How long a member of the cluster may take to answer that a new one was added.
pub const ADMIT: Duration = Duration::from_secs(120);

/// The wait before something between servers is tried again.
pub const RETRY: Duration = Duration::from_millis(500);

/// How long the link's port may still be held by the server that ran before.
pub const FREE_PORT: Duration = Duration::from_secs(5);

/// How often the connections to the other servers are looked at, so that an election finds them made.
pub const KEEP_CONNECTED: Duration = Duration::from_secs(1);

/// How long another server may take to give a new member id.
pub const ASK_FOR_ID: Duration = Duration::from_secs(15);

/// The wait before new encryption keys are taken over again.
pub const RETRY_KEYS: Duration = Duration::from_secs(5);

/// How long all servers may take to seal their files with a new key, as far as somebody waits for it.
pub const SEAL_ANEW: Duration = Duration::from_secs(30);

/// The wait before a backup that failed is tried again.
pub const RETRY_BACKUP: Duration = Duration::from_secs(60);

/// How often the folder of backups is looked at.
pub const LOOK_AT_BACKUPS: Duration = Duration::from_secs(600);

/// How long the leader may take to say how the servers do.
pub const LIST_MEMBERS: Duration = Duration::from_secs(3);

/// How often the leader looks whether all servers know a newer feature level.
pub const LOOK_AT_FEATURES: Duration = Duration::from_secs(10);

/// The largest body of a request of our own API, in bytes.
pub const BODY: usize = 64 * 1024;

/// How long a token is valid when its maker says nothing else.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How many requests may be open on one connection of a peer.
pub const PEER_STREAMS: usize = 4096;

/// How often the registry's files are tidied up.
pub const TIDY_BLOBS: Duration = Duration::from_secs(600);

//! Opening a store: what is on disk, Raft over it, and the work that goes on beside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::SnapshotPolicy;
use openraft::vote::RaftLeaderId as _;
use shoal_state::Image;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::barrier::Barrier;
use crate::config::{Capacity, Config, Member, Peers, Timing, Work};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::keeper;
use crate::leader::Leader;
use crate::machine::{Machine, Shared};
use crate::network::Network;
use crate::raft::{LogId, Raft, SnapshotMeta, StoredMembership, Vote};
use crate::random::seeded;
use crate::seal::Keyring;
use crate::snapshot::{self, Snapshots};
use crate::store::{Parts, Store};
use crate::wal::{self, Wal};

/// How many entries stay in the log after a snapshot, for followers that are a little behind, in snapshots.
const LOG_KEPT: u64 = 2;

/// A thread with a runtime, for Raft and whatever is to be near it. It may be let go from anywhere, asynchronous code included.
pub struct Threads {
    own: Mutex<Option<Own>>,
    handle: Handle,
}

/// What ends it.
struct Own {
    /// How long what is held there may take to end; dropped without an answer, nobody waits.
    end: oneshot::Sender<Duration>,
    /// Told when it is over.
    ended: oneshot::Receiver<()>,
}

impl Threads {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        // One thread needs none of what several need to share their work.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, told) = oneshot::channel();
        let (over, ended) = oneshot::channel();
        std::thread::Builder::new().name("raft".to_string()).spawn(move || {
            let patience = runtime.block_on(told);
            runtime.shutdown_timeout(patience.unwrap_or_default());
            // Nobody waits who only let it go.
            let _ = over.send(());
        })?;
        Ok(Self { handle, own: Mutex::new(Some(Own { end, ended })) })
    }

    /// The caller's.
    fn here() -> Self {
        Self { own: Mutex::new(None), handle: Handle::current() }
    }

    /// To spawn there.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for what is still held there, for `patience` at most, and ends it.
    pub async fn end(&self, patience: Duration) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Own { end, ended }) = own
            && end.send(patience).is_ok()
        {
            let _ = tokio::time::timeout(patience, ended).await;
        }
    }
}

/// Where the log is written: its syncs keep a thread waiting, so it has one.
fn write_log(work: &Work, threads: &Threads, writer: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    if matches!(work, Work::Here) {
        threads.handle().spawn(writer);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("log".to_string()).spawn(move || runtime.block_on(writer)).map(drop)
}

pub(crate) async fn open(config: Config, peers: Arc<dyn Peers>) -> Result<Store, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let (threads, owns_threads) = match &config.work {
        Work::OwnThreads => (Arc::new(Threads::start().map_err(|error| failed(&error))?), true),
        Work::On(threads) => (threads.clone(), false),
        Work::Here => (Arc::new(Threads::here()), false),
    };
    let had_log = !config.disk.list(wal::FOLDER).map_err(OpenError::Log)?.is_empty();
    let (wal, writer) = Wal::open(config.disk.clone(), config.keys.clone(), config.capacity).map_err(OpenError::Log)?;
    let snapshots = Snapshots::new(config.disk.clone(), config.keys.clone());
    let (machine, shared) = Machine::open(snapshots.clone(), config.capacity)?;
    check_whole(&wal, had_log, &shared)?;
    write_log(&config.work, &threads, writer).map_err(|error| failed(&error))?;

    let settings = settings(config.timing, config.capacity).map_err(|error| failed(&error))?;
    let network = Network { peers: peers.clone() };
    let (id, log, settings) = (config.member.id, wal.clone(), Arc::new(settings));
    let raft = threads.handle().spawn(seeded(async move { Raft::new(id, settings, network, log, machine).await }));
    let raft = raft.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    shared.begin();

    let handle = threads.handle().clone();
    let leader = Leader::new(raft, shared, peers, config.member, config.capacity, config.timing, handle);
    let asking = leader.clone();
    let (barrier, run) = Barrier::new(move || {
        let leader = asking.clone();
        async move { leader.read_index().await }
    });
    let handle = threads.handle();
    handle.spawn(seeded(run));
    handle.spawn(seeded(keeper::expire(leader.clone(), config.now)));
    handle.spawn(seeded(keeper::finish_changes(leader.clone())));
    handle.spawn(seeded(keeper::make_snapshots(leader.clone())));
    handle.spawn(seeded(keeper::keep_log_small(leader.clone(), wal.clone(), config.capacity.log_bytes)));
    let failure = leader.notice_failure(handle);
    let parts = Parts { leader, barrier, wal, snapshots, keys: config.keys, disk: config.disk, threads, owns_threads };
    Ok(Store::new(parts, failure))
}

/// The log must reach back to the snapshot: otherwise one of them is missing.
fn check_whole(wal: &Wal, had_log: bool, shared: &Shared) -> Result<(), OpenError> {
    let applied = shared.applied().borrow().next_index;
    if applied > 0 && !had_log {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "there is a snapshot, and no log after it");
        return Err(OpenError::Log(missing));
    }
    let begins = wal.ends().purged.map_or(0, |purged| purged.index + 1);
    if begins > applied {
        return Err(OpenError::Snapshot {
            name: snapshot::FOLDER.to_string(),
            reason: format!("the log begins at {begins}, and no snapshot has what stood before: a file is missing"),
        });
    }
    Ok(())
}

/// Whether there is anything of a store on `disk`.
///
/// # Errors
/// When the disk refuses.
pub fn is_empty(disk: &dyn Disk) -> std::io::Result<bool> {
    Ok(disk.list(wal::FOLDER)?.is_empty() && disk.list(snapshot::FOLDER)?.is_empty())
}

/// Keeps an image on an empty disk until [`parked`] takes it from there.
///
/// # Errors
/// When the disk refuses.
pub fn park(disk: Arc<dyn Disk>, keys: Keyring, image: Image) -> std::io::Result<()> {
    Snapshots::new(disk, keys).save(&SnapshotMeta::default(), image)
}

/// The image that [`park`] left on `disk`.
///
/// # Errors
/// [`OpenError`] when it is damaged or missing.
pub fn parked(disk: Arc<dyn Disk>, keys: Keyring) -> Result<Image, OpenError> {
    let missing = || OpenError::Snapshot { name: snapshot::FOLDER.to_string(), reason: "it is missing".to_string() };
    Snapshots::new(disk, keys).load()?.map(|(_, image)| image).ok_or_else(missing)
}

/// Makes the beginning of a new cluster out of `image`: a store with `member` as its only server, to be opened next. Whatever
/// is on `disk` must have been removed.
///
/// # Errors
/// When the disk refuses, or there is a store already.
pub async fn seed(disk: Arc<dyn Disk>, keys: Keyring, member: Member, image: Image) -> std::io::Result<()> {
    if !is_empty(disk.as_ref())? {
        return Err(std::io::Error::other("there is a store already"));
    }
    // A server that joins gets the state as a snapshot only when the log does not begin with its first entry.
    let vote = Vote::new(1, member.id);
    let last_log_id = Some(LogId { leader_id: vote.leader_id.to_committed(), index: 1 });
    let members: BTreeMap<u64, Member> = [(member.id, member.clone())].into();
    let membership = openraft::Membership::new(vec![[member.id].into()], members).map_err(std::io::Error::other)?;
    let last_membership = StoredMembership::new(last_log_id, membership);
    let (wal, writer) = Wal::open(disk.clone(), keys.clone(), Capacity::default())?;
    let writer = tokio::spawn(writer);
    wal.save_vote(vote).await?;
    Snapshots::new(disk, keys).save(&SnapshotMeta { last_log_id, last_membership }, image)?;
    wal.close().await?;
    drop(wal);
    writer.await.map_err(std::io::Error::other)
}

fn settings(timing: Timing, capacity: Capacity) -> Result<openraft::Config, openraft::ConfigError> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let kept = capacity.snapshot_entries.saturating_mul(LOG_KEPT);
    let config = openraft::Config {
        cluster_name: "shoal".to_string(),
        heartbeat_interval: milliseconds(timing.heartbeat),
        election_timeout_min: milliseconds(timing.election_min),
        election_timeout_max: milliseconds(timing.election_max),
        install_snapshot_timeout: 60_000,
        // By the size of the state: see `keeper::make_snapshots`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: kept,
        // Further behind than this, a follower gets a snapshot.
        replication_lag_threshold: kept.saturating_add(capacity.snapshot_entries / 2),
        enable_pre_vote: Some(true),
        // A leader that has lost the unsynced end of its log must not go on in its term: what it appends there next would have the
        // log ids of entries that others got from it before.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config.validate()
}

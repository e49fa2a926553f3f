//! What `tests/fuzz` throws bytes at: everything that reads what came from a disk or from another process. No bytes may make any of it
//! panic, and what is read must be written again as it was.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_state::{Command, ImageReader, Outcome, State, Transaction, UnixSeconds};

use crate::backup::{self, Opening};
use crate::config::{Member, MemberStatus};
use crate::disk::{Disk, DiskFile};
use crate::raft::{AppendResult, LogId, SnapshotMeta, StoredMembership, Vote};
use crate::seal::Keyring;
use crate::snapshot::Snapshots;
use crate::wal::fuzzing::{Record, Segment};
use crate::wire::{self, ForwardReply, ForwardRequest, RaftReply, RaftRequest, SnapshotHead};

/// One target: its name, what it does with bytes, and inputs to begin with.
pub struct Target {
    /// The name of its folder in the corpus.
    pub name: &'static str,
    /// Panics when something is wrong.
    pub run: fn(&[u8]),
    /// Whole inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const ALL: &[Target] = &[
    Target { name: "commands", run: commands, seeds: command_seeds },
    Target { name: "outcomes", run: outcomes, seeds: outcome_seeds },
    Target { name: "chunks", run: chunks, seeds: chunk_seeds },
    Target { name: "records", run: records, seeds: record_seeds },
    Target { name: "frames", run: frames, seeds: frame_seeds },
    Target { name: "segments", run: segments, seeds: segment_seeds },
    Target { name: "snapshots", run: snapshots, seeds: snapshot_seeds },
    Target { name: "backups", run: backups, seeds: backup_seeds },
    Target { name: "rings", run: rings, seeds: || vec![ring().render().into_bytes()] },
];

/// The same keys each time, so that a corpus can be kept.
fn ring() -> Keyring {
    let text = format!(r#"{{"version":1,"active":1,"keys":{{"1":"{}"}}}}"#, "07".repeat(32));
    Keyring::parse(&text).expect("a ring")
}

fn transaction() -> Transaction {
    let mut transaction = Transaction::default();
    transaction.require_absent("/a").put("/a", "one").put_until("/b", "two", UnixSeconds::MIN).delete("/c");
    transaction
}

fn command_seeds() -> Vec<Vec<u8>> {
    let now = UnixSeconds::MIN;
    let commands = [
        Command::Transaction(transaction()),
        Command::AllocateMember,
        Command::Expire { now },
        Command::RaiseFeatureLevel { level: 1 },
    ];
    commands.iter().map(Command::encode).collect()
}

fn commands(bytes: &[u8]) {
    if let Ok(command) = Command::decode(bytes) {
        assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command));
        // Whatever reaches the log can be applied.
        let mut state = State::new();
        state.apply(command.clone());
        state.apply(command);
    }
}

fn outcome_seeds() -> Vec<Vec<u8>> {
    let mut state = State::new();
    let (first, _) = state.apply(Command::Transaction(transaction()));
    let (second, _) = state.apply(Command::Transaction(transaction()));
    [first, second, Outcome::TooLarge("it".to_string()), Outcome::Full { size: 3 }, Outcome::Member(2)]
        .iter()
        .map(Outcome::encode)
        .collect()
}

fn outcomes(bytes: &[u8]) {
    if let Ok(outcome) = Outcome::decode(bytes) {
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }
}

fn state() -> State {
    let mut state = State::new();
    state.apply(Command::Transaction(transaction()));
    state.apply(Command::AllocateMember);
    state
}

fn chunk_seeds() -> Vec<Vec<u8>> {
    state().image().chunks().collect()
}

fn chunks(bytes: &[u8]) {
    for before in [0, 1, 2] {
        let mut reader = ImageReader::default();
        for chunk in state().image().chunks().take(before) {
            reader.take(&chunk).expect("our own chunk");
        }
        if reader.take(bytes).is_ok()
            && let Ok(image) = reader.finish()
        {
            let _ = State::of(image).view().count("/");
        }
    }
}

/// What is read is written again as it was.
fn round<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    if let Ok((value, _)) = postcard::take_from_bytes::<T>(bytes) {
        let again = postcard::to_allocvec(&value).expect("written");
        let (value, rest) = postcard::take_from_bytes::<T>(&again).expect("read again");
        assert!(rest.is_empty());
        assert_eq!(postcard::to_allocvec(&value).expect("written"), again);
    }
}

fn record_seeds() -> Vec<Vec<u8>> {
    let records = [
        Record::Vote(Vote::new(3, 1)),
        Record::Truncated(7),
        Record::Checkpoint { vote: Some(Vote::new(3, 1)), purged: None, committed: None },
        Record::Closed,
    ];
    records.iter().map(|record| postcard::to_allocvec(record).expect("written")).collect()
}

fn records(bytes: &[u8]) {
    round::<Record>(bytes);
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let member = Member { id: 1, name: "server-1".to_string(), ..Member::default() };
    let status =
        MemberStatus { member: member.clone(), is_voter: true, is_leader: true, behind: Some(3), is_reachable: true };
    let requests = [
        ForwardRequest::Write(Command::Transaction(transaction()).encode().into()),
        ForwardRequest::ReadIndex,
        ForwardRequest::AddMember(member),
        ForwardRequest::TransferLeader(Some(2)),
    ];
    let replies = [ForwardReply::ReadIndex(7), ForwardReply::NotLeader, ForwardReply::Members(vec![status])];
    let frame = |frame: io::Result<Vec<u8>>| frame.expect("a frame");
    let requests = requests.into_iter().map(|request| frame(wire::frame(&(1u64, request))));
    requests.chain(replies.into_iter().map(|reply| frame(wire::frame(&(1u64, reply))))).collect()
}

fn frames(bytes: &[u8]) {
    let reading = async {
        let mut input = bytes;
        while let Ok(Some(_)) = wire::receive::<(u64, ForwardRequest)>(&mut input).await {}
        let mut input = bytes;
        while let Ok(Some(_)) = wire::receive::<(u64, ForwardReply)>(&mut input).await {}
        let mut input = bytes;
        while let Ok(Some(_)) = wire::receive::<RaftRequest>(&mut input).await {}
    };
    // Nothing here waits.
    assert!(futures_util::FutureExt::now_or_never(reading).is_some());
    let content = bytes.get(5..).unwrap_or_default();
    round::<RaftRequest>(content);
    round::<RaftReply>(content);
    round::<SnapshotHead>(content);
    round::<AppendResult>(content);
    round::<(u64, ForwardRequest)>(content);
    round::<(u64, ForwardReply)>(content);
}

/// A disk of one file.
#[derive(Clone, Default)]
struct OneFile(Arc<Mutex<Vec<u8>>>);

impl Disk for OneFile {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        Ok(match folder {
            "snapshots" => vec!["1.snapshot".to_string()],
            _ => Vec::new(),
        })
    }

    fn create(&self, _name: &str, _size: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.clone()))
    }

    fn open(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.clone()))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }
}

impl OneFile {
    fn with(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self(Arc::new(Mutex::new(bytes.to_vec()))))
    }

    fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DiskFile for OneFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content().len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = content.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        if content.len() < start + bytes.len() {
            content.resize(start + bytes.len(), 0);
        }
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn segment_seeds() -> Vec<Vec<u8>> {
    let disk = OneFile::default();
    let segment = Segment::create(&disk, &ring(), 1, 0).expect("a segment");
    let checkpoint = Record::Checkpoint { vote: Some(Vote::new(3, 1)), purged: None, committed: None };
    let next = segment.write(crate::wal::fuzzing::START, &[checkpoint]).expect("written");
    let next = segment.write(next, &[Record::Vote(Vote::new(4, 1)), Record::Truncated(0)]).expect("written");
    segment.write(next, &[Record::Closed]).expect("written");
    vec![disk.content()]
}

fn segments(bytes: &[u8]) {
    let disk = OneFile::with(bytes);
    if let Ok(Some((segment, scanned))) = Segment::scan(disk.as_ref(), &ring(), 1) {
        for (place, records) in scanned.frames {
            assert_eq!(segment.read(place).expect("it was read before"), records);
        }
    }
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let disk = OneFile::default();
    let vote = Vote::new(1, 1);
    let last_log_id = Some(LogId { leader_id: openraft::vote::RaftLeaderId::to_committed(&vote.leader_id), index: 1 });
    let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
    Snapshots::new(Arc::new(disk.clone()), ring()).save(&meta, state().image()).expect("saved");
    vec![disk.content()]
}

fn snapshots(bytes: &[u8]) {
    let _ = Snapshots::new(OneFile::with(bytes), ring()).load();
}

fn backup_seeds() -> Vec<Vec<u8>> {
    let made = backup::create(state().image(), "2026-01-02T03:04:05Z".to_string(), &ring(), None).expect("begun");
    vec![made.collect::<io::Result<Vec<_>>>().expect("made").concat()]
}

fn backups(bytes: &[u8]) {
    let _ = backup::read(bytes, None);
    let _ = backup::read(bytes, Some(&Opening::Keys(ring())));
}

fn rings(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(ring) = Keyring::parse(text)
    {
        assert!(Keyring::parse(&ring.render()).expect("our own text").covers(&ring));
    }
}

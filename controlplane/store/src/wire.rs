//! Frames between stores: a version byte, a length as u32 (little endian), then postcard.
//!
//! The enums are append-only: a variant's place is part of the format.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::config::{Member, MemberStatus};
use crate::error::MembershipError;
use crate::raft::{LogId, StoredMembership, Types, Vote};

/// The version that is spoken now.
const VERSION: u8 = 2;

/// The largest frame, in bytes.
const LARGEST: usize = 32 << 20;

/// How much memory a frame is given before any of it has come, in bytes.
const AT_ONCE: usize = 64 << 10;

/// How much memory the frames of a stream keep when they were sent, in bytes.
const KEPT: usize = 64 << 10;

/// How much is read at once of a stream on which there are many frames, in bytes.
const READ_AT_ONCE: usize = 16 << 10;

/// Raft asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RaftRequest {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
}

/// Raft answers. A store that has stopped answers nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RaftReply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
}

/// The first frame of a snapshot; the image's chunks follow, a frame each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub vote: Vote,
    pub last_log_id: Option<LogId>,
    pub membership: StoredMembership,
}

/// What the receiver of a snapshot says in the end.
pub(crate) type SnapshotReply = SnapshotResponse<Types>;

/// What a follower asks of the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ForwardRequest {
    /// Propose this encoded command.
    Write(bytes::Bytes),
    /// Up to which log index must a linearizable read wait?
    ReadIndex,
    /// Make this server a voter; one with the same name is replaced.
    AddMember(Member),
    /// Take the server with this id away.
    RemoveMember(u64),
    /// Have the server with this id lead, or any other when it is `None`.
    TransferLeader(Option<u64>),
    /// Which servers are there, and how do they do?
    Members,
}

/// What the leader answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ForwardReply {
    /// The encoded outcome.
    Outcome(Vec<u8>),
    /// One more than the index that must be applied.
    ReadIndex(u64),
    /// It is done.
    Done,
    /// This server does not lead; nothing was done.
    NotLeader,
    /// It may have been done.
    Unknown(String),
    /// It was not done.
    Refused(Refusal),
    /// The servers.
    Members(Vec<MemberStatus>),
}

/// Why the leader did not do it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    NotCaughtUp(u64),
    Other(String),
}

impl From<Refusal> for MembershipError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotCaughtUp(id) => Self::NotCaughtUp(id),
            Refusal::Other(message) => Self::Refused(message),
        }
    }
}

/// One frame.
pub(crate) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    add_frame(&mut frame, message)?;
    Ok(frame)
}

/// One frame more; after an error there is none.
pub(crate) fn add_frame(frames: &mut Vec<u8>, message: &impl Serialize) -> io::Result<()> {
    let begin = frames.len();
    frames.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    *frames = postcard::to_extend(message, std::mem::take(frames)).map_err(io::Error::other)?;
    let length = frames.len() - begin - 5;
    if length > LARGEST {
        return Err(io::Error::other(format!("a frame of {length} bytes is above the limit of {LARGEST}")));
    }
    frames[begin + 1..begin + 5].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    Ok(())
}

/// Writes one frame and flushes it.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin + ?Sized), message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(message)?).await?;
    stream.flush().await
}

/// The writing end of a stream on which there are many frames: each is made where the one before it was.
pub(crate) struct Sender<S> {
    stream: S,
    frames: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Sender<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, frames: Vec::new() }
    }

    /// Writes a frame for each message and flushes them.
    pub(crate) async fn send<T: Serialize>(&mut self, messages: impl IntoIterator<Item = T>) -> io::Result<()> {
        for message in messages {
            add_frame(&mut self.frames, &message)?;
        }
        self.stream.write_all(&self.frames).await?;
        self.frames.clear();
        self.frames.shrink_to(KEPT);
        self.stream.flush().await
    }
}

/// The reading end of such a stream.
pub(crate) fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_AT_ONCE, stream)
}

/// Reads one frame; `None` when the stream ended before it began.
pub(crate) async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
) -> io::Result<Option<T>> {
    let version = match stream.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if version != VERSION {
        return Err(io::Error::other(format!("a frame has version {version}, and this program speaks {VERSION}")));
    }
    let length = stream.read_u32_le().await? as usize;
    if length > LARGEST {
        return Err(io::Error::other(format!("a frame of {length} bytes is above the limit of {LARGEST}")));
    }
    // What comes is kept, and not what was announced: memory is only given for what is there.
    let mut bytes = Vec::with_capacity(length.min(AT_ONCE));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
}

/// Reads one frame that must come.
pub(crate) async fn expect<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<T> {
    receive(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that version 2 sends. Servers of one cluster may run this version and a later one: add a fixture for a new version,
    /// never change one.
    #[tokio::test]
    async fn frames_of_version_2_are_read() {
        let frames: [&[u8]; 3] =
            [&[2, 2, 0, 0, 0, 7, 1], &[2, 4, 0, 0, 0, 7, 4, 1, 9], &[2, 7, 0, 0, 0, 8, 0, 4, 1, 2, 3, 4]];
        let messages = [
            (7u64, ForwardRequest::ReadIndex),
            (7, ForwardRequest::TransferLeader(Some(9))),
            (8, ForwardRequest::Write(vec![1, 2, 3, 4].into())),
        ];
        for (bytes, message) in frames.into_iter().zip(messages) {
            assert_eq!(frame(&message).expect("a frame"), bytes);
            let mut input = bytes;
            let read: (u64, ForwardRequest) = expect(&mut input).await.expect("read");
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
        }
        let vote = frame(&RaftRequest::Vote(VoteRequest::new(Vote::new(3, 1), None))).expect("a frame");
        assert_eq!(vote[..6], [2, (vote.len() - 5) as u8, 0, 0, 0, 1]);
        let mut input = &vote[..];
        assert!(matches!(expect(&mut input).await, Ok(RaftRequest::Vote(request)) if request.vote == Vote::new(3, 1)));
    }

    #[tokio::test]
    async fn frames_cross_and_a_wrong_version_or_length_is_refused() {
        let (mut here, mut there) = tokio::io::duplex(1024);
        send(&mut here, &ForwardReply::ReadIndex(7)).await.expect("sent");
        assert!(matches!(expect(&mut there).await, Ok(ForwardReply::ReadIndex(7))));
        here.write_all(&[9]).await.expect("sent");
        assert!(expect::<ForwardReply>(&mut there).await.is_err());
        here.write_all(&[VERSION, 255, 255, 255, 255]).await.expect("sent");
        let error = expect::<ForwardReply>(&mut there).await.expect_err("too large").to_string();
        assert!(error.contains("limit"), "{error}");
        drop(here);
        assert!(matches!(receive::<ForwardReply>(&mut there).await, Ok(None)));
    }
}

//! Raft's way to the other servers: the log on a long-lived stream with many appends on their way at once, short questions on
//! another one, each replaced when it breaks; a snapshot on a stream of its own.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use shoal_state::Image;
use tokio::io::{BufReader, ReadHalf};
use tokio::sync::mpsc;

use crate::config::{Member, PeerIo, PeerStream, Peers};
use crate::raft::{AppendResult, Snapshot, Types, Vote};
use crate::wire::{self, RaftReply, RaftRequest, SnapshotHead, SnapshotReply};

/// Makes the clients.
pub(crate) struct Network {
    pub peers: Arc<dyn Peers>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, _target: u64, node: &Member) -> Client {
        Client { peers: self.peers.clone(), target: node.clone(), stream: None }
    }
}

/// The way to one server. Raft asks one thing at a time on it; heartbeats and snapshots have clients of their own.
pub(crate) struct Client {
    peers: Arc<dyn Peers>,
    target: Member,
    /// Taken out while a question is on its way, so that a cancelled one never leaves half a conversation behind.
    stream: Option<Box<dyn PeerIo>>,
}

/// A question that got no answer.
enum Failure {
    /// The server cannot be reached: leave it alone for a while.
    Unreachable(io::Error),
    /// The conversation broke.
    Broken(io::Error),
}

impl From<Failure> for RPCError<Types> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(error) => Self::Unreachable(Unreachable::new(&error)),
            Failure::Broken(error) => Self::Network(NetworkError::new(&error)),
        }
    }
}

impl Client {
    /// One question and its answer, each within `deadline`: a stream that hangs must not hold up replication.
    async fn ask(&mut self, request: &RaftRequest, deadline: Duration) -> Result<RaftReply, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let opened = tokio::time::timeout(deadline, self.peers.open(&self.target, PeerStream::Raft)).await;
                opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Failure::Unreachable)?
            }
        };
        let conversation = async {
            wire::send(&mut stream, request).await?;
            wire::expect(&mut stream).await
        };
        let reply = tokio::time::timeout(deadline, conversation).await;
        let reply = reply.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Failure::Broken)?;
        self.stream = Some(stream);
        Ok(reply)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: &Snapshot) -> io::Result<SnapshotReply> {
        let mut stream = self.peers.open(&self.target, PeerStream::Snapshot).await?;
        let head = SnapshotHead {
            vote,
            last_log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership.clone(),
        };
        wire::send(&mut stream, &head).await?;
        for chunk in snapshot.snapshot.clone().chunks() {
            wire::send(&mut stream, &Bytes::from(chunk)).await?;
        }
        wire::expect(&mut stream).await
    }
}

/// How long a follower may take to have entries on its disk, at least.
const APPEND_DEADLINE: Duration = Duration::from_secs(1);

/// How many appends may be on their way to a follower.
const IN_FLIGHT: usize = 64;

/// Sends every request of `input` as it comes, and gives the answers in the same order. Each has `deadline` from when it was
/// sent: a follower that hangs must not hold up replication for ever.
fn pipelined<S>(
    stream: Box<dyn PeerIo>,
    mut input: S,
    deadline: Duration,
) -> BoxStream<'static, Result<AppendResult, RPCError<Types>>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
{
    let (replies, requests) = tokio::io::split(stream);
    let (replies, mut requests) = (wire::buffered(replies), wire::Sender::new(requests));
    let (sent, waiting) = mpsc::channel::<tokio::time::Instant>(IN_FLIGHT);
    let sender = tokio::spawn(async move {
        while let Some(request) = input.next().await {
            let until = tokio::time::Instant::now() + deadline;
            // The place is taken first, so that there are never more on their way.
            if sent.send(until).await.is_err() || requests.send([&request]).await.is_err() {
                return;
            }
        }
    });
    let answers = Answers { waiting, replies, _sender: AbortOnDrop(sender) };
    Box::pin(futures_util::stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let until = answers.waiting.recv().await?;
        let reply = tokio::time::timeout_at(until, wire::expect::<AppendResult>(&mut answers.replies)).await;
        match reply.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Ok(matched)) => Some((Ok(Ok(matched)), Some(answers))),
            Ok(refused) => Some((Ok(refused), None)),
            Err(error) => Some((Err(Failure::Broken(error).into()), None)),
        }
    }))
}

/// The answers to come, and the task that asks, which ends with them.
struct Answers {
    waiting: mpsc::Receiver<tokio::time::Instant>,
    replies: BufReader<ReadHalf<Box<dyn PeerIo>>>,
    _sender: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer to another question: the other side is not what we think.
fn confused() -> RPCError<Types> {
    Failure::Broken(io::Error::other("the answer does not fit the question")).into()
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.ask(&RaftRequest::Append(rpc), option.hard_ttl().max(APPEND_DEADLINE)).await? {
            RaftReply::Append(reply) => Ok(reply),
            _ => Err(confused()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let deadline = option.hard_ttl().max(APPEND_DEADLINE);
            let mut input = input;
            // The library waits a while before it gives the first one when the other side was unreachable before.
            let Some(first) = input.next().await else {
                let nothing: BoxStream<'s, _> = Box::pin(futures_util::stream::empty());
                return Ok(nothing);
            };
            let opened = tokio::time::timeout(deadline, self.peers.open(&self.target, PeerStream::Append)).await;
            let stream =
                opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Failure::Unreachable)?;
            let input = futures_util::stream::iter([first]).chain(input);
            let answers: BoxStream<'s, _> = pipelined(stream, input, deadline);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(&RaftRequest::Vote(rpc), option.hard_ttl()).await? {
            RaftReply::Vote(reply) => Ok(reply),
            _ => Err(confused()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        // The library's own default would grant it: a server that cannot be asked has granted nothing.
        match self.ask(&RaftRequest::PreVote(rpc), option.hard_ttl()).await? {
            RaftReply::Vote(reply) => Ok(reply),
            _ => Err(confused()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = tokio::time::timeout(option.hard_ttl(), self.send_snapshot(vote, &snapshot));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(reply) => Ok(reply),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(&RaftRequest::TransferLeader(request), option.hard_ttl()).await? {
            RaftReply::TransferLeader(reply) => Ok(reply),
            _ => Err(confused()),
        }
    }
}

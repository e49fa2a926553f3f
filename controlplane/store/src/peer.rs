//! The other side of `network`: what comes in from the other servers.

use std::io;

use futures_util::StreamExt;
use shoal_state::ImageReader;

use crate::config::{PeerIo, PeerStream};
use crate::forward;
use crate::leader::Leader;
use crate::raft::{Raft, Snapshot, SnapshotMeta};
use crate::wire::{self, RaftReply, RaftRequest, SnapshotHead};

/// Serves one stream until it ends. A stream that breaks is its sender's business.
pub(crate) async fn serve(raft: &Raft, leader: &Leader, kind: PeerStream, mut stream: Box<dyn PeerIo>) {
    let served = match kind {
        PeerStream::Raft => answer(raft, &mut stream).await,
        PeerStream::Snapshot => install(raft, &mut stream).await,
        PeerStream::Forward => {
            let take = |request, reply| leader.take(request, reply);
            forward::serve(stream, take).await
        }
        PeerStream::Append => append(raft, stream).await,
    };
    if let Err(error) = served {
        tracing::debug!(?kind, %error, "a stream of another server broke off");
    }
}

async fn answer(raft: &Raft, stream: &mut Box<dyn PeerIo>) -> io::Result<()> {
    while let Some(request) = wire::receive(stream).await? {
        let reply = match request {
            RaftRequest::Append(rpc) => RaftReply::Append(raft.append_entries(rpc).await.map_err(io::Error::other)?),
            RaftRequest::Vote(rpc) => RaftReply::Vote(raft.vote(rpc).await.map_err(io::Error::other)?),
            RaftRequest::PreVote(rpc) => RaftReply::Vote(raft.pre_vote(rpc).await.map_err(io::Error::other)?),
            RaftRequest::TransferLeader(rpc) => {
                RaftReply::TransferLeader(raft.handle_transfer_leader(rpc).await.map_err(io::Error::other)?)
            }
        };
        wire::send(stream, &reply).await?;
    }
    Ok(())
}

async fn install(raft: &Raft, stream: &mut Box<dyn PeerIo>) -> io::Result<()> {
    let head: SnapshotHead = wire::expect(stream).await?;
    let mut image = ImageReader::default();
    while !image.is_whole() {
        let chunk: bytes::Bytes = wire::expect(stream).await?;
        image.take(&chunk).map_err(io::Error::other)?;
    }
    let meta = SnapshotMeta { last_log_id: head.last_log_id, last_membership: head.membership };
    let snapshot = Snapshot { meta, snapshot: image.finish().map_err(io::Error::other)? };
    let reply = raft.install_full_snapshot(head.vote, snapshot).await.map_err(io::Error::other)?;
    wire::send(stream, &reply).await
}

/// Takes entries as they come; Raft works at some while others are on their way, and answers in order.
async fn append(raft: &Raft, stream: Box<dyn PeerIo>) -> io::Result<()> {
    let (requests, replies) = tokio::io::split(stream);
    let (requests, mut replies) = (wire::buffered(requests), wire::Sender::new(replies));
    let requests = futures_util::stream::unfold(requests, |mut requests| async move {
        match wire::receive(&mut requests).await {
            Ok(request) => request.map(|request| (request, requests)),
            Err(error) => {
                tracing::debug!(%error, "a stream of the log broke off");
                None
            }
        }
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        replies.send([answer.map_err(io::Error::other)?]).await?;
    }
    Ok(())
}

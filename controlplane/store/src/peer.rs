//! The other side of `network`: what comes in from the other servers.

use std::io;

use bytes::BytesMut;

use crate::config::{PeerIo, PeerStream};
use crate::raft::{Raft, Snapshot, SnapshotMeta};
use crate::store::Leader;
use crate::wire::{self, RaftReply, RaftRequest, SnapshotHead};

/// The largest snapshot that is taken, in bytes: the state's limit, and what encoding adds.
const LARGEST_SNAPSHOT: u64 = 3 << 30;

/// Serves one stream until it ends. A stream that breaks is its sender's business.
pub(crate) async fn serve(raft: &Raft, leader: &Leader, kind: PeerStream, mut stream: Box<dyn PeerIo>) {
    let served = match kind {
        PeerStream::Raft => answer(raft, &mut stream).await,
        PeerStream::Snapshot => install(raft, &mut stream).await,
        PeerStream::Forward => forward(leader, &mut stream).await,
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
    if head.length > LARGEST_SNAPSHOT {
        return Err(io::Error::other(format!("a snapshot of {} bytes is above the limit", head.length)));
    }
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < head.length {
        let chunk: bytes::Bytes = wire::expect(stream).await?;
        bytes.extend_from_slice(&chunk);
    }
    let meta = SnapshotMeta { last_log_id: head.last_log_id, last_membership: head.membership };
    let reply = raft
        .install_full_snapshot(head.vote, Snapshot { meta, snapshot: bytes.freeze() })
        .await
        .map_err(io::Error::other)?;
    wire::send(stream, &reply).await
}

async fn forward(leader: &Leader, stream: &mut Box<dyn PeerIo>) -> io::Result<()> {
    while let Some(request) = wire::receive(stream).await? {
        wire::send(stream, &leader.answer(request).await).await?;
    }
    Ok(())
}

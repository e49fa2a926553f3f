//! The Raft library's types, chosen once.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shoal_state::{Image, Outcome};

use crate::config::Member;
use crate::machine::Machine;

/// An encoded [`shoal_state::Command`]: kept as bytes, so that replicating it copies and does not encode again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// A simulation chooses what is random.
#[cfg(feature = "simulation")]
pub(crate) type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft::impls::TokioRuntime>;
#[cfg(not(feature = "simulation"))]
pub(crate) type Runtime = openraft::impls::TokioRuntime;

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Image>;

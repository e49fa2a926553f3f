//! The Raft library's types, chosen once.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
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

/// What Raft does with an answer: it is given to whoever waits for it, without a task that waits meanwhile.
pub(crate) struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    pub(crate) fn new(callback: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(callback))
    }
}

impl<T: 'static> Responder<Types, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// What the library is made of here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Proposal;
    type R = Outcome;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = Callback<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type AsyncRuntime = Runtime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

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

//! Changes of the servers, one at a time: each is a change of the whole list through the log, and never leaves two majorities.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{ChangeMembers, Instant as _, RaftMetrics};
use tokio::time::Instant;

use crate::config::{Member, MemberStatus};
use crate::error::MembershipError;
use crate::leader::{Attempt, LEADER_DEADLINE, LEADER_PAUSE, Leader};
use crate::raft::Types;
use crate::wire::{ForwardReply, ForwardRequest, Refusal};

/// How long a new member may take to catch up.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

/// How far behind the leader a learner may be, in log entries, when it becomes a voter.
const CATCH_UP_LAG: u64 = 16;

/// How long a change of the servers may take.
const CHANGE_DEADLINE: Duration = Duration::from_secs(90);

/// How long leadership may take to move.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

/// After how many longest elections a silent server counts as unreachable.
const SILENT: u32 = 3;

impl Leader {
    /// Asks whoever leads for a change, which does no harm when it is asked for twice, until it is done or refused.
    pub(crate) async fn change(&self, request: &ForwardRequest) -> Result<Option<Vec<MemberStatus>>, MembershipError> {
        let end = Instant::now() + CHANGE_DEADLINE;
        loop {
            let reply = match self.current() {
                Some(leader) if leader.id == self.own().id => Some(self.answer(request.clone()).await),
                Some(leader) => self.forward(&leader, request).await.ok(),
                None => None,
            };
            match reply {
                Some(ForwardReply::Done) => return Ok(None),
                Some(ForwardReply::Members(members)) => return Ok(Some(members)),
                Some(ForwardReply::Refused(refusal)) => return Err(refusal.into()),
                _ if Instant::now() > end || self.is_over() => return Err(MembershipError::Unavailable),
                _ => tokio::time::sleep(LEADER_PAUSE).await,
            }
        }
    }

    /// Makes `member` a voter: it learns first, and votes when it has caught up. A server with the same name and another id was
    /// lost with its disk, and goes in the same step.
    pub(crate) async fn own_add_member(&self, member: Member) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing().lock().await;
        self.finish_change().await?;
        let id = member.id;
        let metrics = self.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        if membership.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        let former = membership.nodes().find(|(_, known)| known.name == member.name && known.id != id);
        let former = former.map(|(former, _)| *former);
        if former == Some(self.own().id) {
            return Err(Refusal::Other(format!(
                "server {:?} leads the cluster and is not to be replaced",
                member.name
            )));
        }
        self.raft().add_learner(id, member, false).await.map_err(|error| other(&error))?;
        // The call above answers before the learner has anything, so look at what it has.
        let caught_up = |metrics: &RaftMetrics<Types>| behind(metrics, id).is_some_and(|behind| behind <= CATCH_UP_LAG);
        let waited = self.raft().wait(Some(CATCH_UP_DEADLINE)).metrics(caught_up, "the learner has caught up").await;
        waited.map_err(|_| Refusal::NotCaughtUp(id))?;
        let mut voters: BTreeSet<u64> = self.raft().voter_ids().collect();
        voters.insert(id);
        let former_learner = former.filter(|former| !voters.remove(former));
        let mut steps = vec![ChangeMembers::ReplaceAllVoters(voters)];
        steps.extend(former_learner.map(|former| ChangeMembers::RemoveNodes([former].into())));
        let changed = self.raft().change_membership(ChangeMembers::Batch(steps), false).await;
        changed.map_err(|error| other(&error)).map(drop)
    }

    /// Takes a server away; one that leads hands leadership on first, and another one is asked then.
    pub(crate) async fn own_remove_member(&self, id: u64) -> Result<Attempt<()>, Refusal> {
        let _one_at_a_time = self.changing().lock().await;
        self.finish_change().await?;
        let metrics = self.raft().metrics().borrow_watched().clone();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        if metrics.membership_config.membership().get_node(&id).is_none() {
            return Ok(Attempt::Done(()));
        }
        if !voters.contains(&id) {
            let removed = self.raft().change_membership(ChangeMembers::RemoveNodes([id].into()), false).await;
            return removed.map_err(|error| other(&error)).map(|_| Attempt::Done(()));
        }
        let rest: Vec<u64> = voters.into_iter().filter(|voter| *voter != id).collect();
        if rest.is_empty() {
            return Err(Refusal::Other("it is the only server: without it there is no cluster".to_string()));
        }
        let count = |metrics: &RaftMetrics<Types>| rest.iter().filter(|id| self.is_reachable(metrics, **id)).count();
        // One that has just come to lead has yet to hear of the others.
        let is_majority = |metrics: &RaftMetrics<Types>| count(metrics) > rest.len() / 2;
        let waited = self.raft().wait(Some(self.silent())).metrics(is_majority, "a majority of the rest").await;
        if waited.is_err() {
            let reachable = count(&self.raft().metrics().borrow_watched().clone());
            return Err(Refusal::Other(format!(
                "of the {} servers that would be left only {reachable} can be reached, which is no majority: the cluster would stop. \
                 Start them, or remove one that cannot be reached first",
                rest.len()
            )));
        }
        if id == self.own().id {
            // The next leader does the rest.
            return self.hand_over(None, &rest).await.map(|()| Attempt::Again);
        }
        let removed = self.raft().change_membership(ChangeMembers::RemoveVoters([id].into()), false).await;
        removed.map_err(|error| other(&error)).map(|_| Attempt::Done(()))
    }

    /// Whether a change was begun that is half done: the servers before it and those after it both have a say.
    pub(crate) fn is_half_changed(&self) -> bool {
        self.raft().metrics().borrow_watched().membership_config.membership().get_joint_config().len() > 1
    }

    /// Ends what a former leader began, if nobody else is at it.
    pub(crate) async fn finish_change_of_another(&self) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing().lock().await;
        self.finish_change().await
    }

    /// Ends the change that a former leader began, for nobody else does. Held meanwhile: [`Leader::changing`].
    async fn finish_change(&self) -> Result<(), Refusal> {
        let end = Instant::now() + LEADER_DEADLINE;
        while self.is_half_changed() {
            let membership = self.raft().metrics().borrow_watched().membership_config.membership().clone();
            let Some(wanted) = membership.get_joint_config().last().cloned() else { return Ok(()) };
            match self.raft().change_membership(ChangeMembers::ReplaceAllVoters(wanted), false).await {
                Ok(_) => return Ok(()),
                // Its beginning has yet to be committed.
                Err(_) if Instant::now() < end => tokio::time::sleep(LEADER_PAUSE).await,
                Err(error) => return Err(other(&error)),
            }
        }
        Ok(())
    }

    /// Has another server lead.
    pub(crate) async fn own_transfer(&self, to: Option<u64>) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing().lock().await;
        if to == Some(self.own().id) {
            return Ok(());
        }
        let voters: Vec<u64> = self.raft().voter_ids().filter(|voter| *voter != self.own().id).collect();
        self.hand_over(to, &voters).await
    }

    async fn hand_over(&self, to: Option<u64>, voters: &[u64]) -> Result<(), Refusal> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let fitting = |voter: &u64| to.is_none_or(|to| to == *voter) && self.is_reachable(&metrics, *voter);
        let best =
            voters.iter().copied().filter(fitting).min_by_key(|voter| behind(&metrics, *voter).unwrap_or(u64::MAX));
        let Some(best) = best else {
            return Err(Refusal::Other(match to {
                Some(to) if !voters.contains(&to) => format!("server {to} is not there, or does not vote yet"),
                _ => "no server that could lead in its place can be reached".to_string(),
            }));
        };
        self.raft().trigger().transfer_leader(best).await.map_err(|error| other(&error))?;
        let moved = |metrics: &RaftMetrics<Types>| metrics.current_leader.is_some_and(|leader| leader != self.own().id);
        let waited = self.raft().wait(Some(TRANSFER_DEADLINE)).metrics(moved, "another server leads").await;
        waited.map_err(|_| Refusal::Other(format!("server {best} did not take over in time"))).map(drop)
    }

    /// The servers, as this one, which leads, sees them.
    pub(crate) fn own_members(&self) -> Vec<MemberStatus> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let status = |(id, member): (&u64, &Member)| MemberStatus {
            member: member.clone(),
            is_voter: voters.contains(id),
            is_leader: *id == self.own().id,
            behind: behind(&metrics, *id),
            is_reachable: self.is_reachable(&metrics, *id),
        };
        membership.nodes().map(status).collect()
    }

    fn is_reachable(&self, metrics: &RaftMetrics<Types>, id: u64) -> bool {
        if id == self.own().id {
            return true;
        }
        let heard = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&id).copied().flatten());
        heard.is_some_and(|heard| heard.elapsed() < self.silent())
    }

    /// After how long a silent server counts as unreachable.
    fn silent(&self) -> Duration {
        self.timing().election_max * SILENT
    }
}

/// How many entries a server has yet to get, as the leader knows.
fn behind(metrics: &RaftMetrics<Types>, id: u64) -> Option<u64> {
    let last = metrics.last_log_index.map_or(0, |index| index + 1);
    if id == metrics.id {
        return Some(0);
    }
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index + 1;
    Some(last.saturating_sub(matched))
}

fn other(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::Other(error.to_string())
}

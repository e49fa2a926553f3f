//! The one place where a write meets the store: a transaction is proposed, and what it says is made an answer.

use bytes::Bytes;
use jiff::Timestamp;
use shoal_api::Status;
use shoal_store::{CommitError, Revision, Transaction, UnixSeconds};

use crate::handler::Call;
use crate::{errors, limits};

/// What became of a transaction.
pub(crate) enum Outcome {
    Committed(Revision),
    /// A precondition did not hold: this one, in the order in which they were required.
    Lost(usize),
}

/// Proposes a transaction and waits for its fate, for a bounded time.
///
/// # Errors
/// 503 when it was certainly not applied, 504 when nobody knows, 413 when it is too large.
pub(crate) async fn commit(call: &Call, transaction: Transaction) -> Result<Outcome, Status> {
    match tokio::time::timeout(limits::STORE, call.store().commit(transaction)).await {
        Ok(Ok(committed)) => Ok(Outcome::Committed(committed.revision)),
        Ok(Err(CommitError::PreconditionFailed { index, .. })) => Ok(Outcome::Lost(index)),
        Ok(Err(error)) => Err(errors::commit(&error)),
        Err(_) => Err(Status::timeout(
            "the request may or may not have been applied: the servers did not answer in time".to_owned(),
        )),
    }
}

/// A transaction that replaces the object called `name`, if it still is as it was read.
pub(crate) fn replace(call: &Call, name: &str, modified: Revision, value: Bytes) -> Transaction {
    let mut transaction = Transaction::default();
    transaction.require_modified_at(call.key(name), modified);
    put(call, call.key(name), value, &mut transaction);
    transaction
}

/// Gives a key its value, for as long as objects of its resource stay.
pub(crate) fn put(call: &Call, key: String, value: Bytes, transaction: &mut Transaction) {
    let ends = || Timestamp::now().checked_add(call.shared.config.event_ttl).ok()?.as_second().try_into().ok();
    match call.resource.short_lived.then(ends).flatten().and_then(UnixSeconds::new) {
        Some(expires) => transaction.put_until(key, value, expires),
        None => transaction.put(key, value),
    };
}

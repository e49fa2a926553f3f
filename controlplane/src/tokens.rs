//! Join tokens in the store: one key each, with a hash of its secret, what it allows and until when.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use shoal_link::join::JoinRequest;
use shoal_link::token::{JoinRole, JoinToken};
use shoal_store::{CommitError, ReadError, Store, Transaction, View};

const PREFIX: &str = "/shoal/tokens/";

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenRecord {
    /// What its holder may become.
    pub role: JoinRole,
    /// The sha256 of its secret.
    pub secret_hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is worth nothing; `None` for never.
    pub expires: Option<Timestamp>,
    /// The server in whose place its holder comes, and whose name it must take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// A token as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListedToken {
    pub id: String,
    pub role: JoinRole,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
}

/// Makes a token that is good for `life`, or until it is removed; for a server, it may be for one in place of `replaces`.
pub(crate) async fn create(
    store: &Store,
    ca: &CertificateDer<'_>,
    role: JoinRole,
    life: Option<Duration>,
    replaces: Option<String>,
) -> Result<JoinToken, CommitError> {
    let token = JoinToken::create(role, ca);
    let created = Timestamp::now();
    let expires = life.and_then(|life| created.checked_add(life).ok());
    let record = TokenRecord { role, secret_hash: token.secret_hash(), created, expires, replaces };
    let value = serde_json::to_vec(&record).expect("a record is always JSON");
    let mut transaction = Transaction::default();
    transaction.require_absent(key(&token.id)).put(key(&token.id), value);
    store.commit(transaction).await?;
    Ok(token)
}

/// All tokens, by id.
pub(crate) fn list(view: &View) -> Vec<ListedToken> {
    let listed = |(key, entry): (&String, &shoal_store::Entry)| {
        let record: TokenRecord = serde_json::from_slice(&entry.value).ok()?;
        let id = key.strip_prefix(PREFIX)?.to_string();
        Some(ListedToken { id, role: record.role, created: record.created, expires: record.expires })
    };
    view.range(PREFIX, None).filter_map(listed).collect()
}

/// Makes a token worthless; answers whether there was one of that id.
pub(crate) async fn remove(store: &Store, id: &str) -> Result<bool, CommitError> {
    let mut transaction = Transaction::default();
    transaction.require_exists(key(id)).delete(key(id));
    match store.commit(transaction).await {
        Ok(_) => Ok(true),
        Err(CommitError::PreconditionFailed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why a newcomer's token is not accepted; the newcomer is told no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    /// No such token, or another secret.
    #[error("the token is not known to this cluster")]
    Unknown,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// It is for something else.
    #[error("the token is for a {}", if matches!(.0, JoinRole::Server) { "server" } else { "worker" })]
    OtherRole(JoinRole),
    /// The store cannot be read at the moment.
    #[error("the cluster cannot look at the token now: {0}")]
    Unavailable(#[from] ReadError),
}

/// Whether the token of `request` lets it become what it wants, and in place of whom.
pub(crate) async fn check(store: &Store, request: &JoinRequest) -> Result<Option<String>, TokenRefusal> {
    // A token that was removed is worth nothing from that moment on, on every server.
    store.read_barrier().await?;
    let record = store.view().get(&key(&request.token_id)).map(|entry| entry.value.clone());
    judge(record.as_deref(), request, Timestamp::now())
}

fn judge(record: Option<&[u8]>, request: &JoinRequest, now: Timestamp) -> Result<Option<String>, TokenRefusal> {
    let record: TokenRecord =
        record.and_then(|record| serde_json::from_slice(record).ok()).ok_or(TokenRefusal::Unknown)?;
    if shoal_link::token::secret_hash(&request.token_secret) != record.secret_hash {
        return Err(TokenRefusal::Unknown);
    }
    if record.expires.is_some_and(|expires| expires <= now) {
        return Err(TokenRefusal::Expired);
    }
    if record.role != request.role {
        return Err(TokenRefusal::OtherRole(record.role));
    }
    Ok(record.replaces)
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a second")
    }

    fn request(secret: &str, role: JoinRole) -> JoinRequest {
        JoinRequest {
            token_id: "a".to_string(),
            token_secret: secret.to_string(),
            role,
            name: "worker-1".to_string(),
            request: Vec::new(),
            addresses: Vec::new(),
            details: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_token_is_good_for_its_role_with_its_secret_and_until_it_expires() {
        let record = TokenRecord {
            role: JoinRole::Worker,
            secret_hash: shoal_link::token::secret_hash("secret"),
            created: second(0),
            expires: Some(second(10)),
            replaces: None,
        };
        let record = serde_json::to_vec(&record).expect("JSON");
        let judged = |request, now| judge(Some(&record), &request, second(now));
        assert_eq!(judged(request("secret", JoinRole::Worker), 9), Ok(None));
        assert_eq!(judged(request("secret", JoinRole::Worker), 10), Err(TokenRefusal::Expired));
        assert_eq!(judged(request("secret", JoinRole::Server), 9), Err(TokenRefusal::OtherRole(JoinRole::Worker)));
        assert_eq!(judged(request("other", JoinRole::Worker), 9), Err(TokenRefusal::Unknown));
        assert_eq!(judge(None, &request("secret", JoinRole::Worker), second(0)), Err(TokenRefusal::Unknown));
    }
}

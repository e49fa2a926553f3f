//! Who is calling: a certificate that the connection has verified, a service-account token, or nobody.

pub(crate) mod claims;
pub(crate) mod impersonation;
pub(crate) mod service_account_key;
pub(crate) mod user;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use shoal_api::Status;
use shoal_store::Store;

use crate::Peer;
use claims::{Claims, Refused};
use service_account_key::ServiceAccountKey;
use user::User;

/// Tells who sends a request, before impersonation.
///
/// # Errors
/// 401 when a bearer token is shown and not accepted.
pub(crate) async fn authenticate(
    peer: &Peer,
    headers: &HeaderMap,
    key: &ServiceAccountKey,
    store: &Store,
) -> Result<User, Status> {
    // What a certificate says needs no header, good or bad.
    let token = if matches!(peer, Peer::Token | Peer::Anonymous) { bearer(headers)? } else { None };
    of(peer, token, key, store).await
}

/// Tells who `peer` is, who may show `token`.
///
/// # Errors
/// 401 when the token is not accepted.
pub(crate) async fn of(
    peer: &Peer,
    token: Option<&str>,
    key: &ServiceAccountKey,
    store: &Store,
) -> Result<User, Status> {
    match peer {
        Peer::Internal(name) => Ok(User::authenticated(name, ["system:masters".to_owned()])),
        Peer::Certificate { common_name, organizations } => {
            Ok(User::authenticated(common_name, organizations.iter().cloned()))
        }
        Peer::Token | Peer::Anonymous => match token {
            None => Ok(User::anonymous()),
            Some(token) => token_user(token, &[], key, store).await.map(|claims| claims.user()).map_err(|refused| {
                tracing::info!(reason = %refused, "bearer token refused");
                Status::unauthorized()
            }),
        },
    }
}

/// The bearer token of a request, if any.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Status::unauthorized())?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(Status::unauthorized()),
    }
}

/// The claims of a token that is good for one of `audiences` (empty: the API server).
pub(crate) async fn token_user(
    token: &str,
    audiences: &[String],
    key: &ServiceAccountKey,
    store: &Store,
) -> Result<Claims, Refused> {
    let claims: Claims = key.verify(token).ok_or(Refused::Foreign)?;
    claims.check(Timestamp::now(), audiences)?;
    if claims.check_bound(&store.view()).is_err() {
        // This server may be behind the one that has just made the account: ask the majority before refusing.
        store.read_barrier().await.map_err(|_| Refused::Unbound)?;
        claims.check_bound(&store.view())?;
    }
    Ok(claims)
}

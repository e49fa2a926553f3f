//! Who may do what with the images: the cluster's own identities, as the registry's clients show them.
//!
//! A certificate is shown by the connection. A token is the password of whatever user name (`docker login`), or a bearer's. Whoever is
//! known may pull; to push and to delete needs the verb `push` on `images` of `registry.shoal.dev`, of all repositories or by name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use shoal_apiserver::{ApiServer, Peer, User};
use shoal_link::http::Body;
use shoal_registry::Access;

/// What `peer` may do with what `path` names.
///
/// # Errors
/// The answer to whoever is not known.
pub(crate) async fn access(
    api: &ApiServer,
    peer: &Peer,
    headers: &HeaderMap,
    path: &str,
) -> Result<Access, Response<Body>> {
    let user = user(api, peer, headers).await?;
    let repository = shoal_registry::repository(path).unwrap_or_default();
    Ok(if api.may_push(&user, &repository) { Access::Push } else { Access::Pull })
}

async fn user(api: &ApiServer, peer: &Peer, headers: &HeaderMap) -> Result<User, Response<Body>> {
    let token = match headers.get(AUTHORIZATION) {
        // What a certificate says needs no header, good or bad.
        Some(value) if matches!(peer, Peer::Token | Peer::Anonymous) => {
            Some(token(value).ok_or_else(|| unauthorized("this is neither Basic nor Bearer"))?)
        }
        _ => None,
    };
    let known = api.identify(peer, token.as_deref()).await;
    let known = known.map_err(|_| unauthorized("the token is not one of this cluster, or has ended"))?;
    known.ok_or_else(|| {
        unauthorized(
            "log in with a token (kubectl create token NAME) as the password, or show a certificate of this cluster",
        )
    })
}

/// The token in a header: what a bearer has, or somebody's password.
fn token(value: &HeaderValue) -> Option<String> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| password.to_owned())
}

/// In the registry API's own form, so that its clients show the text, and ask for a password.
fn unauthorized(message: &str) -> Response<Body> {
    let text = json!({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).to_string();
    let mut response = Response::new(shoal_client::bytes_body(text));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"shoal\""));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearer_s_or_a_password() {
        let of = |text: &str| token(&HeaderValue::from_str(text).expect("a value"));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(of("Bearer a.b.c").as_deref(), Some("a.b.c"));
        assert_eq!(of(&basic("robot:a.b:c")).as_deref(), Some("a.b:c"));
        assert_eq!(of(&basic("robot")), None);
        assert_eq!(of("Basic ???"), None);
        assert_eq!(of("Negotiate x"), None);
    }
}

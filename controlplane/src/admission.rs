//! Who may join, and what it gets: the answer to a newcomer, and the certificates of those who are in.

use std::sync::Arc;

use shoal_link::ca::Subject;
use shoal_link::join::{JoinReply, JoinRequest};
use shoal_link::limits::MEMBER_CERTIFICATE;
use shoal_link::token::JoinRole;
use shoal_link::{NODES, PeerIdentity};
use shoal_store::Member;

use crate::founding::{ServerGrant, server_identity};
use crate::server::Core;
use crate::tokens;

/// Answers a newcomer. Each refusal is logged here, once.
pub(crate) async fn answer(
    core: Arc<Core>,
    remote: std::net::SocketAddr,
    request: JoinRequest,
) -> Result<JoinReply, String> {
    let answer = decide(&core, &request).await;
    match &answer {
        Ok(_) => {
            tracing::info!(%remote, name = request.name, role = ?request.role, token = request.token_id, "a newcomer was let in")
        }
        Err(reason) => {
            tracing::warn!(%remote, name = request.name, role = ?request.role, token = request.token_id, reason, "refused a newcomer")
        }
    }
    answer
}

async fn decide(core: &Core, request: &JoinRequest) -> Result<JoinReply, String> {
    let replaces = tokens::check(&core.store, request).await.map_err(|refusal| refusal.to_string())?;
    if !is_name(&request.name) {
        return Err(format!(
            "{:?} is no name for a node or a server: lower-case letters, digits and '-' or '.', at most 63, beginning and ending with a letter or digit",
            request.name
        ));
    }
    let (subject, grant) = match request.role {
        JoinRole::Worker => (worker(core, request).await?, serde_json::Value::Null),
        JoinRole::Server => server(core, request, replaces.as_deref()).await?,
    };
    let certificate = core.keys.authority.sign(&request.request, &subject).map_err(|error| error.to_string())?;
    let servers = core.store.members().into_iter().map(|member| member.link_address).collect();
    Ok(JoinReply { certificate: certificate.to_vec(), ca: core.keys.authority.certificate().to_vec(), servers, grant })
}

async fn worker(core: &Core, request: &JoinRequest) -> Result<Subject, String> {
    if core.nodes.is_connected(&request.name).await {
        return Err(format!("a worker called {:?} is in the cluster and connected", request.name));
    }
    Ok(member_subject(PeerIdentity {
        common_name: format!("system:node:{}", request.name),
        organizations: vec![NODES.to_string()],
    }))
}

async fn server(
    core: &Core,
    request: &JoinRequest,
    replaces: Option<&str>,
) -> Result<(Subject, serde_json::Value), String> {
    let members = core.store.members();
    match replaces {
        Some(replaced) if replaced != request.name => {
            return Err(format!("this token is for a server that replaces {replaced:?}: give it that name"));
        }
        None if members.iter().any(|member| member.name == request.name) => {
            return Err(format!(
                "a server called {:?} is in the cluster already: `shoal member replace {}` makes a token for one in its place",
                request.name, request.name
            ));
        }
        _ => {}
    }
    let grant = grant(core, members).await?;
    let grant = serde_json::to_value(grant).map_err(|error| error.to_string())?;
    Ok((member_subject(server_identity(&request.name)), grant))
}

/// What a new server is given, or one that begins anew.
pub(crate) async fn grant(core: &Core, members: Vec<Member>) -> Result<ServerGrant, String> {
    let member_id = core.store.allocate_member_id().await.map_err(|error| error.to_string())?;
    Ok(ServerGrant {
        member_id,
        ca_key: core.keys.authority.key_pem().to_string(),
        service_account_key: core.keys.service_account_key.clone(),
        encryption_keys: core.keys.ring.render(),
        members,
    })
}

/// A new certificate for somebody who has shown a valid one: for the same name and groups, whatever the request says.
pub(crate) fn renew(core: &Core, caller: PeerIdentity, request: &[u8]) -> Result<Vec<u8>, String> {
    let certificate = core.keys.authority.sign(request, &member_subject(caller)).map_err(|error| error.to_string())?;
    Ok(certificate.to_vec())
}

/// Good for the link and nothing else: no name and no address under which a browser or kubectl would believe its holder. A
/// server, which has the CA, makes its own certificate for its API.
fn member_subject(identity: PeerIdentity) -> Subject {
    Subject { identity, member: true, names: Vec::new(), addresses: Vec::new(), validity: MEMBER_CERTIFICATE }
}

/// RFC 1123: what Kubernetes takes for a node's name, and a label can hold.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_inner)
    };
    name.len() <= 63 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_dns_names() {
        for name in ["worker-1", "a", "edge-7.shop.example"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Worker", "a_b", "-a", "a-", "a..b", "x/y", &"a".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}

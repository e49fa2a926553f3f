//! `Impersonate-*` headers: acting as another, where authorization allows it.

use http::HeaderMap;
use shoal_api::Status;

use super::user::User;
use crate::authorization::{self, Attributes};
use crate::request::percent_decode;
use crate::server::Shared;

/// The user that the request acts as: `user`, unless the headers ask for another.
///
/// # Errors
/// 400 when groups are named without a user, 403 when `user` may not impersonate what is asked for.
pub(crate) fn impersonate(shared: &Shared, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let extra: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(name, value)| {
            Some((percent_decode(name.as_str().strip_prefix("impersonate-extra-")?), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let Some(name) = text("impersonate-user") else {
        if groups.is_empty() && extra.is_empty() && text("impersonate-uid").is_none() {
            return Ok(user);
        }
        return Err(Status::bad_request("requested groups, uid or extra without impersonating a user".to_owned()));
    };
    let allow = |group: &str, resource: &str, subresource: Option<&str>, namespace: Option<&str>, name: &str| {
        let attributes = Attributes {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.unwrap_or_default().to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        authorization::require(shared, &user, &attributes)
    };
    let mut acting = match service_account(name) {
        Some((namespace, account)) => {
            allow("", "serviceaccounts", None, Some(namespace), account)?;
            User::service_account(namespace, account)
        }
        None => {
            allow("", "users", None, None, name)?;
            User { name: name.to_owned(), ..User::default() }
        }
    };
    for group in &groups {
        allow("", "groups", None, None, group)?;
    }
    if !groups.is_empty() {
        acting.groups = groups;
    }
    if let Some(uid) = text("impersonate-uid") {
        allow("authentication.k8s.io", "uids", None, None, uid)?;
        uid.clone_into(&mut acting.uid);
    }
    for (key, value) in extra {
        allow("authentication.k8s.io", "userextras", Some(&key), None, &value)?;
        acting.extra.entry(key).or_default().push(value);
    }
    let own = if acting.is_anonymous() { "system:unauthenticated" } else { "system:authenticated" };
    if !acting.is_in(own) {
        acting.groups.push(own.to_owned());
    }
    Ok(acting)
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

//! What a node's agent may do: the rules stand in `shoal_api::rbac::node`; here they are given what they ask for.
//!
//! A volume may be read by whom its claim may be read. Two things hang on a request's field selector: pods are listed and watched only with the
//! selector that limits them to the node's own, and a list or watch of one object by name counts as reading that object.

use serde_json::Value;
use shoal_api::rbac;
use shoal_store::View;

use super::Attributes;
use crate::authentication::user::User;
use crate::{keys, stored};

/// Whether `node` may do this; no means only that another authorizer may still allow it.
pub(super) fn allows(view: &View, user: &User, node: &str, attributes: &Attributes) -> bool {
    let lists = matches!(attributes.verb.as_str(), "list" | "watch");
    if lists
        && attributes.group.is_empty()
        && attributes.resource == "pods"
        && attributes.field("spec.nodeName").as_deref() != Some(node)
    {
        return false;
    }
    let name = attributes.named().unwrap_or_default();
    if attributes.group.is_empty() && attributes.resource == "persistentvolumes" && attributes.subresource.is_empty() {
        return claim_of(view, attributes, &name).is_some_and(|claim| allows(view, user, node, &claim));
    }
    let mut request = attributes.rbac(user);
    request.name = &name;
    let pods: Vec<Value> = if attributes.concerns_pods() { pods(view, &attributes.namespace) } else { Vec::new() };
    rbac::node::may(node, &request, || &pods)
}

/// The request for a volume as one for the claim that it belongs to.
fn claim_of(view: &View, attributes: &Attributes, volume: &str) -> Option<Attributes> {
    let entry = view.get(&keys::object("core/persistentvolumes", None, volume))?;
    let volume = stored::decode(&entry.value, entry.modified).ok()?;
    let text = |field: &str| volume.pointer(&format!("/spec/claimRef/{field}")).and_then(Value::as_str);
    Some(Attributes {
        resource: "persistentvolumeclaims".to_owned(),
        namespace: text("namespace")?.to_owned(),
        name: text("name")?.to_owned(),
        field_selector: None,
        ..attributes.clone()
    })
}

fn pods(view: &View, namespace: &str) -> Vec<Value> {
    let prefix = keys::collection("core/pods", Some(namespace));
    view.range(&prefix, None).filter_map(|(_, entry)| stored::decode(&entry.value, entry.modified).ok()).collect()
}

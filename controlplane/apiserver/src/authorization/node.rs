//! What a node's agent may do: the rules stand in `shoal_api::rbac::node`; here they are given what they ask for.
//!
//! A volume may be read by whom its claim may be read. Two things hang on a request's field selector: pods are listed and watched only with the
//! selector that limits them to the node's own, and a list or watch of one object by name counts as reading that object.

use memchr::memmem::Finder;
use serde_json::Value;
use shoal_api::rbac;
use shoal_store::{Entry, View};

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
    rbac::node::may(node, &request, || pods(view, node, attributes, &name))
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

/// The pods that the request may concern: the one that it names, or those whose text holds the node and the object that it asks
/// for. Each is decoded only when its turn comes: a node has thousands of pods, and one that refers to an object is soon found.
fn pods(view: &View, node: &str, attributes: &Attributes, name: &str) -> impl Iterator<Item = Value> + use<> {
    let entries: Vec<Entry> = if attributes.resource == "pods" {
        view.get(&keys::object("core/pods", Some(&attributes.namespace), name)).cloned().into_iter().collect()
    } else {
        // The claim of an ephemeral volume has no name of its own in the pod.
        let name = if attributes.resource == "persistentvolumeclaims" { "" } else { name };
        let needles = [format!("\"{node}\""), if name.is_empty() { String::new() } else { format!("\"{name}\"") }];
        let needles = needles.each_ref().map(Finder::new);
        let prefix = keys::collection("core/pods", Some(&attributes.namespace));
        let entries = view.range(&prefix, None).map(|(_, entry)| entry);
        entries.filter(|entry| needles.iter().all(|needle| needle.find(&entry.value).is_some())).cloned().collect()
    };
    entries.into_iter().filter_map(|entry| stored::decode(&entry.value, entry.modified).ok())
}

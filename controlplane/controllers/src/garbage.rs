//! What nobody owns any more goes; who is deleted in the foreground waits for what it owns; orphans lose their owner first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::action::{Action, Target, Thing};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What is to be done about ownership, given everything of all the kinds named in `kinds` (API version, kind and plural).
///
/// Owners of other kinds are taken to exist.
pub fn reconcile(things: &[Thing], kinds: &[(String, String, String)]) -> Vec<Action> {
    let present: BTreeMap<&str, &Thing> = things.iter().map(|thing| (thing.uid.as_str(), thing)).collect();
    let mut dependents: BTreeMap<&str, Vec<&Thing>> = BTreeMap::new();
    for thing in things {
        for owner in &thing.owners {
            dependents.entry(owner.uid.as_str()).or_default().push(thing);
        }
    }
    let mut actions = Vec::new();
    let mut waiting: BTreeSet<&str> = BTreeSet::new();
    for thing in things.iter().filter(|thing| thing.is_deleting) {
        let owned = dependents.get(thing.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
        let has = |finalizer: &str| thing.finalizers.iter().any(|present| present == finalizer);
        if has(ORPHAN) {
            waiting.insert(&thing.uid);
            let disowned: Vec<Action> = owned.iter().map(|dependent| disown(dependent, &thing.uid)).collect();
            actions.extend(if disowned.is_empty() { vec![without_finalizer(thing, ORPHAN)] } else { disowned });
        } else if has(FOREGROUND) {
            let blocks = |dependent: &&&Thing| {
                dependent.owners.iter().any(|owner| owner.uid == thing.uid && owner.block_owner_deletion == Some(true))
            };
            actions.extend(
                owned
                    .iter()
                    .filter(|dependent| is_only_owned_by(dependent, thing))
                    .filter_map(|dependent| delete(dependent)),
            );
            if !owned.iter().any(|dependent| blocks(&dependent)) {
                actions.push(without_finalizer(thing, FOREGROUND));
            }
        }
    }
    let owner_target = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference, namespace: &str| {
        let (api_version, kind, plural) =
            kinds.iter().find(|(api_version, kind, _)| *api_version == owner.api_version && *kind == owner.kind)?;
        let namespace = if matches!(kind.as_str(), "Node" | "Namespace") { "" } else { namespace };
        let (api_version, kind, plural) = (api_version.clone(), kind.clone(), plural.clone());
        let target = Target { api_version, kind, plural, namespace: namespace.to_owned(), name: owner.name.clone() };
        Some((target, owner.uid.clone()))
    };
    for thing in things.iter().filter(|thing| !thing.is_deleting && !thing.owners.is_empty()) {
        if thing
            .owners
            .iter()
            .any(|owner| present.contains_key(owner.uid.as_str()) || waiting.contains(owner.uid.as_str()))
        {
            continue;
        }
        let owners: Option<Vec<_>> =
            thing.owners.iter().map(|owner| owner_target(owner, &thing.target.namespace)).collect();
        if let Some(owners) = owners {
            actions.push(Action::DeleteOrphan {
                target: thing.target.clone(),
                uid: thing.uid.clone(),
                owners,
                grace_seconds: None,
            });
        }
    }
    actions
}

fn is_only_owned_by(dependent: &Thing, owner: &Thing) -> bool {
    dependent.owners.iter().all(|reference| reference.uid == owner.uid)
}

fn delete(thing: &Thing) -> Option<Action> {
    (!thing.is_deleting).then(|| Action::Delete {
        target: thing.target.clone(),
        uid: thing.uid.clone(),
        grace_seconds: None,
    })
}

fn disown(thing: &Thing, uid: &str) -> Action {
    let owners: Vec<_> = thing.owners.iter().filter(|owner| owner.uid != uid).collect();
    let patch =
        json!({"metadata": {"uid": thing.uid, "resourceVersion": thing.resource_version, "ownerReferences": owners}});
    Action::Patch { target: thing.target.clone(), patch }
}

fn without_finalizer(thing: &Thing, finalizer: &str) -> Action {
    let finalizers: Vec<_> = thing.finalizers.iter().filter(|present| *present != finalizer).collect();
    let patch =
        json!({"metadata": {"uid": thing.uid, "resourceVersion": thing.resource_version, "finalizers": finalizers}});
    Action::Patch { target: thing.target.clone(), patch }
}

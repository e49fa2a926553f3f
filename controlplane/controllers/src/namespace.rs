//! A namespace that is being deleted is emptied, pods first, and then let go.

use k8s_openapi::api::core::v1::{Event, Namespace};

use crate::action::{Action, Target, Thing};

/// What the deletion of `namespace` needs, given all that is in it.
pub fn reconcile(namespace: &Namespace, contents: &[&Thing]) -> Vec<Action> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|finalizer| finalizer == "kubernetes")
    {
        return Vec::new();
    }
    let (pods, others): (Vec<_>, Vec<_>) = contents.iter().partition(|thing| thing.target.kind == "Pod");
    // What makes pods goes at once, or it would make new ones; the rest waits until nothing runs that may need it.
    let makes_pods = |thing: &&&Thing| matches!(thing.target.kind.as_str(), "Deployment" | "ReplicaSet");
    let waits = !pods.is_empty();
    let now = others.iter().filter(|thing| !waits || makes_pods(thing)).chain(&pods);
    let mut deletions: Vec<Action> = now.filter(|thing| !thing.is_deleting).map(|thing| delete(thing)).collect();
    deletions.sort_by_key(|action| !matches!(action, Action::Delete { target, .. } if target.kind != "Pod"));
    if contents.is_empty() {
        deletions.push(Action::DeleteAll { target: Target::named::<Event>(name, "") });
        finalizers.retain(|finalizer| finalizer != "kubernetes");
        let mut finalized = namespace.clone();
        finalized.spec.get_or_insert_default().finalizers = Some(finalizers);
        deletions.push(Action::Replace {
            target: Target::of(namespace),
            subresource: "finalize",
            object: crate::action::value(&finalized),
        });
    }
    deletions
}

fn delete(thing: &Thing) -> Action {
    Action::Delete { target: thing.target.clone(), uid: thing.uid.clone(), grace_seconds: None }
}

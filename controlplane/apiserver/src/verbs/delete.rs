//! `delete`: at once, or marked and left to those who must finish: a node, a finalizer's owner, a namespace's content.

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shoal_api::{Status, metadata};
use shoal_store::{Entry, Transaction};

use crate::admission;
use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::verbs::commit::{self, Outcome};
use crate::verbs::delete_options::{DeleteOptions, Propagation};
use crate::verbs::update;
use crate::{Body, allocate, errors, limits, object, respond, stored};

/// How long a pod may take to stop when neither it nor the request says.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What a deletion has done.
pub(crate) enum Deleted {
    /// The object is gone; this is what it was.
    Gone(Value),
    /// The object is marked, and goes when nothing holds it any more.
    Marked(Value),
}

/// Deletes the named object.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let options = DeleteOptions::read(&call.query, &call.headers, body).await?;
    match delete(call, call.name()?, &options).await? {
        Deleted::Marked(object) => Ok(respond::value(StatusCode::OK, &shown.object(object))),
        // A pod's deletion answers with the pod, others with a success that names what is gone; both as in Kubernetes.
        Deleted::Gone(object) if call.resource.storage == "core/pods" => {
            Ok(respond::value(StatusCode::OK, &shown.object(object)))
        }
        Deleted::Gone(object) => Ok(respond::value(StatusCode::OK, &success(call, &object))),
    }
}

fn success(call: &Call, object: &Value) -> Value {
    let mut details = json!({
        "name": metadata::name(object), "kind": call.resource.plural, "uid": metadata::uid(object), "group": call.resource.group,
    });
    if call.resource.group.is_empty()
        && let Some(details) = details.as_object_mut()
    {
        details.remove("group");
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Deletes an object as the options ask, as often as it takes.
///
/// # Errors
/// 404, and 409 when a precondition does not hold.
pub(crate) async fn delete(call: &Call, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
    for _ in 0..limits::UPDATE_TRIES {
        let mut entry = call.entry(name);
        if entry.is_none() {
            call.barrier().await?;
            entry = call.entry(name);
        }
        let entry = entry.ok_or_else(|| call.not_found(name))?;
        match attempt(call, name, options, &entry).await {
            Ok(Some(deleted)) => return Ok(deleted),
            Ok(None) => drop(call.barrier().await?),
            Err(status) => {
                call.barrier().await?;
                if call.entry(name).map(|entry| entry.modified) == Some(entry.modified) {
                    return Err(status);
                }
            }
        }
    }
    Err(update::conflict(call, name))
}

/// One try; none when another writer was faster.
async fn attempt(call: &Call, name: &str, options: &DeleteOptions, entry: &Entry) -> Result<Option<Deleted>, Status> {
    let old = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
    check_preconditions(call, name, options, &old)?;
    let view = call.store().view();
    admission::delete(&call.admission(name, None, &view), &old)?;
    let mut new = old.clone();
    set_finalizers(&mut new, options.propagation);
    let grace = grace_seconds(call.resource.storage, &old, options);
    if grace > 0 || !metadata::finalizers(&new).is_empty() || update::holds_content(&new) {
        mark(&mut new, grace);
        if new == old || options.dry_run {
            return Ok(Some(Deleted::Marked(new)));
        }
        return Ok(
            match commit::commit(call, commit::replace(call, name, entry.modified, stored::encode(&new))).await? {
                Outcome::Committed(revision) => {
                    object::metadata_mut(&mut new).insert("resourceVersion".to_owned(), revision.to_string().into());
                    Some(Deleted::Marked(new))
                }
                Outcome::Lost(_) => None,
            },
        );
    }
    if options.dry_run {
        return Ok(Some(Deleted::Gone(old)));
    }
    let mut transaction = Transaction::default();
    transaction.require_modified_at(call.key(name), entry.modified);
    transaction.delete(call.key(name));
    allocate::settle(call.resource, &view, None, Some(&old), &mut transaction)?;
    Ok(match commit::commit(call, transaction).await? {
        Outcome::Committed(_) => Some(Deleted::Gone(old)),
        Outcome::Lost(_) => None,
    })
}

fn check_preconditions(call: &Call, name: &str, options: &DeleteOptions, object: &Value) -> Result<(), Status> {
    let checks = [
        ("UID", &options.uid, metadata::uid(object)),
        ("ResourceVersion", &options.resource_version, metadata::resource_version(object)),
    ];
    for (what, wanted, found) in checks {
        if let Some(wanted) = wanted
            && found != Some(wanted.as_str())
        {
            let found = found.unwrap_or_default();
            let message =
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(Status::conflict(call.resource.group, call.resource.plural, name, &message));
        }
    }
    Ok(())
}

/// Adds and takes away the garbage collector's finalizers.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = metadata::finalizers(object).into_iter().map(str::to_owned).collect();
    finalizers.retain(|finalizer| finalizer != "orphan" && finalizer != "foregroundDeletion");
    match propagation {
        Propagation::Orphan => finalizers.push("orphan".to_owned()),
        Propagation::Foreground => finalizers.push("foregroundDeletion".to_owned()),
        Propagation::Background => {}
    }
    let metadata = object::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// How long the object may take; only pods take any time, and only while they may run.
fn grace_seconds(storage: &str, object: &Value, options: &DeleteOptions) -> i64 {
    if storage != "core/pods" {
        return 0;
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let grace = options.grace_seconds.or(own).unwrap_or(DEFAULT_GRACE_SECONDS);
    let grace = if grace < 0 { 1 } else { grace };
    // What is being deleted can only be hurried.
    match object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64) {
        Some(current) if metadata::deletion_timestamp(object).is_some() => grace.min(current),
        _ => grace,
    }
}

/// Marks an object as being deleted; one that is marked already can only get less time.
fn mark(object: &mut Value, grace: i64) {
    let marked: Option<Timestamp> = metadata::deletion_timestamp(object).and_then(|text| text.parse().ok());
    let current = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let deadline = match (marked, current) {
        (Some(_), Some(current)) if grace >= current => return,
        (Some(_), None) => return,
        (Some(marked), Some(current)) => marked - SignedDuration::from_secs(current - grace),
        (None, _) => Timestamp::now() + SignedDuration::from_secs(grace),
    };
    let is_namespace = object.get("kind").and_then(Value::as_str) == Some("Namespace");
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let metadata = object::metadata_mut(object);
    metadata.insert("deletionTimestamp".to_owned(), object::format_time(deadline).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if let Some(generation) = generation {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    if is_namespace {
        if !object["status"].is_object() {
            object["status"] = json!({});
        }
        object["status"]["phase"] = "Terminating".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, node: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 10}, "status": {"phase": phase}})
    }

    #[test]
    fn only_a_pod_that_may_run_takes_time() {
        let options = DeleteOptions::default();
        assert_eq!(grace_seconds("core/pods", &pod("Running", "n1"), &options), 10);
        assert_eq!(grace_seconds("core/pods", &pod("Running", ""), &options), 0);
        assert_eq!(grace_seconds("core/pods", &pod("Failed", "n1"), &options), 0);
        assert_eq!(grace_seconds("core/configmaps", &pod("Running", "n1"), &options), 0);
        let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
        assert_eq!(grace_seconds("core/pods", &pod("Running", "n1"), &now), 0);
    }

    #[test]
    fn a_marked_pod_can_only_be_hurried() {
        let mut pod = pod("Running", "n1");
        mark(&mut pod, 30);
        let first = pod.clone();
        mark(&mut pod, 60);
        assert_eq!(pod, first);
        mark(&mut pod, 5);
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 5);
        assert!(pod["metadata"]["deletionTimestamp"].as_str() < first["metadata"]["deletionTimestamp"].as_str());
    }
}

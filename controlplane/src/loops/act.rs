//! Actions, done one after another. What is no longer as it was seen stops the rest: look again.

use futures_util::StreamExt as _;
use futures_util::stream;
use http::Method;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};
use shoal_client::{Client, ClientError, EventKind, Recorder};
use shoal_controllers::{Action, Target};

/// How many objects are created or deleted at a time.
const AT_ONCE: usize = 32;

/// What a run of actions came to.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The kinds that were written, and the last revision of each write.
    pub written: Vec<(String, u64)>,
    /// When to look again in any case.
    pub look_again: Option<jiff::Timestamp>,
    /// Something was not as it was seen, or failed.
    pub is_incomplete: bool,
}

/// Does all `actions`. Creations and deletions next to one another are done side by side; everything else in order.
pub(crate) async fn all(client: &Client, recorder: &Recorder, actions: Vec<Action>) -> Done {
    let mut done = Done::default();
    let mut events = Vec::new();
    let mut batch = Vec::new();
    for action in actions {
        match action {
            Action::Event { .. } => events.push(action),
            Action::LookAgain { at } => done.look_again = Some(done.look_again.map_or(at, |earlier| earlier.min(at))),
            Action::Create { .. } | Action::Delete { .. } | Action::DeleteOrphan { .. } => batch.push(action),
            _ => {
                run(client, std::mem::take(&mut batch), &mut done).await;
                if !done.is_incomplete {
                    run(client, vec![action], &mut done).await;
                }
            }
        }
        if done.is_incomplete {
            return done;
        }
    }
    run(client, batch, &mut done).await;
    if !done.is_incomplete {
        events.into_iter().for_each(|event| record(recorder, event));
    }
    done
}

async fn run(client: &Client, batch: Vec<Action>, done: &mut Done) {
    // Owned, because a borrowing stream of futures cannot be shown to be `Send`.
    let mut outcomes = stream::iter(batch).map(|action| one(client.clone(), action)).buffer_unordered(AT_ONCE);
    while let Some((kind, outcome)) = outcomes.next().await {
        match outcome {
            Ok(revision) => done.written.push((kind, revision)),
            // It is gone, as was wanted, or there already: the caches will show it.
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_conflict() || error.is_already_exists() => {
                tracing::debug!(kind, %error, "an object was not as it was seen");
                done.is_incomplete = true;
            }
            Err(error) => {
                tracing::debug!(kind, %error, "an action failed");
                done.is_incomplete = true;
            }
        }
    }
}

/// Does one action; answers with its kind and the revision it was written at.
async fn one(client: Client, action: Action) -> (String, Result<u64, ClientError>) {
    match action {
        Action::Create { target, object } => {
            let path = path(&target, false, "");
            (target.kind, send(&client, Method::POST, &path, &object).await)
        }
        Action::Replace { target, subresource, object } => {
            let path = path(&target, true, subresource);
            (target.kind, send(&client, Method::PUT, &path, &object).await)
        }
        Action::Patch { target, patch } => {
            let sent = client.merge(&path(&target, true, ""), &patch).await;
            (target.kind, sent.map(|object| revision(&object)))
        }
        Action::Delete { target, uid, grace_seconds } => delete(&client, target, &uid, grace_seconds).await,
        Action::DeleteOrphan { target, uid, owners, grace_seconds } => match is_any_left(&client, &owners).await {
            Ok(false) => delete(&client, target, &uid, grace_seconds).await,
            Ok(true) => (target.kind, Ok(0)),
            Err(error) => (target.kind, Err(error)),
        },
        Action::RemoveDirectory { node, volume, claims } => {
            let removed = remove_directory(&client, &node, &volume, &claims).await;
            (node.kind, removed.map(|()| 0))
        }
        Action::DeleteAll { target } => (target.kind.clone(), delete_all(&client, target).await),
        Action::Event { target, .. } => (target.kind, Ok(0)),
        Action::LookAgain { .. } => (String::new(), Ok(0)),
    }
}

async fn delete(
    client: &Client,
    target: Target,
    uid: &str,
    grace_seconds: Option<i64>,
) -> (String, Result<u64, ClientError>) {
    let mut options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid},
        "propagationPolicy": "Background",
    });
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let deleted = send(client, Method::DELETE, &path(&target, true, ""), &options).await;
    (target.kind, deleted)
}

async fn delete_all(client: &Client, target: Target) -> Result<u64, ClientError> {
    loop {
        let list: Value = client.json(Method::GET, &format!("{}?limit=500", path(&target, false, "")), None).await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            return Ok(0);
        }
        for item in items {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
            let target = Target { name: text("name"), ..target.clone() };
            match delete(client, target, &text("uid"), None).await.1 {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
}

/// Asks the node's agent; that a node is not to be reached is no success, that it is not there any more is.
async fn remove_directory(
    client: &Client,
    node: &Target,
    volume: &str,
    claims: &[(Target, String)],
) -> Result<(), ClientError> {
    let conflict = |message: String| {
        let (code, reason) = (Some(409), Some("Conflict".to_owned()));
        ClientError::Status(Box::new(Status { code, reason, message: Some(message), ..Status::default() }))
    };
    if is_any_left(client, claims).await? {
        return Err(conflict(format!("the claim of volume {volume:?} is still there")));
    }
    if !is_any_left(client, &[(node.clone(), String::new())]).await? {
        return Ok(());
    }
    let path = format!("{}/proxy/volumes/{volume}", path(node, true, ""));
    match client.json::<Value>(Method::DELETE, &path, None).await {
        Err(error) if error.is_not_found() => Err(conflict(error.to_string())),
        answer => answer.map(drop),
    }
}

async fn is_any_left(client: &Client, owners: &[(Target, String)]) -> Result<bool, ClientError> {
    for (owner, uid) in owners {
        match client.json::<Value>(Method::GET, &path(owner, true, ""), None).await {
            Ok(object) if uid.is_empty() || object["metadata"]["uid"] == uid.as_str() => return Ok(true),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<u64, ClientError> {
    let object: Value = client.json(method, path, Some(body.to_string().into_bytes())).await?;
    Ok(revision(&object))
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// Where the API keeps `target`, or its whole collection, or a subresource.
fn path(target: &Target, is_one: bool, subresource: &str) -> String {
    let root = if target.api_version.contains('/') { "/apis/" } else { "/api/" };
    let mut path = format!("{root}{}", target.api_version);
    if !target.namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(&target.namespace);
    }
    path.push('/');
    path.push_str(&target.plural);
    if is_one {
        path.push('/');
        path.push_str(&target.name);
    }
    if !subresource.is_empty() {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

fn record(recorder: &Recorder, event: Action) {
    let Action::Event { target, uid, kind, reason, message } = event else { return };
    let kind = match kind {
        shoal_controllers::EventKind::Normal => EventKind::Normal,
        shoal_controllers::EventKind::Warning => EventKind::Warning,
    };
    let object = ObjectReference {
        api_version: Some(target.api_version),
        kind: Some(target.kind),
        namespace: Some(target.namespace).filter(|namespace| !namespace.is_empty()),
        name: Some(target.name),
        uid: Some(uid),
        ..ObjectReference::default()
    };
    recorder.record_for(object, kind, reason, &message);
}

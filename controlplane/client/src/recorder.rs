//! Events: what happened to an object, for people. The same thing again raises a count.
//!
//! Events are a courtesy: they are written one after another by a task of their own, and dropped when there are too many.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Client, ClientError, Object, Patch, limits};

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    component: String,
    host: Option<String>,
    queue: mpsc::Sender<Event>,
}

impl Recorder {
    /// Starts a recorder whose events name `component` (and `host`) as their source; its task ends with `stop`.
    pub fn start(client: Client, component: &str, host: Option<&str>, stop: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(limits::EVENTS_WAITING);
        let write: BoxFuture<'static, ()> = Box::pin(write_all(client, waiting));
        shoal_link::tasks::spawn_connection("event recorder", async move {
            stop.run_until_cancelled_owned(write).await;
        });
        Self { component: component.to_owned(), host: host.map(str::to_owned), queue }
    }

    /// Records that `reason` happened to `object`. Returns at once.
    pub fn record<K: Object>(&self, object: &K, kind: EventKind, reason: &str, message: &str) {
        let metadata = object.metadata();
        self.record_for(
            ObjectReference {
                api_version: Some(K::API_VERSION.to_owned()),
                kind: Some(K::KIND.to_owned()),
                name: metadata.name.clone(),
                namespace: metadata.namespace.clone(),
                uid: metadata.uid.clone(),
                resource_version: metadata.resource_version.clone(),
                field_path: None,
            },
            kind,
            reason,
            message,
        );
    }

    /// Records that `reason` happened to what `object` refers to. Returns at once.
    pub fn record_for(&self, object: ObjectReference, kind: EventKind, reason: &str, message: &str) {
        let now = Timestamp::now();
        let namespace =
            object.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:016x}", object.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: object,
            type_: Some(format!("{kind:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(self.component.clone()), host: self.host.clone() }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped");
        }
    }
}

/// What makes two events the same thing again: the object and the words.
type Sameness = (Option<String>, Option<String>, Option<String>, Option<String>);

async fn write_all(client: Client, mut waiting: mpsc::Receiver<Event>) {
    let mut known: BTreeMap<Sameness, (String, i32)> = BTreeMap::new();
    while let Some(event) = waiting.recv().await {
        let object = &event.involved_object;
        let same = (object.uid.clone(), object.name.clone(), event.reason.clone(), event.message.clone());
        if known.len() >= limits::EVENTS_COUNTED {
            known.clear();
        }
        match write(&client, &event, known.get(&same)).await {
            Ok(written) => drop(known.insert(same, written)),
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

async fn write(client: &Client, event: &Event, known: Option<&(String, i32)>) -> Result<(String, i32), ClientError> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    if let Some((name, count)) = known {
        let again = Patch::Merge(json!({"count": count + 1, "lastTimestamp": event.last_timestamp}));
        match client.patch::<Event>(namespace, name, &again).await {
            Ok(_) => return Ok((name.clone(), count + 1)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let written = client.create(event).await?;
    Ok((written.metadata.name.unwrap_or_default(), 1))
}

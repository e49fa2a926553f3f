//! Events as the kubelet writes them. Best effort: they wait in a bounded queue and never hold anything up.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use shoal_client::{Client, Patch};
use tokio::sync::mpsc;

use crate::limits::{EVENT_MEMORY, EVENT_QUEUE};
use crate::pod::{ephemeral, spec};

/// Who the events come from; what `kubectl describe` shows.
const COMPONENT: &str = "kubelet";

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    node: String,
}

impl Events {
    /// The sending half, and the receiving half for [`send_events`].
    pub fn new(node: &str) -> (Events, mpsc::Receiver<Event>) {
        let (queue, receiver) = mpsc::channel(EVENT_QUEUE);
        (Events { queue, node: node.to_owned() }, receiver)
    }

    /// Something ordinary happened to a pod or one of its containers.
    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.put(pod_reference(pod, container), "Normal", reason, message);
    }

    /// Something that a person may want to look at.
    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.put(pod_reference(pod, container), "Warning", reason, message);
    }

    /// As [`Events::warning`], for whoever keeps only what the event is about.
    pub fn warning_about(&self, object: ObjectReference, reason: &str, message: &str) {
        self.put(object, "Warning", reason, message);
    }

    /// Something happened to the node.
    pub fn of_node(&self, node: &Node, reason: &str, message: &str) {
        let reference = ObjectReference {
            kind: Some("Node".to_owned()),
            api_version: Some("v1".to_owned()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.put(reference, "Normal", reason, message);
    }

    fn put(&self, object: ObjectReference, kind: &str, reason: &str, message: &str) {
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{}",
                    object.name.as_deref().unwrap_or_default(),
                    &uuid::Uuid::new_v4().simple().to_string()[..16]
                )),
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: object,
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(self.node.clone()) }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, message, "an event is dropped: too many wait");
        }
    }
}

/// What an event of a pod or of one of its containers is about.
pub fn pod_reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field = |name: &str| {
        let is_init = spec::init_containers(pod).iter().any(|c| c.name == name);
        let list = match ephemeral::is_ephemeral(pod, name) {
            true => "ephemeralContainers",
            false if is_init => "initContainers",
            false => "containers",
        };
        format!("spec.{list}{{{name}}}")
    };
    ObjectReference {
        kind: Some("Pod".to_owned()),
        api_version: Some("v1".to_owned()),
        namespace: Some(spec::namespace(pod).to_owned()),
        name: Some(spec::name(pod).to_owned()),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(field),
    }
}

/// What makes two events the same one, seen again.
fn key(event: &Event) -> String {
    let object = &event.involved_object;
    format!(
        "{}/{}/{}/{}",
        object.uid.as_deref().unwrap_or_default(),
        object.field_path.as_deref().unwrap_or_default(),
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default()
    )
}

/// Sends what is queued, one after the other; an event seen again is counted up.
pub async fn send_events(client: Client, mut queue: mpsc::Receiver<Event>) {
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(event) = queue.recv().await {
        if known.len() > EVENT_MEMORY {
            known.clear();
        }
        let (namespace, key) = (event.metadata.namespace.clone().unwrap_or_default(), key(&event));
        if let Some((name, count)) = known.get_mut(&key) {
            let patch = serde_json::json!({"count": *count + 1, "lastTimestamp": event.last_timestamp});
            if client.patch::<Event>(&namespace, name, &Patch::Merge(patch)).await.is_ok() {
                *count += 1;
                continue;
            }
        }
        match client.create(&event).await {
            Ok(created) => {
                known.insert(key, (created.metadata.name.unwrap_or_default(), 1));
            }
            Err(error) => tracing::debug!(%error, "an event was not taken"),
        }
    }
}

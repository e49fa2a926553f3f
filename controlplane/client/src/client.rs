//! One request, one answer.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Binding, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::object::escape;
use crate::transport::{Body, Transport, TransportError, bytes_body};
use crate::{ClientError, Object, collection_path, limits, object_path};

/// The API, by whatever way. Cheap to clone.
///
/// A request that certainly reached no server is sent again a few times. One whose outcome is unknown is not: the caller looks.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

/// Which objects a list holds, and how fresh it is.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only objects with these labels.
    pub labels: Option<String>,
    /// Only objects with these fields.
    pub fields: Option<String>,
    /// What the server's own copy is good enough for: `0` for any, or at least this revision; `None` for the newest.
    pub resource_version: Option<String>,
}

/// The objects of a list.
#[derive(Debug, Clone)]
pub struct Listed<K> {
    /// In the order of their keys.
    pub items: Vec<K>,
    /// The one revision at which all of them stood.
    pub resource_version: String,
}

/// A change of an object, said in one of three ways.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own: lists are merged by their keys.
    Strategic(Value),
}

/// What happens to the objects that an object owns when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// How to delete, and what must still hold.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// How long a pod may take to stop; `None` for what it says itself, 0 for at once.
    pub grace_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of it.
    pub resource_version: Option<String>,
    /// What happens to what it owns.
    pub propagation: Option<Propagation>,
}

impl Client {
    /// A client that sends by `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// Reads one object; `namespace` is empty for kinds without.
    ///
    /// # Errors
    /// [`ClientError`], as of every request here.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<K, ClientError> {
        self.json(Method::GET, &object_path::<K>(namespace, name, ""), None).await
    }

    /// Reads all objects of a kind in `namespace`, or everywhere if it is empty; as many pages as it takes, all of one revision.
    ///
    /// # Errors
    /// [`ClientError`]; expired if the pages' revision was dropped in between: list again.
    pub async fn list<K: Object>(&self, namespace: &str, options: &ListOptions) -> Result<Listed<K>, ClientError> {
        let mut query = format!("?limit={}", limits::PAGE_OBJECTS);
        push_query(&mut query, "labelSelector", options.labels.as_deref());
        push_query(&mut query, "fieldSelector", options.fields.as_deref());
        let mut first = query.clone();
        push_query(&mut first, "resourceVersion", options.resource_version.as_deref());
        let path = collection_path::<K>(namespace);
        let mut page: Page<K> = self.json(Method::GET, &format!("{path}{first}"), None).await?;
        let mut items = std::mem::take(&mut page.items);
        while !page.metadata.continue_token.is_empty() {
            let next = format!("{path}{query}&continue={}", escape(&page.metadata.continue_token));
            page = self.json(Method::GET, &next, None).await?;
            items.append(&mut page.items);
        }
        Ok(Listed { items, resource_version: page.metadata.resource_version })
    }

    /// Creates `object` in its namespace.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        self.json(Method::POST, &collection_path::<K>(namespace), Some(encode(object)?)).await
    }

    /// Replaces an object; conditional if `object` carries a resource version.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn replace<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "").await
    }

    /// Replaces the status of an object, and nothing else of it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn replace_status<K: Object>(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "status").await
    }

    async fn put<K: Object>(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        let key = crate::key_of(object);
        self.json(Method::PUT, &object_path::<K>(&key.namespace, &key.name, subresource), Some(encode(object)?)).await
    }

    /// Patches an object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch<K: Object>(&self, namespace: &str, name: &str, patch: &Patch) -> Result<K, ClientError> {
        self.send_patch::<K>(&object_path::<K>(namespace, name, ""), patch).await
    }

    /// Patches the status of an object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch_status<K: Object>(&self, namespace: &str, name: &str, patch: &Patch) -> Result<K, ClientError> {
        self.send_patch::<K>(&object_path::<K>(namespace, name, "status"), patch).await
    }

    async fn send_patch<K: Object>(&self, path: &str, patch: &Patch) -> Result<K, ClientError> {
        let (content_type, value) = match patch {
            Patch::Json(value) => ("application/json-patch+json", value),
            Patch::Merge(value) => ("application/merge-patch+json", value),
            Patch::Strategic(value) => ("application/strategic-merge-patch+json", value),
        };
        decode(&self.exchange(Method::PATCH, path, content_type, Some(encode(value)?)).await?)
    }

    /// Merges `patch` (RFC 7386) into the object at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, ClientError> {
        decode(&self.exchange(Method::PATCH, path, "application/merge-patch+json", Some(encode(patch)?)).await?)
    }

    /// Deletes an object. It may stay for a while: finalizers, and pods that take their time.
    ///
    /// # Errors
    /// [`ClientError`]; not found if it is gone already.
    pub async fn delete<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), ClientError> {
        let body = encode(&options.body())?;
        self.exchange(Method::DELETE, &object_path::<K>(namespace, name, ""), JSON, Some(body)).await.map(drop)
    }

    /// Posts `body` to a subresource of an object: `binding`, `eviction`, `token`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_subresource<K: Object, B: Serialize, R: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<R, ClientError> {
        self.json(Method::POST, &object_path::<K>(namespace, name, subresource), Some(encode(body)?)).await
    }

    /// Binds the pod with this name and uid to `node`.
    ///
    /// # Errors
    /// [`ClientError`]; a conflict if it is bound already or is another pod of that name.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<(), ClientError> {
        let metadata = ObjectMeta {
            name: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        let target = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let body = encode(&Binding { metadata, target })?;
        let path = object_path::<k8s_openapi::api::core::v1::Pod>(namespace, pod, "binding");
        self.exchange(Method::POST, &path, JSON, Some(body)).await.map(drop)
    }

    /// Sends `request` as it is, once, without a deadline; the answer may be of any code.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn raw(&self, request: Request<Body>) -> Result<Response<Body>, TransportError> {
        self.transport.send(request).await
    }

    /// Sends JSON (or nothing) and reads the JSON that comes back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn json<R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<R, ClientError> {
        decode(&self.exchange(method, path, JSON, body).await?)
    }

    fn exchange(&self, method: Method, path: &str, content_type: &'static str, body: Option<Vec<u8>>) -> Exchange {
        Box::pin(exchange(self.transport.clone(), method, path.to_owned(), content_type, body))
    }
}

type Exchange = BoxFuture<'static, Result<Vec<u8>, ClientError>>;

async fn exchange(
    transport: Arc<dyn Transport>,
    method: Method,
    path: String,
    content_type: &'static str,
    body: Option<Vec<u8>>,
) -> Result<Vec<u8>, ClientError> {
    let body = bytes::Bytes::from(body.unwrap_or_default());
    let mut pause = limits::RESEND_PAUSE;
    for attempt in 0.. {
        let request = Request::builder()
            .method(method.clone())
            .uri(path.as_str())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, JSON)
            .body(bytes_body(body.clone()))
            .map_err(|error| ClientError::Decode(error.to_string()))?;
        let answer = tokio::time::timeout(limits::REQUEST_TIMEOUT, answer(&*transport, request)).await;
        match answer {
            Ok(Err(ClientError::Transport(TransportError::Unreachable(_)))) if attempt < limits::RESENDS => {}
            Ok(answer) => return answer,
            Err(_) => return Err(TransportError::Unknown("there was no answer in time".to_owned()).into()),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    unreachable!("the loop ends by returning")
}

async fn answer(transport: &dyn Transport, request: Request<Body>) -> Result<Vec<u8>, ClientError> {
    read(transport.send(request).await?).await
}

const JSON: &str = "application/json";

/// The body of a good response, or the error that a bad one is.
pub(crate) async fn read(response: Response<Body>) -> Result<Vec<u8>, ClientError> {
    let code = response.status();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| TransportError::Unknown(error.to_string()))?;
        body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if body.len() > limits::BODY_BYTES {
            return Err(ClientError::Decode("it is too long".to_owned()));
        }
    }
    if code.is_success() {
        return Ok(body);
    }
    let mut status = serde_json::from_slice::<Status>(&body).unwrap_or_default();
    status.code = Some(i32::from(code.as_u16()));
    status.message.get_or_insert_with(|| match serde_json::from_slice(&body) {
        Ok(OwnError { error }) => error,
        Err(_) => format!("the server answered {code}: {}", String::from_utf8_lossy(&body)),
    });
    Err(ClientError::Status(Box::new(status)))
}

/// How the servers' own API, beside Kubernetes', says what is wrong.
#[derive(serde::Deserialize)]
struct OwnError {
    error: String,
}

impl DeleteOptions {
    fn body(&self) -> Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(revision) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = revision.as_str().into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = format!("{propagation:?}").into();
        }
        body
    }
}

#[derive(serde::Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct Page<K> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default = "Vec::new", deserialize_with = "null_is_empty")]
    items: Vec<K>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, K: DeserializeOwned>(deserializer: D) -> Result<Vec<K>, D::Error> {
    Ok(<Option<Vec<K>> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn push_query(query: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        query.push_str(if query.is_empty() { "?" } else { "&" });
        query.push_str(name);
        query.push('=');
        query.push_str(&escape(value));
    }
}

fn encode<T: Serialize>(object: &T) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(object).map_err(|error| ClientError::Decode(error.to_string()))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Decode(error.to_string()))
}

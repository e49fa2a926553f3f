//! A watch: a response that does not end, one JSON document after another.
//!
//! Worked example: the bytes `{"type":"ADDED","object":{..}}\n{"ty` are one event and the beginning of another, which waits
//! for the rest.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http::{Request, header};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::client::{push_query, read};
use crate::transport::{Body, TransportError, empty_body};
use crate::{Client, ClientError, ListOptions, Object, collection_path, limits};

/// What a watch says.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K> {
    /// It is there, and was not (or not within the selection).
    Added(K),
    /// It is another than it was.
    Modified(K),
    /// It is gone (or left the selection): its last state, with the revision at which it went.
    Deleted(K),
    /// Nothing else happened up to this revision.
    Bookmark(String),
}

/// The events of a watch, one by one.
pub struct WatchStream<K> {
    body: Body,
    frames: Frames,
    kind: PhantomData<fn() -> K>,
}

impl Client {
    /// Watches the objects of a kind from just after `resource_version` on.
    ///
    /// # Errors
    /// [`ClientError`]; expired if that revision is no longer kept.
    pub async fn watch<K: Object>(
        &self,
        namespace: &str,
        options: &ListOptions,
        resource_version: &str,
    ) -> Result<WatchStream<K>, ClientError> {
        let mut path = collection_path::<K>(namespace);
        path.push_str("?watch=true&allowWatchBookmarks=true");
        let mut query = format!("&timeoutSeconds={}", limits::WATCH_SECONDS);
        push_query(&mut query, "labelSelector", options.labels.as_deref());
        push_query(&mut query, "fieldSelector", options.fields.as_deref());
        push_query(&mut query, "resourceVersion", Some(resource_version));
        path.push_str(&query);
        let request = Request::get(path).header(header::ACCEPT, "application/json").body(empty_body());
        let request = request.map_err(|error| ClientError::Decode(error.to_string()))?;
        let response = tokio::time::timeout(limits::WATCH_OPEN_TIMEOUT, self.raw(request)).await;
        let response =
            response.map_err(|_| TransportError::Unreachable("no answer to a watch in time".to_owned()))??;
        if !response.status().is_success() {
            read(response).await?;
            return Err(ClientError::Decode("a watch was refused without an error".to_owned()));
        }
        Ok(WatchStream { body: response.into_body(), frames: Frames::default(), kind: PhantomData })
    }
}

impl<K: Object> WatchStream<K> {
    /// The next event; `None` when the server ended the watch in good order. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`]: the watch is over. Expired: list again; anything else: watch again from the last revision seen.
    pub async fn next(&mut self) -> Result<Option<WatchEvent<K>>, ClientError> {
        loop {
            if let Some(event) = self.frames.next_event()? {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(limits::WATCH_SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| TransportError::Unknown("a watch fell silent".to_owned()))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(TransportError::Unknown(error.to_string()).into()),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.frames.push(&bytes);
                    }
                }
            }
        }
    }
}

/// Cuts the bytes of a watch into events.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of an event.
    searched: usize,
}

impl Frames {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// [`ClientError`]: an ERROR event, or bytes that are no event.
    pub fn next_event<K: DeserializeOwned>(&mut self) -> Result<Option<WatchEvent<K>>, ClientError> {
        // Events are separated by line ends, and JSON as it is sent here has none within.
        loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.searched > limits::FRAME_BYTES {
                    return Err(ClientError::Decode("an event of a watch is too long".to_owned()));
                }
                return Ok(None);
            };
            let frame = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if !frame.trim_ascii().is_empty() {
                return event(&frame).map(Some);
            }
        }
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata {
    resource_version: String,
}

fn event<K: DeserializeOwned>(frame: &[u8]) -> Result<WatchEvent<K>, ClientError> {
    let raw: Raw<'_> = parse(frame)?;
    let object = raw.object.get().as_bytes();
    Ok(match raw.kind {
        "ADDED" => WatchEvent::Added(parse(object)?),
        "MODIFIED" => WatchEvent::Modified(parse(object)?),
        "DELETED" => WatchEvent::Deleted(parse(object)?),
        "BOOKMARK" => WatchEvent::Bookmark(parse::<Bookmark>(object)?.metadata.resource_version),
        "ERROR" => return Err(ClientError::Status(Box::new(parse::<Status>(object)?))),
        other => return Err(ClientError::Decode(format!("a watch has no event {other:?}"))),
    })
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Decode(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const STREAM: &str = concat!(
        r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#,
        "\n",
        r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"7"}}}"#,
        "\n\n",
        r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired","message":"too old"}}"#,
        "\n"
    );

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut frames = Frames::default();
            let mut events: Vec<WatchEvent<Value>> = Vec::new();
            let mut end = None;
            for chunk in STREAM.as_bytes().chunks(size) {
                frames.push(chunk);
                loop {
                    match frames.next_event() {
                        Ok(Some(event)) => events.push(event),
                        Ok(None) => break,
                        Err(error) => end = Some(error),
                    }
                }
            }
            let added = WatchEvent::Added(json!({"metadata": {"name": "a"}}));
            assert_eq!(events, [added, WatchEvent::Bookmark("7".to_owned())]);
            assert!(end.is_some_and(|error| error.is_expired()));
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let mut frames = Frames::default();
        frames.push(b"what\n");
        assert!(matches!(frames.next_event::<Value>(), Err(ClientError::Decode(_))));
    }
}

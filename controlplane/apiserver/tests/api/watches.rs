//! Watches: nothing is missed, nothing is told twice, selectors turn changes around.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_apiserver::Body;

use crate::support::*;

/// A watch that a test reads event by event.
struct Events {
    body: Body,
    rest: String,
}

impl Events {
    async fn open(api: &Api, path: &str) -> Self {
        let response = api.open(admin(), "GET", path, &[], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Self { body: response.into_body(), rest: String::new() }
    }

    /// The next event; none when the watch is over.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let event = serde_json::from_str(line).expect("an event is JSON");
                self.rest = rest.to_owned();
                return Some(event);
            }
            let frame = self.body.frame().await?.expect("an unbroken body");
            self.rest.push_str(&String::from_utf8_lossy(frame.data_ref().expect("data")));
        }
    }

    /// The type and name of the next event.
    async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let list = api.get(CONFIG_MAPS).await.json;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    api.create(CONFIG_MAPS, config_map("b")).await;
    let mut events = Events::open(&api, &format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!(events.told().await, told("ADDED", "b"));
    api.patch(&format!("{CONFIG_MAPS}/a"), "merge", json!({"data": {"a": "2"}})).await;
    assert_eq!(events.told().await, told("MODIFIED", "a"));
    let before = api.get(&format!("{CONFIG_MAPS}/a")).await.json;
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    let deleted = events.next().await.expect("an event");
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["data"]["a"], "2");
    assert!(version_of(&deleted["object"]) > version_of(&before));
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version is a number")
}

#[tokio::test]
async fn a_selector_turns_changes_into_additions_and_deletions() {
    let api = Api::start().await;
    let mut events = Events::open(&api, &format!("{CONFIG_MAPS}?watch=true&labelSelector=on%3Dyes")).await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");
    api.patch(&path, "merge", json!({"metadata": {"labels": {"on": "yes"}}})).await;
    assert_eq!(events.told().await, told("ADDED", "a"));
    let off = api.patch(&path, "merge", json!({"metadata": {"labels": {"on": "no"}}})).await.json;
    let gone = events.next().await.expect("an event");
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["labels"]["on"]), (&json!("DELETED"), &json!("yes")));
    assert_eq!(version_of(&gone["object"]), version_of(&off));
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let options =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=";
    let mut events = Events::open(&api, &format!("{CONFIG_MAPS}?{options}")).await;
    assert_eq!(events.told().await, told("ADDED", "a"));
    let bookmark = events.next().await.expect("an event");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.create(CONFIG_MAPS, config_map("b")).await;
    assert_eq!(events.told().await, told("ADDED", "b"));

    let refused = api.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!((refused.code, refused.json["reason"].as_str()), (422, Some("Invalid")));
}

#[tokio::test]
async fn a_watch_ends_with_its_time_and_a_bookmark() {
    let api = Api::start().await;
    let mut events =
        Events::open(&api, &format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    assert_eq!(events.next().await.expect("a bookmark")["type"], "BOOKMARK");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_table_watch_defines_its_columns_once() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    api.create(CONFIG_MAPS, config_map("b")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = api.open(admin(), "GET", &format!("{CONFIG_MAPS}?watch=true"), &accept, "").await;
    let mut events = Events { body: response.into_body(), rest: String::new() };
    let first = events.next().await.expect("an event");
    let second = events.next().await.expect("an event");
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(first["object"]["columnDefinitions"].is_array() && second["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn stopping_ends_every_watch() {
    let api = Api::start().await;
    let mut events = Events::open(&api, &format!("{CONFIG_MAPS}?watch=true")).await;
    api.server.stop().await;
    assert!(events.next().await.is_none());
}

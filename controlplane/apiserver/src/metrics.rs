//! `metrics.k8s.io`: what nodes and pods use now, as their agents say when they are asked. Nothing is stored.

use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shoal_api::{Status, metadata};
use shoal_store::View;

use crate::handler::{self, Call};
use crate::negotiate::{self, Form};
use crate::selection::Selection;
use crate::{Body, body, errors, keys, limits, respond, stored};

/// Where Nodes and Pods themselves are stored.
const NODES: &str = "core/nodes";
const PODS: &str = "core/pods";

/// Answers with one or all.
pub(crate) async fn answer(call: &Call, method: &http::Method) -> Result<Response<Body>, Status> {
    if call.target.subresource.is_some() || !call.resource.verbs.contains(&call.target.verb) {
        return Err(handler::not_allowed(call, method));
    }
    negotiate::form(&call.headers, &[Form::Object])?;
    let selection = Selection::parse(call.resource, &call.query)?;
    call.barrier().await?;
    let view = call.store().view();
    let mut items = if call.resource.namespaced { pods(call, &view).await? } else { nodes(call, &view).await? };
    if let Some(name) = &call.target.name {
        let found = items.into_iter().find(|item| metadata::name(item) == Some(name));
        return found.map(|item| respond::value(StatusCode::OK, &item)).ok_or_else(|| call.not_found(name));
    }
    items.retain(|item| selection.matches(item));
    let list = json!({
        "kind": format!("{}List", call.resource.kind),
        "apiVersion": call.resource.api_version(),
        "metadata": {"resourceVersion": view.revision().to_string()},
        "items": items,
    });
    Ok(respond::value(StatusCode::OK, &list))
}

async fn nodes(call: &Call, view: &View) -> Result<Vec<Value>, Status> {
    let nodes = objects(view, &keys::collection(NODES, None))?;
    let wanted = nodes.iter().filter(|node| is_wanted(call, node));
    let asked = wanted.map(|node| async move { (node, summary(call, metadata::name(node).unwrap_or_default()).await) });
    let asked = join_all(asked).await;
    let item = |(node, summary): (&Value, Option<Value>)| {
        let summary = summary?;
        let usage = usage(&summary["node"])?;
        Some(item(call, node, &summary["node"], json!({"usage": usage})))
    };
    Ok(asked.into_iter().filter_map(item).collect())
}

async fn pods(call: &Call, view: &View) -> Result<Vec<Value>, Status> {
    let mut pods = objects(view, &keys::collection(PODS, call.namespace()))?;
    pods.retain(|pod| is_wanted(call, pod));
    let node_of = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut names: Vec<String> = pods.iter().map(node_of).filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    let summaries = join_all(names.iter().map(|name| summary(call, name))).await;
    let mut told = std::collections::HashMap::new();
    for pod in summaries.iter().flatten().flat_map(|summary| summary["pods"].as_array().into_iter().flatten()) {
        if let Some(uid) = pod.pointer("/podRef/uid").and_then(Value::as_str) {
            told.insert(uid, pod);
        }
    }
    let item = |pod: &Value| {
        let said = told.get(metadata::uid(pod)?)?;
        let containers: Vec<Value> = said["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| Some(json!({"name": container["name"], "usage": usage(container)?})))
            .collect();
        let first = said["containers"].get(0)?;
        (!containers.is_empty()).then(|| item(call, pod, first, json!({"containers": containers})))
    };
    Ok(pods.iter().filter_map(item).collect())
}

/// Whether the request is for this object, or for all.
fn is_wanted(call: &Call, object: &Value) -> bool {
    call.target.name.as_deref().is_none_or(|name| metadata::name(object) == Some(name))
}

/// The metrics of `of`, of the moment of `sample`.
fn item(call: &Call, of: &Value, sample: &Value, rest: Value) -> Value {
    let mut own = json!({"name": metadata::name(of), "creationTimestamp": sample["cpu"]["time"]});
    if let Some(namespace) = metadata::namespace(of) {
        own["namespace"] = namespace.into();
    }
    if let Some(labels) = metadata::labels(of) {
        own["labels"] = Value::Object(labels.clone());
    }
    let mut item = json!({
        "kind": call.resource.kind,
        "apiVersion": call.resource.api_version(),
        "metadata": own,
        "timestamp": sample["cpu"]["time"],
        "window": format!("{}s", sample["cpu"]["usageWindowSeconds"]),
    });
    if let (Some(item), Value::Object(rest)) = (item.as_object_mut(), rest) {
        item.extend(rest);
    }
    item
}

/// What a node or container uses, as quantities; none before there are two samples.
fn usage(sample: &Value) -> Option<Value> {
    let (cpu, memory) = (sample["cpu"]["usageNanoCores"].as_u64()?, sample["memory"]["workingSetBytes"].as_u64()?);
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory.div_ceil(1024))}))
}

/// What a node's agent says; none when it cannot be reached, as with a node that is down.
async fn summary(call: &Call, node: &str) -> Option<Value> {
    let request = Request::get("/stats/summary").body(body::empty()).ok()?;
    let asked = async {
        let response = call.shared.config.node_requests.send(node, request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(limits::NODE_SUMMARY, asked).await.ok().flatten()
}

fn objects(view: &View, prefix: &str) -> Result<Vec<Value>, Status> {
    let decode = |entry: &shoal_store::Entry| stored::decode(&entry.value, entry.modified);
    view.range(prefix, None).map(|(_, entry)| decode(entry).map_err(|error| errors::corrupt(&error))).collect()
}

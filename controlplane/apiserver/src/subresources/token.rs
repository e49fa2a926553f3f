//! `serviceaccounts/token`: a token for a service account, for a time, perhaps bound to a pod.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use shoal_api::{FieldError, Status, metadata};
use uuid::Uuid;

use crate::authentication::claims::{Bound, Claims, ISSUER, Reference};
use crate::handler::Call;
use crate::query::WriteOptions;
use crate::verbs::get;
use crate::{Body, decode, errors, keys, limits, object, respond, stored};

/// Issues a token, as the `TokenRequest` in the body asks.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let kind = ("authentication.k8s.io", "v1", "TokenRequest");
    let (mut request, _) = decode::object(
        &call.headers,
        &body,
        Some("io.k8s.api.authentication.v1.TokenRequest"),
        kind,
        options.field_validation,
    )?;
    call.barrier().await?;
    let name = call.name()?;
    let namespace = call.namespace().unwrap_or_default().to_owned();
    let (account, _) = get::current(call, name)?;
    let seconds =
        request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(limits::TOKEN_DEFAULT_SECONDS);
    if !(limits::TOKEN_MIN_SECONDS..=limits::TOKEN_MAX_SECONDS).contains(&seconds) {
        let error = FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes or larger than 2^32 seconds",
        );
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, vec![error]));
    }
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let mut audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let pod = bound_pod(call, &request, &namespace, name)?;
    if let Some(node) = call.user.node() {
        let asked = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
        let asked: Vec<&str> = asked.filter_map(Value::as_str).collect();
        restrict_node(node, &request, pod.as_ref(), &asked)
            .map_err(|message| Status::forbidden("", "serviceaccounts", name, message))?;
    }
    let bound = |pod: &Value| Reference {
        name: metadata::name(pod).unwrap_or_default().to_owned(),
        uid: metadata::uid(pod).unwrap_or_default().to_owned(),
    };
    let node = pod.as_ref().and_then(|pod| node_of(call, pod));
    let now = Timestamp::now().as_second();
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: Uuid::new_v4().to_string(),
        kubernetes: Bound {
            namespace: namespace.clone(),
            serviceaccount: Reference {
                name: name.to_owned(),
                uid: metadata::uid(&account).unwrap_or_default().to_owned(),
            },
            node: node.as_ref().map(bound),
            pod: pod.as_ref().map(bound),
        },
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = call
        .shared
        .config
        .service_account_key
        .sign(&claims)
        .ok_or_else(|| Status::internal("the token could not be signed".to_owned()))?;
    let expires = Timestamp::from_second(claims.exp).map(object::format_time).unwrap_or_default();
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": object::now()});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(respond::value(StatusCode::CREATED, &request))
}

/// The pod that the token is to be bound to, if any; it must be there and use the account.
fn bound_pod(call: &Call, request: &Value, namespace: &str, account: &str) -> Result<Option<Value>, Status> {
    let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|reference| reference.is_object()) else {
        return Ok(None);
    };
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("kind") != "Pod" {
        return Err(Status::bad_request(format!("cannot bind a token to a {:?}: only to a Pod", text("kind"))));
    }
    let name = text("name");
    let entry = call
        .store()
        .view()
        .get(&keys::object("core/pods", Some(namespace), name))
        .cloned()
        .ok_or_else(|| Status::not_found("", "pods", name))?;
    let pod = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
    let uid = metadata::uid(&pod).unwrap_or_default();
    if pod.pointer("/spec/serviceAccountName").and_then(Value::as_str) != Some(account) {
        return Err(Status::bad_request(
            "cannot bind token for serviceaccount to pod running with different serviceaccount name".to_owned(),
        ));
    }
    if !text("uid").is_empty() && text("uid") != uid {
        let message =
            format!("the UID in the bound object reference ({}) does not match the UID in record", text("uid"));
        return Err(Status::conflict("", "pods", name, &message));
    }
    Ok(Some(pod))
}

/// The node that the pod runs on, as far as it is known.
fn node_of(call: &Call, pod: &Value) -> Option<Value> {
    let name = pod.pointer("/spec/nodeName").and_then(Value::as_str)?;
    let entry = call.store().view().get(&keys::object("core/nodes", None, name)).cloned()?;
    stored::decode(&entry.value, entry.modified).ok()
}

/// A node asks for tokens only for its own pods, and for the audiences that their volumes name (Kubernetes: NodeRestriction).
fn restrict_node(node: &str, request: &Value, pod: Option<&Value>, audiences: &[&str]) -> Result<(), String> {
    let pod = pod.ok_or("node requested token not bound to a pod")?;
    let uid = request.pointer("/spec/boundObjectRef/uid").and_then(Value::as_str).unwrap_or_default();
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let sources =
        volumes.flat_map(|volume| volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten());
    let named: Vec<&str> = sources
        .filter_map(|source| source.get("serviceAccountToken"))
        .map(|token| token.get("audience").and_then(Value::as_str).unwrap_or_default())
        .collect();
    let is_named = |audience: &&str| named.contains(audience) || (*audience == ISSUER && named.contains(&""));
    match audiences.iter().find(|audience| !is_named(audience)) {
        Some(audience) => Err(format!(
            "audience {audience:?} not found in pod spec volume, system:node:{node} is not authorized to request tokens for this audience"
        )),
        None => Ok(()),
    }
}

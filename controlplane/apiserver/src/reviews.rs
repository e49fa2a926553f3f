//! The virtual resources: questions about who one is and what one may do. Nothing is stored.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::Status;
use shoal_api::rbac::Rule;

use crate::authentication::claims::ISSUER;
use crate::authentication::token_user;
use crate::authentication::user::User;
use crate::authorization::{self, Attributes};
use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::query::WriteOptions;
use crate::{Body, decode, object, respond};

/// Answers a review.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    negotiate::form(&call.headers, &[Form::Object])?;
    let options = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let resource = call.resource;
    let kind = (resource.group, resource.version, resource.kind);
    let (mut review, warnings) =
        decode::object(&call.headers, &body, Some(resource.schema), kind, options.field_validation)?;
    object::metadata_mut(&mut review).insert("creationTimestamp".to_owned(), Value::Null);
    review["status"] = match resource.plural {
        "selfsubjectaccessreviews" => access(call, &call.user, &review)?,
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            access(call, &subject(&review)?, &local(call, &review)?)?
        }
        "selfsubjectrulesreviews" => rules(call, &review),
        "selfsubjectreviews" => json!({"userInfo": user_info(&call.user)}),
        "tokenreviews" => token(call, &review).await,
        _ => return Err(Status::path_not_found()),
    };
    Ok(respond::with_warnings(respond::value(StatusCode::CREATED, &review), &warnings))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The user that a `SubjectAccessReview` asks about.
fn subject(review: &Value) -> Result<User, Status> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let user = User {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(spec.get("groups")),
        ..User::default()
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(Status::bad_request("spec.user: at least one of user or group must be specified".to_owned()));
    }
    Ok(user)
}

/// A `LocalSubjectAccessReview` asks about its own namespace only.
fn local(call: &Call, review: &Value) -> Result<Value, Status> {
    let Some(namespace) = call.namespace() else { return Ok(review.clone()) };
    let mut review = review.clone();
    let asked = review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
    if asked != namespace {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace: must match metadata.namespace {namespace:?}"
        )));
    }
    object::set_namespace(&mut review, Some(namespace))?;
    Ok(review)
}

fn access(call: &Call, user: &User, review: &Value) -> Result<Value, Status> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let attributes = match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
        (Some(asked), None) => Attributes {
            verb: text(asked, "verb").to_owned(),
            group: text(asked, "group").to_owned(),
            version: text(asked, "version").to_owned(),
            resource: text(asked, "resource").to_owned(),
            subresource: text(asked, "subresource").to_owned(),
            namespace: text(asked, "namespace").to_owned(),
            name: text(asked, "name").to_owned(),
            ..Attributes::default()
        },
        (None, Some(asked)) => Attributes {
            verb: text(asked, "verb").to_owned(),
            path: Some(text(asked, "path").to_owned()),
            ..Attributes::default()
        },
        _ => {
            return Err(Status::bad_request(
                "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified".to_owned(),
            ));
        }
    };
    Ok(json!({"allowed": authorization::allows(&call.shared, user, &attributes)}))
}

fn rules(call: &Call, review: &Value) -> Value {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
    if call.user.is_in("system:masters") {
        return json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        });
    }
    let rules = call
        .shared
        .rbac
        .policy()
        .map(|policy| policy.rules_for(&call.user.name, &call.user.groups, namespace))
        .unwrap_or_default();
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    // What the node authorizer grants is no rule.
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": call.user.node().is_some()})
}

async fn token(call: &Call, review: &Value) -> Value {
    let audiences = texts(review.pointer("/spec/audiences"));
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    match token_user(token, &audiences, &call.shared.config.service_account_key, call.store()).await {
        Ok(claims) => {
            let wanted = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
            let shared: Vec<String> = claims.aud.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
            json!({"authenticated": true, "user": user_info(&claims.user()), "audiences": shared})
        }
        Err(refused) => json!({"authenticated": false, "user": {}, "error": refused.to_string()}),
    }
}

//! Everything that is no resource: health, version, discovery, OpenAPI.

use http::header::{CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_api::{Status, discovery, openapi};

use crate::authentication::claims::ISSUER;
use crate::negotiate::{self, Form};
use crate::query::Query;
use crate::server::Shared;
use crate::{Body, body, limits, respond};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// The Kubernetes version whose API this is.
const KUBERNETES_VERSION: &str = "v1.35.0";

/// Whether anybody may ask for this path.
pub(crate) fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/version" | "/version/")
        || path.starts_with("/livez/")
        || path.starts_with("/readyz/")
}

/// Answers for a path.
///
/// # Errors
/// 404 for a path that does not exist, 405 for another method than GET.
pub(crate) async fn answer(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let response = find(shared, path, query, headers).await?;
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(response)
    } else {
        Err(Status::method_not_allowed("", path, method.as_str()))
    }
}

async fn find(shared: &Shared, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Ok(respond::value(StatusCode::OK, &json!({"paths": paths()}))),
        ["healthz" | "livez"] => Ok(health(&[("ping", true)], query)),
        ["readyz"] => {
            let ready = tokio::time::timeout(limits::NOT_OLDER_THAN, shared.config.store.read_barrier()).await;
            Ok(health(&[("ping", true), ("store", matches!(ready, Ok(Ok(_))))], query))
        }
        ["livez" | "readyz", "ping"] => Ok(text(StatusCode::OK, "ok".to_owned())),
        ["version"] => Ok(respond::value(StatusCode::OK, &version(&shared.config.version))),
        ["api"] => aggregated(headers, || discovery::core_versions(host), discovery::aggregated_core),
        ["apis"] => aggregated(headers, discovery::group_list, discovery::aggregated_groups),
        ["api", version] => found(discovery::resource_list("", version)),
        ["apis", group] => found(discovery::group(group)),
        ["apis", group, version] => found(discovery::resource_list(group, version)),
        ["openapi", "v2"] => Ok(tagged(headers, &openapi::v2())),
        ["openapi", "v3"] => Ok(tagged(headers, &openapi::index())),
        ["openapi", "v3", "api", version] => openapi::document("", version)
            .map_or_else(|| Err(Status::path_not_found()), |document| Ok(tagged(headers, &document))),
        ["openapi", "v3", "apis", group, version] => openapi::document(group, version)
            .map_or_else(|| Err(Status::path_not_found()), |document| Ok(tagged(headers, &document))),
        ["openid", "v1", "jwks"] => Ok(respond::typed(
            StatusCode::OK,
            "application/jwk-set+json",
            shared.config.service_account_key.key_set().to_string(),
        )),
        [".well-known", "openid-configuration"] => Ok(respond::value(StatusCode::OK, &openid())),
        _ => Err(Status::path_not_found()),
    }
}

fn found(document: Option<Value>) -> Result<Response<Body>, Status> {
    document.map(|document| respond::value(StatusCode::OK, &document)).ok_or_else(Status::path_not_found)
}

fn aggregated(
    headers: &HeaderMap,
    plain: impl Fn() -> Value,
    whole: impl Fn() -> Value,
) -> Result<Response<Body>, Status> {
    match negotiate::form(headers, &[Form::Object, Form::AggregatedDiscovery])? {
        Form::AggregatedDiscovery => {
            let mut response = tagged(headers, &whole());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
            Ok(response)
        }
        _ => Ok(respond::value(StatusCode::OK, &plain())),
    }
}

/// A document with an ETag, or 304 for a client that has it.
fn tagged(headers: &HeaderMap, document: &Value) -> Response<Body> {
    let text = document.to_string();
    let tag: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(tag.as_str());
    let mut response = respond::json_text(StatusCode::OK, text);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = body::empty();
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    respond::typed(code, "text/plain; charset=utf-8", text)
}

/// The outcome of the checks: `ok`, or each check when one failed or the client asks for all.
fn health(checks: &[(&str, bool)], query: &Query) -> Response<Body> {
    let passed = checks.iter().all(|(_, passed)| *passed);
    if passed && !query.has("verbose") {
        return text(StatusCode::OK, "ok".to_owned());
    }
    let mut lines: String = checks
        .iter()
        .map(|(name, passed)| if *passed { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") })
        .collect();
    lines.push_str(if passed { "check passed\n" } else { "check failed\n" });
    text(if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

fn version(own: &str) -> Value {
    json!({
        "major": "1", "minor": "35", "gitVersion": format!("{KUBERNETES_VERSION}+shoal.{own}"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn openid() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for resource in shoal_api::resource::resources() {
        if resource.group.is_empty() {
            paths.push(format!("/api/{}", resource.version));
        } else {
            paths.push(format!("/apis/{}", resource.group));
            paths.push(format!("/apis/{}/{}", resource.group, resource.version));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

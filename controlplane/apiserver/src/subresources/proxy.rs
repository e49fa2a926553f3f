//! `pods/proxy` and `services/proxy`: a request of HTTP to what answers in a pod, through this server and the pod's node.
//!
//! The name in the path says which port: `POD[:PORT]`, `SERVICE[:PORT]`, each with `http:` before it. The method, the path
//! behind `proxy`, the query and the body go as they came, and the answer comes back as it is, redirects too; what holds for
//! one connection, and what the client shows to this server alone, is taken off. TLS to a pod is not spoken.

use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;
use shoal_api::Status;
use uuid::Uuid;

use crate::handler::Call;
use crate::request::behind;
use crate::verbs::get;
use crate::{Body, body, errors, keys, stored};

/// What holds for one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How many segments of the path are before what is asked of the pod: `/api/v1/namespaces/N/pods/P/proxy`.
const SEGMENTS: usize = 7;

/// Who is asked: a pod, by the number of a port of its own.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    node: String,
    pod: String,
    port: u16,
}

/// Passes the request on.
pub(crate) async fn answer(call: &Call, method: &Method, body: Body) -> Result<Response<Body>, Status> {
    call.barrier().await?;
    let id = call.name()?;
    let (name, port) = name_and_port(id)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {id:?}", call.resource.singular)))?;
    let asked = if call.resource.plural == "pods" { pod(call, name, port)? } else { service(call, id, name, port)? };
    let path = behind(call.uri.path(), SEGMENTS);
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if path.is_empty() && matches!(*method, Method::GET | Method::HEAD) {
        return redirect(&format!("{}/{query}", call.uri.path()));
    }
    let path = if path.is_empty() { "/" } else { path };
    let namespace = call.namespace().unwrap_or_default();
    let Asked { node, pod, port } = asked;
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/proxy/{namespace}/{pod}/{port}{path}{query}"))
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    *request.headers_mut() = forwarded(&call.headers, call.uri.path());
    let answered = call.shared.config.node_requests.send(&node, request).await;
    let mut response = answered.map_err(|error| errors::node(&error))?;
    strip(response.headers_mut());
    Ok(response)
}

/// Takes `http:NAME:PORT`, `NAME:PORT` or `NAME` apart; none if it is neither, or asks for TLS.
fn name_and_port(id: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    match parts.as_slice() {
        [name] if !name.is_empty() => Some((name, "")),
        [name, port] if !name.is_empty() => Some((name, port)),
        ["" | "http", name, port] if !name.is_empty() => Some((name, port)),
        _ => None,
    }
}

fn pod(call: &Call, name: &str, port: &str) -> Result<Asked, Status> {
    let (pod, _) = get::current(call, name)?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    let port = pod_port(&pod, port)
        .ok_or_else(|| Status::bad_request(format!("pod {name} has no port {port:?}: name one, or its number")))?;
    Ok(Asked { node: node.to_owned(), pod: name.to_owned(), port })
}

/// The port that is meant: a number, a name, or else the first that a container has, or 80.
fn pod_port(pod: &Value, wanted: &str) -> Option<u16> {
    if let Ok(number) = wanted.parse::<u16>() {
        return Some(number).filter(|number| *number > 0);
    }
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| wanted.is_empty() || port["name"] == wanted);
    match found {
        Some(port) => port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok()),
        None => Some(80).filter(|_| wanted.is_empty()),
    }
}

fn service(call: &Call, id: &str, name: &str, port: &str) -> Result<Asked, Status> {
    let (service, _) = get::current(call, name)?;
    let port_name = match port.parse::<u64>() {
        Err(_) => port.to_owned(),
        Ok(number) => {
            let mut ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
            let found = ports.find(|port| port["port"] == number).ok_or_else(|| {
                Status::service_unavailable(format!("no service port {number} found for service {name:?}"))
            })?;
            found["name"].as_str().unwrap_or_default().to_owned()
        }
    };
    let prefix = keys::collection("discovery.k8s.io/endpointslices", call.namespace());
    let view = call.store().view();
    let slices = view.range(&prefix, None).filter_map(|(_, entry)| stored::decode(&entry.value, entry.modified).ok());
    let slices = slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name);
    let mut ready: Vec<Asked> = slices.flat_map(|slice| endpoints(&slice, &port_name)).collect();
    if ready.is_empty() {
        return Err(Status::service_unavailable(format!("no endpoints available for service {id:?}")));
    }
    let chosen = usize::try_from(Uuid::new_v4().as_u128() % ready.len() as u128).unwrap_or_default();
    Ok(ready.swap_remove(chosen))
}

/// The pods of a slice that take connections at the port of that name.
fn endpoints(slice: &Value, port_name: &str) -> Vec<Asked> {
    let list = |field: &str| slice[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_it = |port: &&Value| port["name"].as_str().unwrap_or_default() == port_name && port["protocol"] != "UDP";
    let port = list("ports").iter().find(is_it).and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
    let Some(port) = port else { return Vec::new() };
    let ready = list("endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
    ready
        .filter_map(|endpoint| {
            let pod = endpoint["targetRef"]["name"].as_str().filter(|_| endpoint["targetRef"]["kind"] == "Pod")?;
            Some(Asked { node: endpoint["nodeName"].as_str()?.to_owned(), pod: pod.to_owned(), port })
        })
        .collect()
}

/// Where relative links in the answer lead to the pod and not beside it.
fn redirect(to: &str) -> Result<Response<Body>, Status> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = HeaderValue::from_str(to).map_err(|error| Status::bad_request(error.to_string()))?;
    response.headers_mut().insert(LOCATION, to);
    Ok(response)
}

/// The headers that the pod gets: who the client is to this server is not for it.
fn forwarded(headers: &HeaderMap, path: &str) -> HeaderMap {
    let mut forwarded = headers.clone();
    strip(&mut forwarded);
    let own: Vec<HeaderName> =
        forwarded.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in own.iter().chain(&[AUTHORIZATION]) {
        forwarded.remove(name);
    }
    let host = forwarded.remove(HOST);
    let mut set = |name: &'static str, value: Option<HeaderValue>| match value {
        Some(value) => drop(forwarded.insert(name, value)),
        None => drop(forwarded.remove(name)),
    };
    set("x-forwarded-host", host);
    set("x-forwarded-proto", Some(HeaderValue::from_static("https")));
    set("x-forwarded-uri", HeaderValue::from_str(path).ok());
    forwarded
}

/// Takes off what holds for one connection only.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_may_say_the_port() {
        assert_eq!(name_and_port("hello"), Some(("hello", "")));
        assert_eq!(name_and_port("hello:80"), Some(("hello", "80")));
        assert_eq!(name_and_port("http:hello:web"), Some(("hello", "web")));
        for bad in ["", ":80", "https:hello:443", "a:b:c:d"] {
            assert_eq!(name_and_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pod_s_port_is_a_number_a_name_or_the_first() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}, {"name": "web", "containerPort": 81}]}]}});
        assert_eq!(pod_port(&pod, "9"), Some(9));
        assert_eq!(pod_port(&pod, "web"), Some(81));
        assert_eq!(pod_port(&pod, ""), Some(8080));
        assert_eq!((pod_port(&pod, "no"), pod_port(&pod, "0")), (None, None));
        assert_eq!(pod_port(&json!({}), ""), Some(80));
    }

    #[test]
    fn only_ready_pods_are_asked() {
        let endpoint = |pod: &str, ready: Value| json!({"targetRef": {"kind": "Pod", "name": pod}, "nodeName": "n1", "conditions": {"ready": ready}});
        let slice = json!({"ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [endpoint("a", json!(true)), endpoint("b", json!(false)), endpoint("c", Value::Null), {"nodeName": "n1"}]});
        let asked: Vec<String> = endpoints(&slice, "web").into_iter().map(|asked| asked.pod).collect();
        assert_eq!(asked, ["a", "c"]);
        assert!(endpoints(&slice, "dns").is_empty() && endpoints(&slice, "").is_empty());
    }
}

//! What a request asks for, read from its method, path and query alone.
//!
//! `GET /apis/apps/v1/namespaces/web/deployments/front/scale` becomes verb `get`, group `apps`, version `v1`,
//! namespace `web`, resource `deployments`, name `front`, subresource `scale`. Everything else is a path to authorize
//! as it stands. Source of the rules: "Determine the request verb" in Kubernetes' authorization pages.

use http::Method;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A resource, a collection or a subresource.
    Resource(ResourceTarget),
    /// Any other path: discovery, health, OpenAPI.
    Path(String),
}

/// A resource request, parsed. Names are as sent, percent-decoded, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceTarget {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    pub resource: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

/// The most segments before a proxied path: `/api/v1/namespaces/N/pods/P/proxy`.
const PROXIED: usize = 7;

/// What is behind so many segments of a path, with its slash; empty if that is all of it.
pub(crate) fn behind(path: &str, segments: usize) -> &str {
    path.match_indices('/').nth(segments).map_or("", |(at, _)| &path[at..])
}

/// Reads what is asked for. `watch` says whether the query holds a true `watch`.
pub(crate) fn parse(method: &Method, path: &str, watch: bool) -> Target {
    let other = || Target::Path(path.to_owned());
    let segments: Vec<String> = path.split('/').skip(1).map(percent_decode).collect();
    // A trailing slash is the same resource; an empty segment elsewhere is no resource path.
    let mut rest: &[String] = &segments;
    while let [head @ .., last] = rest
        && last.is_empty()
    {
        rest = head;
    }
    // What is behind `proxy` is no business of ours.
    if rest.iter().take(PROXIED).any(String::is_empty) {
        return other();
    }
    let (group, version, tail) = match rest {
        [api, version, tail @ ..] if api == "api" && !tail.is_empty() => ("", version.as_str(), tail),
        [apis, group, version, tail @ ..] if apis == "apis" && !tail.is_empty() => {
            (group.as_str(), version.as_str(), tail)
        }
        _ => return other(),
    };
    let (namespace, tail) = split_namespace(tail);
    let Some((resource, tail)) = tail.split_first() else { return other() };
    let name = tail.first().cloned();
    let subresource = tail.get(1).cloned();
    let Some(verb) = verb(method, name.is_some(), watch) else { return other() };
    Target::Resource(ResourceTarget {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        resource: resource.clone(),
        name,
        subresource,
    })
}

/// `namespaces/web/pods` is in a namespace; `namespaces/web` and `namespaces/web/status` are the namespace itself.
fn split_namespace(tail: &[String]) -> (Option<String>, &[String]) {
    match tail {
        [namespaces, namespace, third, ..]
            if namespaces == "namespaces" && !["status", "finalize"].contains(&third.as_str()) =>
        {
            (Some(namespace.clone()), &tail[2..])
        }
        // Authorization names the namespace of a request for the namespace object as well.
        [namespaces, namespace, ..] if namespaces == "namespaces" => (Some(namespace.clone()), tail),
        _ => (None, tail),
    }
}

fn verb(method: &Method, named: bool, watch: bool) -> Option<&'static str> {
    Some(match (method.as_str(), named) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if watch => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    })
}

/// Decodes `%XX`; anything malformed stays as it is.
pub(crate) fn percent_decode(text: impl AsRef<str>) -> String {
    let bytes = text.as_ref().as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        if bytes[at] == b'%'
            && let (Some(high), Some(low)) =
                (bytes.get(at + 1).copied().and_then(hex), bytes.get(at + 2).copied().and_then(hex))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The method's upper-case verb for logs and for paths that are no resource.
pub(crate) fn path_verb(method: &Method) -> String {
    method.as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(method: &Method, path: &str) -> ResourceTarget {
        match parse(method, path, false) {
            Target::Resource(target) => target,
            Target::Path(path) => panic!("{path} is no resource"),
        }
    }

    #[test]
    fn a_namespaced_subresource_is_taken_apart() {
        let target = resource(&Method::PATCH, "/apis/apps/v1/namespaces/web/deployments/front/scale");
        assert_eq!(target.verb, "patch");
        assert_eq!((target.group.as_str(), target.version.as_str()), ("apps", "v1"));
        assert_eq!(target.namespace.as_deref(), Some("web"));
        assert_eq!(target.resource, "deployments");
        assert_eq!(target.name.as_deref(), Some("front"));
        assert_eq!(target.subresource.as_deref(), Some("scale"));
    }

    #[test]
    fn a_namespace_is_a_resource_and_not_a_prefix() {
        let target = resource(&Method::GET, "/api/v1/namespaces/web");
        assert_eq!((target.resource.as_str(), target.name.as_deref()), ("namespaces", Some("web")));
        let target = resource(&Method::PUT, "/api/v1/namespaces/web/finalize");
        assert_eq!((target.resource.as_str(), target.subresource.as_deref()), ("namespaces", Some("finalize")));
        let target = resource(&Method::GET, "/api/v1/namespaces");
        assert_eq!((target.verb, target.resource.as_str()), ("list", "namespaces"));
    }

    #[test]
    fn discovery_and_health_are_paths() {
        for path in ["/api", "/api/v1", "/apis/apps/v1", "/healthz", "/", "/openapi/v3/apis/apps/v1"] {
            assert_eq!(parse(&Method::GET, path, false), Target::Path(path.to_owned()), "{path}");
        }
    }

    #[test]
    fn a_proxied_path_is_left_as_it_is() {
        let path = "/api/v1/namespaces/web/pods/front:80/proxy/a//b%2Fc/";
        let target = resource(&Method::POST, path);
        assert_eq!((target.verb, target.name.as_deref()), ("create", Some("front:80")));
        assert_eq!(target.subresource.as_deref(), Some("proxy"));
        assert_eq!(behind(path, 7), "/a//b%2Fc/");
        assert_eq!(behind("/api/v1/namespaces/web/pods/front/proxy", 7), "");
        assert_eq!(behind("/api/v1/nodes/n1/proxy/metrics", 5), "/metrics");
    }

    #[test]
    fn names_are_percent_decoded() {
        let target = resource(&Method::GET, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(target.name.as_deref(), Some("system:node"));
    }
}

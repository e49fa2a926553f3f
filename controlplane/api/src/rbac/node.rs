//! What a node may do: what its pods need, and nothing of its neighbours'.
//!
//! A node is the user `system:node:NAME` in the group `system:nodes`. It may read what every node needs (services,
//! slices, namespaces, nodes), write its own Node, Lease, its pods' status and events, and read a ConfigMap, Secret,
//! ServiceAccount or PersistentVolumeClaim only while a pod bound to it refers to it. Whether a status that it writes is its own pod's is
//! decided here by name; what the object may hold is for admission.

use serde_json::Value;

use super::Attributes;
use crate::metadata;

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The node that the user is, if it is one.
pub fn node_name<'a>(user: &'a str, groups: &[String]) -> Option<&'a str> {
    let name = user.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty())?;
    groups.iter().any(|group| group == NODES).then_some(name)
}

/// Whether the node may do this. `pods` gives the pods that it may concern (any that are not bound to it are ignored), and is
/// only asked for when the answer depends on them, one after the other until one is found.
pub fn may<P>(node: &str, request: &Attributes<'_>, pods: impl FnOnce() -> P) -> bool
where
    P: IntoIterator<Item = Value>,
{
    if let Some(path) = request.path {
        return request.verb == "get" && is_public(path);
    }
    let reads = matches!(request.verb, "get" | "list" | "watch");
    let own = request.name == node;
    match (request.group, request.resource, request.subresource) {
        ("", "nodes", "") => reads || request.verb == "create" || (own && matches!(request.verb, "update" | "patch")),
        ("", "nodes", "status") => own && matches!(request.verb, "get" | "update" | "patch"),
        ("", "pods", "") if reads => true,
        // Only mirrors of its own static pods: admission looks at the object.
        ("", "pods", "") if request.verb == "create" => true,
        ("", "pods", "" | "status" | "eviction") => may_change_pod(node, request, pods),
        ("", "services" | "endpoints" | "namespaces", "") | ("discovery.k8s.io", "endpointslices", "") => reads,
        ("" | "events.k8s.io", "events", "") => matches!(request.verb, "create" | "update" | "patch"),
        ("coordination.k8s.io", "leases", "") => may_use_lease(node, request),
        ("", "configmaps" | "secrets" | "serviceaccounts" | "persistentvolumeclaims", "") => {
            reads && !request.name.is_empty() && own_pods(node, pods()).any(|pod| refers_to(&pod, request))
        }
        ("", "serviceaccounts", "token") => {
            request.verb == "create" && own_pods(node, pods()).any(|pod| refers_to(&pod, request))
        }
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews", "")
        | ("authentication.k8s.io", "selfsubjectreviews" | "tokenreviews", "") => request.verb == "create",
        _ => false,
    }
}

fn is_public(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn may_change_pod<P: IntoIterator<Item = Value>>(
    node: &str,
    request: &Attributes<'_>,
    pods: impl FnOnce() -> P,
) -> bool {
    let verb = matches!(
        (request.subresource, request.verb),
        ("", "delete") | ("status", "get" | "update" | "patch") | ("eviction", "create")
    );
    verb && own_pods(node, pods())
        .any(|pod| metadata::namespace(&pod) == Some(request.namespace) && metadata::name(&pod) == Some(request.name))
}

fn may_use_lease(node: &str, request: &Attributes<'_>) -> bool {
    request.namespace == LEASES
        && match request.verb {
            // The name of what is created is in the body; admission compares it.
            "create" => request.name.is_empty() || request.name == node,
            "get" | "update" | "patch" | "delete" => request.name == node,
            _ => false,
        }
}

fn own_pods(node: &str, pods: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Value> {
    pods.into_iter().filter(move |pod| pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node))
}

fn refers_to(pod: &Value, request: &Attributes<'_>) -> bool {
    if metadata::namespace(pod) != Some(request.namespace) {
        return false;
    }
    let Some(spec) = pod.get("spec") else { return false };
    match request.resource {
        "persistentvolumeclaims" => items(spec, "volumes").iter().any(|volume| is_claim(pod, volume, request.name)),
        "serviceaccounts" => spec.get("serviceAccountName").and_then(Value::as_str) == Some(request.name),
        "configmaps" => {
            names_in(spec, "configMap", "configMapRef", "configMapKeyRef", &[]).any(|name| name == request.name)
        }
        _ => names_in(spec, "secret", "secretRef", "secretKeyRef", items(spec, "imagePullSecrets"))
            .any(|name| name == request.name),
    }
}

/// Whether a volume of the pod is this claim: one that it names, or the one that is made for it.
fn is_claim(pod: &Value, volume: &Value, claim: &str) -> bool {
    let text = |pointer: &str| volume.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if volume.get("ephemeral").is_some() {
        return format!("{}-{}", metadata::name(pod).unwrap_or_default(), text("/name")) == claim;
    }
    text("/persistentVolumeClaim/claimName") == claim
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The names of the ConfigMaps or Secrets in volumes, projections, `envFrom` and `env`, and in `others` by `name`.
fn names_in<'a>(
    spec: &'a Value,
    volume: &'a str,
    env_from: &'a str,
    env: &'a str,
    others: &'a [Value],
) -> impl Iterator<Item = &'a str> {
    let volumes = items(spec, "volumes").iter().flat_map(move |item| {
        let own = item.get(volume).into_iter();
        let projected = item.get("projected").map_or(&[][..], |projected| items(projected, "sources"));
        own.chain(projected.iter().filter_map(move |source| source.get(volume)))
    });
    let containers =
        ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(move |field| items(spec, field));
    let variables = containers.flat_map(move |container| {
        let whole = items(container, "envFrom").iter().filter_map(move |item| item.get(env_from));
        let single = items(container, "env").iter().filter_map(move |item| item.get("valueFrom")?.get(env));
        whole.chain(single)
    });
    let named = volumes.chain(variables).chain(others);
    named.filter_map(|item| item.get("secretName").or_else(|| item.get("name")).and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn may_n1(verb: &str, what: &str, namespace: &str, name: &str) -> bool {
        let pods = [
            json!({"metadata": {"name": "mine", "namespace": "d"}, "spec": {"nodeName": "n1", "serviceAccountName": "sa",
                "volumes": [{"configMap": {"name": "c1"}}, {"secret": {"secretName": "s1"}}, {"projected": {"sources": [{"configMap": {"name": "c3"}}]}}],
                "imagePullSecrets": [{"name": "s4"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "c2"}}]}]}}),
            json!({"metadata": {"name": "theirs", "namespace": "d"}, "spec": {"nodeName": "n2", "volumes": [{"secret": {"secretName": "s9"}}]}}),
        ];
        let (group, what) = what.rsplit_once(':').unwrap_or(("", what));
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        may("n1", &Attributes { verb, group, resource, subresource, namespace, name, ..Attributes::default() }, || pods)
    }

    #[test]
    fn secrets_are_read_only_where_a_pod_refers_to_them() {
        for name in ["s1", "s2", "s4"] {
            assert!(may_n1("get", "secrets", "d", name), "{name}");
            assert!(!may_n1("get", "secrets", "e", name), "{name}");
            assert!(!may_n1("update", "secrets", "d", name), "{name}");
        }
        assert!(!may_n1("get", "secrets", "d", "s9"));
        assert!(!may_n1("list", "secrets", "d", ""));
        for name in ["c1", "c2", "c3"] {
            assert!(may_n1("get", "configmaps", "d", name), "{name}");
        }
        assert!(!may_n1("get", "configmaps", "d", "s1"));
    }

    #[test]
    fn claims_are_read_only_where_a_pod_has_them() {
        let pods = [json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"nodeName": "n1", "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "scratch", "ephemeral": {}}]}})];
        let may_read = |node: &str, verb: &str, name: &str| {
            let resource = "persistentvolumeclaims";
            may(node, &Attributes { verb, resource, namespace: "d", name, ..Attributes::default() }, || pods.clone())
        };
        assert!(may_read("n1", "get", "data") && may_read("n1", "get", "web-scratch"));
        assert!(!may_read("n2", "get", "data") && !may_read("n1", "get", "other") && !may_read("n1", "get", ""));
        assert!(!may_read("n1", "update", "data") && !may_read("n1", "delete", "data"));
    }

    #[test]
    fn a_node_writes_about_itself_alone() {
        assert!(may_n1("create", "nodes", "", ""));
        assert!(may_n1("patch", "nodes/status", "", "n1"));
        assert!(!may_n1("patch", "nodes/status", "", "n2"));
        assert!(!may_n1("delete", "nodes", "", "n1"));
        assert!(may_n1("update", "coordination.k8s.io:leases", "kube-node-lease", "n1"));
        assert!(!may_n1("update", "coordination.k8s.io:leases", "kube-node-lease", "n2"));
        assert!(!may_n1("update", "coordination.k8s.io:leases", "kube-system", "n1"));
    }

    #[test]
    fn a_node_reports_and_deletes_its_own_pods() {
        assert!(may_n1("update", "pods/status", "d", "mine"));
        assert!(may_n1("delete", "pods", "d", "mine"));
        assert!(!may_n1("update", "pods/status", "d", "theirs"));
        assert!(!may_n1("delete", "pods", "d", "theirs"));
        assert!(!may_n1("update", "pods", "d", "mine"));
        assert!(may_n1("create", "pods", "d", ""));
        assert!(may_n1("watch", "services", "", ""));
        assert!(may_n1("watch", "namespaces", "", "") && !may_n1("patch", "namespaces", "", "d"));
        assert!(!may_n1("list", "rbac.authorization.k8s.io:roles", "", ""));
    }

    #[test]
    fn only_a_member_of_the_group_is_a_node() {
        assert_eq!(node_name("system:node:a", &[NODES.to_owned()]), Some("a"));
        assert_eq!(node_name("system:node:a", &[]), None);
        assert_eq!(node_name("a", &[NODES.to_owned()]), None);
    }
}

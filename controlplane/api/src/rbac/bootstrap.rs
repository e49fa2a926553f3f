//! The RBAC objects that every cluster is born with: Kubernetes' default roles, as far as our resources go.

use serde_json::{Value, json};

use super::Rule;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
/// What a viewer sees of the core group: everything in a namespace but Secrets.
const CORE_VIEWED: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "namespaces",
    "namespaces/status",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "serviceaccounts",
    "services",
    "services/status",
    "limitranges",
    "resourcequotas",
];
const CORE_EDITED: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "secrets",
    "serviceaccounts",
    "services",
];
const CORE_SUBRESOURCES: &[&str] = &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"];
const APPS: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
    "controllerrevisions",
];
const APPS_STATUS: &[&str] = &["daemonsets/status", "deployments/status", "replicasets/status", "statefulsets/status"];
const BATCH: &[&str] = &["cronjobs", "jobs"];
/// The group of what the registry has, for the rules that say who may push.
pub const REGISTRY: &str = "registry.shoal.dev";
/// Its resource: the images of a repository, which is its name.
pub const IMAGES: &str = "images";
/// The verb for pushing and deleting.
pub const PUSH: &str = "push";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Every ClusterRole and ClusterRoleBinding of a new cluster, without uid and time.
pub fn bootstrap() -> Vec<Value> {
    let mut objects = roles();
    objects.extend([
        binding("cluster-admin", "system:masters"),
        binding("system:basic-user", "system:authenticated"),
        binding("system:discovery", "system:authenticated"),
        binding("system:public-info-viewer", "system:authenticated"),
        add_group(binding("system:public-info-viewer", "system:unauthenticated"), "system:authenticated"),
    ]);
    // The two bindings of one name are one object: the later, which holds both groups.
    let mut seen = std::collections::BTreeSet::new();
    objects.reverse();
    objects.retain(|object| seen.insert((object["kind"].to_string(), object["metadata"]["name"].to_string())));
    objects.reverse();
    objects
}

fn roles() -> Vec<Value> {
    let paths =
        |verbs: &[&str], urls: &[&str]| Rule { verbs: own(verbs), non_resource_urls: own(urls), ..Rule::default() };
    vec![
        role("cluster-admin", vec![rule(&["*"], "*", &["*"]), paths(&["*"], &["*"])]),
        role("admin", admin()),
        role("edit", edit()),
        role("view", view()),
        role("shoal:image-pusher", vec![rule(&[PUSH], REGISTRY, &[IMAGES])]),
        role(
            "system:basic-user",
            vec![
                rule(&["create"], "authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                rule(&["create"], "authentication.k8s.io", &["selfsubjectreviews"]),
            ],
        ),
        role(
            "system:discovery",
            vec![paths(
                &["get"],
                &[
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                    "/healthz",
                    "/livez",
                    "/openapi",
                    "/openapi/*",
                    "/readyz",
                    "/version",
                    "/version/",
                ],
            )],
        ),
        role(
            "system:public-info-viewer",
            vec![paths(&["get"], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        role("system:node", node()),
        role(
            "system:auth-delegator",
            vec![
                rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
                rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:kube-scheduler",
            vec![
                rule(READ, "", &["nodes", "pods", "persistentvolumes", "persistentvolumeclaims"]),
                rule(READ, "storage.k8s.io", &["storageclasses"]),
                rule(&["create"], "", &["pods/binding", "bindings"]),
            ],
        ),
    ]
}

fn view() -> Vec<Rule> {
    vec![
        rule(READ, "", CORE_VIEWED),
        rule(READ, "apps", &[APPS, APPS_STATUS].concat()),
        rule(READ, "batch", BATCH),
        rule(READ, "autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        rule(READ, "policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        rule(READ, "networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "events.k8s.io", &["events"]),
    ]
}

fn edit() -> Vec<Rule> {
    let mut rules = view();
    rules.extend([
        rule(READ, "", &[&["secrets"], CORE_SUBRESOURCES].concat()),
        rule(WRITE, "", &[CORE_EDITED, CORE_SUBRESOURCES].concat()),
        rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(WRITE, "apps", APPS),
        rule(WRITE, "batch", BATCH),
        rule(WRITE, "autoscaling", &["horizontalpodautoscalers"]),
        rule(WRITE, "policy", &["poddisruptionbudgets"]),
        rule(WRITE, "networking.k8s.io", &["ingresses", "networkpolicies"]),
        rule(&[READ, WRITE].concat(), "coordination.k8s.io", &["leases"]),
    ]);
    rules
}

fn admin() -> Vec<Rule> {
    let mut rules = edit();
    rules.extend([
        rule(&[READ, WRITE].concat(), RBAC, &["rolebindings", "roles"]),
        rule(&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
    ]);
    rules
}

/// For the record, as in Kubernetes: nodes are not bound to it, they are judged by [`super::node`].
fn node() -> Vec<Rule> {
    vec![
        rule(READ, "", &["services", "endpoints", "namespaces", "nodes", "pods"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(&["create", "patch", "update"], "", &["nodes", "nodes/status", "pods/status", "events"]),
        rule(&["delete"], "", &["pods"]),
        rule(
            &["get"],
            "",
            &["configmaps", "secrets", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims"],
        ),
        rule(&["create", "delete", "get", "patch", "update"], "coordination.k8s.io", &["leases"]),
    ]
}

fn own(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Rule {
    Rule { verbs: own(verbs), api_groups: own(&[group]), resources: own(resources), ..Rule::default() }
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
           "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

fn role(name: &str, rules: Vec<Rule>) -> Value {
    let rules: Vec<Value> = rules.into_iter().map(|rule| json!(rule)).collect();
    json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata(name), "rules": rules})
}

fn binding(name: &str, group: &str) -> Value {
    json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata(name),
           "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
           "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}]})
}

fn add_group(mut binding: Value, group: &str) -> Value {
    if let Some(subjects) = binding["subjects"].as_array_mut() {
        subjects.push(json!({"apiGroup": RBAC, "kind": "Group", "name": group}));
    }
    binding
}

#[cfg(test)]
mod tests {
    use super::super::{Attributes, Policy};
    use super::*;
    use crate::resource;

    fn may(groups: &[&str], request: Attributes<'_>) -> bool {
        let groups = own(groups);
        Policy::from_objects(&bootstrap()).authorize(&Attributes { user: "u", groups: &groups, ..request }).is_allowed()
    }

    #[test]
    fn anonymous_users_see_health_and_version_alone() {
        let get = |path| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        assert!(may(&["system:unauthenticated"], get("/healthz")) && may(&["system:unauthenticated"], get("/version")));
        assert!(
            !may(&["system:unauthenticated"], get("/apis")) && may(&["system:authenticated"], get("/apis/apps/v1"))
        );
        assert!(!may(
            &["system:authenticated"],
            Attributes { verb: "list", resource: "pods", ..Attributes::default() }
        ));
    }

    #[test]
    fn the_objects_are_valid_and_named_once() {
        let objects = bootstrap();
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            let row = resource::find_kind(RBAC, "v1", kind).unwrap();
            assert_eq!(row.strategy.validate_create(object), vec![], "{}", object["metadata"]["name"]);
            assert_eq!(
                objects
                    .iter()
                    .filter(|other| other["kind"] == kind && other["metadata"]["name"] == object["metadata"]["name"])
                    .count(),
                1
            );
        }
    }

    #[test]
    fn a_viewer_sees_no_secrets_and_an_editor_writes_no_roles() {
        let rules = |name: &str| {
            Rule::of(
                bootstrap()
                    .iter()
                    .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name)
                    .unwrap(),
            )
        };
        let allows = |role: &str, verb: &str, group: &str, resource: &str| {
            rules(role)
                .iter()
                .any(|rule| rule.allows(&Attributes { verb, group, resource, namespace: "d", ..Attributes::default() }))
        };
        assert!(!allows("view", "get", "", "secrets") && allows("edit", "get", "", "secrets"));
        assert!(!allows("edit", "create", RBAC, "roles") && allows("admin", "create", RBAC, "roles"));
        assert!(allows("edit", "patch", "apps", "deployments") && !allows("view", "patch", "apps", "deployments"));
    }
}

//! All roles and bindings together: which rules a user holds where, and so whether a request is allowed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Attributes, Decision, Rule};
use crate::metadata;
use crate::selector::LabelSelector;

/// The group whose members may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

/// The RBAC objects, indexed. Built anew when one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// By namespace (empty for ClusterRoles) and name.
    roles: BTreeMap<(String, String), Vec<Rule>>,
    /// By namespace, empty for ClusterRoleBindings.
    bindings: BTreeMap<String, Vec<Binding>>,
}

#[derive(Clone, Debug)]
struct Binding {
    name: String,
    /// The namespace (empty for a ClusterRole) and name of the role.
    role: (String, String),
    users: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Binding {
    fn is_for(&self, user: &str, groups: &[String]) -> bool {
        self.users.contains(user) || groups.iter().any(|group| self.groups.contains(group))
    }
}

impl Policy {
    /// From Roles, ClusterRoles, RoleBindings and ClusterRoleBindings, in any order; their `kind` must be set, and
    /// anything else is ignored.
    pub fn from_objects<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut policy = Self::default();
        let (mut aggregating, mut cluster_roles) = (Vec::new(), Vec::new());
        for object in objects {
            let namespace = metadata::namespace(object).unwrap_or_default().to_owned();
            let name = metadata::name(object).unwrap_or_default().to_owned();
            match object.get("kind").and_then(Value::as_str).unwrap_or_default() {
                "Role" => drop(policy.roles.insert((namespace, name), Rule::of(object))),
                "ClusterRole" => {
                    if object.get("aggregationRule").is_some() {
                        aggregating.push(object);
                    }
                    cluster_roles.push(object);
                    policy.roles.insert((String::new(), name), Rule::of(object));
                }
                "RoleBinding" => {
                    policy.bindings.entry(namespace.clone()).or_default().push(binding(object, name, &namespace))
                }
                "ClusterRoleBinding" => {
                    policy.bindings.entry(String::new()).or_default().push(binding(object, name, ""))
                }
                _ => {}
            }
        }
        for role in aggregating {
            let name = metadata::name(role).unwrap_or_default().to_owned();
            policy.roles.entry((String::new(), name)).or_default().extend(aggregated(role, &cluster_roles));
        }
        policy
    }

    /// Whether the request is allowed.
    pub fn authorize(&self, request: &Attributes<'_>) -> Decision {
        if request.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allowed(String::new());
        }
        for (binding, namespace, rules) in self.held(request.user, request.groups, request.namespace) {
            if (request.path.is_none() || namespace.is_empty()) && rules.iter().any(|rule| rule.allows(request)) {
                let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
                return Decision::Allowed(format!("RBAC: allowed by {kind} {:?}", binding.name));
            }
        }
        Decision::Denied
    }

    /// Every rule that the user holds in the namespace, those for the whole cluster included.
    pub fn rules_for(&self, user: &str, groups: &[String], namespace: &str) -> Vec<Rule> {
        if groups.iter().any(|group| group == MASTERS) {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
            return vec![resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }];
        }
        self.held(user, groups, namespace).flat_map(|(_, _, rules)| rules.iter().cloned()).collect()
    }

    /// The rules of a role that a binding in `namespace` names; none when there is no such role.
    pub fn role_rules(&self, role_ref: &Value, namespace: &str) -> Option<&[Rule]> {
        self.roles.get(&role_key(role_ref, namespace)).map(Vec::as_slice)
    }

    fn held<'a>(
        &'a self,
        user: &'a str,
        groups: &'a [String],
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Binding, &'a str, &'a [Rule])> {
        let local = (!namespace.is_empty()).then_some(namespace);
        [Some(""), local].into_iter().flatten().flat_map(move |scope| {
            let bindings =
                self.bindings.get(scope).into_iter().flatten().filter(move |binding| binding.is_for(user, groups));
            bindings.filter_map(move |binding| {
                self.roles.get(&binding.role).map(|rules| (binding, scope, rules.as_slice()))
            })
        })
    }
}

/// The rules of the ClusterRoles that an aggregating one selects by their labels.
fn aggregated(role: &Value, cluster_roles: &[&Value]) -> Vec<Rule> {
    let selectors =
        role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).into_iter().flatten();
    let selectors: Vec<LabelSelector> =
        selectors.filter_map(|selector| LabelSelector::from_value(Some(selector)).ok()).collect();
    let selected = cluster_roles.iter().filter(|other| {
        metadata::name(other) != metadata::name(role)
            && selectors.iter().any(|selector| selector.matches(metadata::labels(other)))
    });
    selected.flat_map(|other| Rule::of(other)).collect()
}

fn role_key(role_ref: &Value, namespace: &str) -> (String, String) {
    let text = |field: &str| role_ref.get(field).and_then(Value::as_str).unwrap_or_default();
    let namespace = if text("kind") == "Role" { namespace } else { "" };
    (namespace.to_owned(), text("name").to_owned())
}

fn binding(object: &Value, name: String, namespace: &str) -> Binding {
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    for subject in object.get("subjects").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
        match text("kind") {
            "User" => drop(users.insert(text("name").to_owned())),
            "Group" => drop(groups.insert(text("name").to_owned())),
            "ServiceAccount" => {
                let home = if text("namespace").is_empty() { namespace } else { text("namespace") };
                users.insert(format!("system:serviceaccount:{home}:{}", text("name")));
            }
            _ => {}
        }
    }
    Binding { name, role: role_key(object.get("roleRef").unwrap_or(&Value::Null), namespace), users, groups }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let objects = [
            json!({"kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": [
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
                {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/metrics/*"]}]}),
            json!({"kind": "Role", "metadata": {"name": "one-secret", "namespace": "a"}, "rules": [
                {"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}]}),
            json!({"kind": "ClusterRole", "metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}}),
            json!({"kind": "ClusterRole", "metadata": {"name": "part", "labels": {"part": "yes"}}, "rules": [
                {"verbs": ["patch"], "apiGroups": ["*"], "resources": ["*/scale"]}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "everywhere"}, "subjects": [{"kind": "User", "name": "ann"}],
                   "roleRef": {"kind": "ClusterRole", "name": "reader"}}),
            json!({"kind": "RoleBinding", "metadata": {"name": "here", "namespace": "a"}, "subjects": [{"kind": "Group", "name": "team"}, {"kind": "ServiceAccount", "name": "bot"}],
                   "roleRef": {"kind": "Role", "name": "one-secret"}}),
            json!({"kind": "RoleBinding", "metadata": {"name": "read-here", "namespace": "a"}, "subjects": [{"kind": "Group", "name": "team"}],
                   "roleRef": {"kind": "ClusterRole", "name": "reader"}}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "sums"}, "subjects": [{"kind": "User", "name": "sue"}],
                   "roleRef": {"kind": "ClusterRole", "name": "sum"}}),
        ];
        Policy::from_objects(&objects)
    }

    fn may(user: &str, groups: &[&str], verb: &str, what: &str, namespace: &str, name: &str) -> bool {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        policy()
            .authorize(&Attributes {
                user,
                groups: &groups,
                verb,
                resource,
                subresource,
                namespace,
                name,
                ..Attributes::default()
            })
            .is_allowed()
    }

    #[test]
    fn a_cluster_binding_counts_everywhere() {
        assert!(may("ann", &[], "get", "pods", "b", "x"));
        assert!(may("ann", &[], "list", "pods", "", ""));
        assert!(may("ann", &[], "get", "pods/log", "b", "x"));
        assert!(!may("ann", &[], "get", "pods/exec", "b", "x"));
        assert!(!may("ann", &[], "delete", "pods", "b", "x"));
        assert!(!may("bob", &[], "get", "pods", "b", "x"));
    }

    #[test]
    fn a_role_binding_counts_in_its_namespace_alone() {
        assert!(may("t", &["team"], "get", "pods", "a", "x"));
        assert!(!may("t", &["team"], "get", "pods", "b", "x"));
        assert!(!may("t", &["team"], "get", "pods", "", ""));
    }

    #[test]
    fn resource_names_limit_a_rule() {
        assert!(may("system:serviceaccount:a:bot", &[], "delete", "secrets", "a", "s"));
        assert!(!may("system:serviceaccount:a:bot", &[], "delete", "secrets", "a", "t"));
        assert!(!may("system:serviceaccount:a:bot", &[], "list", "secrets", "a", ""));
    }

    #[test]
    fn an_aggregating_role_has_the_rules_of_its_parts() {
        assert!(may("sue", &[], "patch", "deployments/scale", "a", "x"));
        assert!(!may("sue", &[], "patch", "deployments", "a", "x"));
    }

    #[test]
    fn masters_may_everything() {
        assert!(may("root", &[MASTERS], "delete", "nodes", "", "x"));
    }

    #[test]
    fn paths_match_by_prefix() {
        let may = |path| {
            policy()
                .authorize(&Attributes { user: "ann", verb: "get", path: Some(path), ..Attributes::default() })
                .is_allowed()
        };
        assert!(may("/healthz") && may("/metrics/slis"));
        assert!(!may("/healthz/x") && !may("/version"));
    }
}

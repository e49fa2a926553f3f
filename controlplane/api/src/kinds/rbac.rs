//! Roles and their bindings. What a binding binds never changes; bind anew instead.

use serde_json::Value;

use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, CREATED_AT, NAME, column, list, text, wide};
use crate::validation::{FieldError, NameRule, one_of};

const GROUP: &str = "rbac.authorization.k8s.io";

const BASE: Resource = Resource { group: GROUP, create_on_update: true, ..Resource::BASE };

pub(super) const ROLE: Resource = Resource {
    kind: "Role",
    plural: "roles",
    singular: "role",
    schema: "io.k8s.api.rbac.v1.Role",
    storage: "rbac.authorization.k8s.io/roles",
    columns: &[NAME, CREATED_AT],
    strategy: &Role,
    ..BASE
};
pub(super) const CLUSTER_ROLE: Resource = Resource {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    storage: "rbac.authorization.k8s.io/clusterroles",
    columns: &[NAME, CREATED_AT],
    strategy: &Role,
    ..BASE
};
pub(super) const ROLE_BINDING: Resource = Resource {
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    storage: "rbac.authorization.k8s.io/rolebindings",
    columns: BINDING_COLUMNS,
    strategy: &Binding { cluster: false },
    ..BASE
};
pub(super) const CLUSTER_ROLE_BINDING: Resource = Resource {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    storage: "rbac.authorization.k8s.io/clusterrolebindings",
    columns: BINDING_COLUMNS,
    strategy: &Binding { cluster: true },
    ..BASE
};

const BINDING_COLUMNS: &[crate::resource::Column] = &[
    NAME,
    column("Role", "The role that is bound.", |object, _| {
        format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")).into()
    }),
    AGE,
    wide("Users", "Users to whom it is bound.", |object, _| subjects(object, "User").into()),
    wide("Groups", "Groups to which it is bound.", |object, _| subjects(object, "Group").into()),
    wide("ServiceAccounts", "Service accounts to which it is bound.", |object, _| {
        subjects(object, "ServiceAccount").into()
    }),
];

fn subjects(object: &Value, kind: &str) -> String {
    let named =
        list(object, "/subjects").iter().filter(|subject| text(subject, "/kind") == kind).map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        });
    named.collect::<Vec<_>>().join(", ")
}

struct Role;

impl Strategy for Role {
    fn names(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        let namespaced = text(object, "/kind") == "Role";
        for (index, rule) in list(object, "/rules").iter().enumerate() {
            let path = |field: &str| format!("rules[{index}].{field}");
            let urls = !list(rule, "/nonResourceURLs").is_empty();
            if list(rule, "/verbs").is_empty() {
                problems.push(FieldError::required(path("verbs"), "verbs must contain at least one value"));
            }
            if urls && namespaced {
                problems.push(FieldError::invalid(
                    path("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            } else if urls
                && !(list(rule, "/apiGroups").is_empty()
                    && list(rule, "/resources").is_empty()
                    && list(rule, "/resourceNames").is_empty())
            {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                problems.push(FieldError::invalid(path("nonResourceURLs"), rule["nonResourceURLs"].clone(), message));
            } else if !urls {
                for (field, message) in [
                    ("apiGroups", "resource rules must supply at least one api group"),
                    ("resources", "resource rules must supply at least one resource"),
                ] {
                    if rule.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty) {
                        problems.push(FieldError::required(path(field), message));
                    }
                }
            }
        }
    }
}

struct Binding {
    cluster: bool,
}

impl Strategy for Binding {
    fn names(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, object: &mut Value) {
        if let Some(role) = object.get_mut("roleRef").and_then(Value::as_object_mut) {
            let group = role.entry("apiGroup").or_insert_with(|| GROUP.into());
            if group.as_str() == Some("") {
                *group = GROUP.into();
            }
        }
        for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            let is_account = text(subject, "/kind") == "ServiceAccount";
            if let Some(subject) = subject.as_object_mut().filter(|_| !is_account) {
                subject.entry("apiGroup").or_insert_with(|| GROUP.into());
            }
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        one_of(problems, "roleRef.apiGroup", text(object, "/roleRef/apiGroup"), &[GROUP]);
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        one_of(problems, "roleRef.kind", text(object, "/roleRef/kind"), kinds);
        if text(object, "/roleRef/name").is_empty() {
            problems.push(FieldError::required("roleRef.name", ""));
        }
        for (index, subject) in list(object, "/subjects").iter().enumerate() {
            let path = |field: &str| format!("subjects[{index}].{field}");
            if text(subject, "/name").is_empty() {
                problems.push(FieldError::required(path("name"), ""));
            }
            match text(subject, "/kind") {
                "ServiceAccount" if self.cluster && text(subject, "/namespace").is_empty() => {
                    problems.push(FieldError::required(path("namespace"), ""));
                }
                "ServiceAccount" => {}
                "User" | "Group" => one_of(problems, &path("apiGroup"), text(subject, "/apiGroup"), &[GROUP]),
                other => {
                    problems.push(FieldError::not_supported(path("kind"), other, &["ServiceAccount", "User", "Group"]))
                }
            }
        }
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        if new.get("roleRef") != old.get("roleRef") {
            problems.push(FieldError::invalid(
                "roleRef",
                new.get("roleRef").cloned().unwrap_or_default(),
                "cannot change roleRef",
            ));
        }
    }
}

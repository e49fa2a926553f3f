//! Nobody hands out what he does not hold: the check on writing roles and bindings.
//!
//! Who writes a Role must hold each of its rules there, unless he may `escalate` the role; who binds one must hold its
//! rules, unless he may `bind` it. Whether he has those verbs is asked of the [`Policy`] by the caller.

use super::rule::{has, path_matches, resource_matches};
use super::{Policy, Rule};

/// The parts of `wanted` that the user does not hold in `namespace` (empty for the whole cluster); none is fine.
pub fn missing(policy: &Policy, user: &str, groups: &[String], namespace: &str, wanted: &[Rule]) -> Vec<Rule> {
    let held = policy.rules_for(user, groups, namespace);
    wanted.iter().flat_map(split).filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// What a user is told who hands out too much, for a `forbidden` status.
pub fn refusal(user: &str, groups: &[String], missing: &[Rule]) -> String {
    let groups: Vec<String> = groups.iter().map(|group| format!("{group:?}")).collect();
    let mut lines: Vec<String> = missing.iter().map(describe).collect();
    lines.sort();
    lines.dedup();
    format!(
        "user {user:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        groups.join(" "),
        lines.join("\n")
    )
}

fn describe(rule: &Rule) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    for (name, items) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ] {
        if !items.is_empty() {
            parts.push(format!("{name}:[{}]", list(items)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

/// One rule as many, each with one verb on one thing.
fn split(rule: &Rule) -> Vec<Rule> {
    let one = |item: &String| vec![item.clone()];
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let whole =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    parts.push(whole);
                    continue;
                }
                parts
                    .extend(rule.resource_names.iter().map(|name| Rule { resource_names: one(name), ..whole.clone() }));
            }
        }
    }
    parts
}

/// Whether a rule holds all of a part made by [`split`].
fn covers(rule: &Rule, part: &Rule) -> bool {
    let verb = part.verbs.iter().all(|verb| has(&rule.verbs, verb));
    let paths = part.non_resource_urls.iter().all(|url| {
        rule.non_resource_urls.iter().any(|pattern| {
            path_matches(pattern, url.strip_suffix('*').unwrap_or(url))
                && (pattern.ends_with('*') || !url.ends_with('*'))
        })
    });
    let groups = part.api_groups.iter().all(|group| has(&rule.api_groups, group));
    let resources = part
        .resources
        .iter()
        .all(|wanted| rule.resources.iter().any(|pattern| pattern == wanted || covers_resource(pattern, wanted)));
    let names = rule.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| rule.resource_names.contains(name)));
    verb && paths && groups && resources && names
}

fn covers_resource(pattern: &str, wanted: &str) -> bool {
    let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
    resource_matches(pattern, resource, subresource)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(value: &serde_json::Value) -> Vec<Rule> {
        Rule::of(&json!({"rules": value}))
    }

    fn policy() -> Policy {
        Policy::from_objects(&[
            json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [
                {"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["*"]},
                {"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "ann"}], "roleRef": {"kind": "ClusterRole", "name": "r"}}),
        ])
    }

    #[test]
    fn what_is_held_can_be_handed_out() {
        let wanted = rules(
            &json!([{"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"]},
            {"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]),
        );
        assert!(missing(&policy(), "ann", &[], "d", &wanted).is_empty());
    }

    #[test]
    fn what_is_not_held_is_named() {
        let wanted = rules(
            &json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
        );
        let missing = missing(&policy(), "ann", &[], "d", &wanted);
        assert_eq!(missing.len(), 2);
        assert!(refusal("ann", &[], &missing).contains(r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#));
    }

    #[test]
    fn a_star_is_not_handed_out_by_parts() {
        let wanted = rules(&json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        assert_eq!(missing(&policy(), "ann", &[], "", &wanted).len(), 1);
        assert!(missing(&policy(), "root", &["system:masters".to_owned()], "", &wanted).is_empty());
    }
}

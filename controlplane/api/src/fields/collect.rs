//! The set of fields that a value has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::form::Form;
use super::set::Node;
use super::{Element, FieldSet};
use crate::schema::Schema;

/// The fields of an object: its leaves, the entries of its maps and the items of its lists, and what it has empty or
/// null.
pub(super) fn fields_of(object: &Value, schema: Schema<'_>) -> FieldSet {
    node_of(object, Form::Struct(schema)).below
}

fn node_of(value: &Value, form: Form<'_>) -> Node {
    match (form.fitted(Some(value)), value) {
        (Form::Whole, _) => Node::leaf(),
        (form, Value::Object(map)) => Node { member: false, below: members(map, form) },
        (form, Value::Array(items)) => Node { member: false, below: list(items, form) },
        _ => Node::default(),
    }
}

fn members(map: &Map<String, Value>, form: Form<'_>) -> FieldSet {
    map.iter()
        .map(|(name, value)| {
            let mut node = node_of(value, form.member(name));
            let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
            node.member |= is_empty || !form.declares(name);
            (Element::field(name), node)
        })
        .collect()
}

/// Items that stand twice are owned as one, since nothing tells them apart.
fn list(items: &[Value], form: Form<'_>) -> FieldSet {
    let mut nodes: BTreeMap<Element, Node> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let element = form.element(index, item);
        let node = if nodes.contains_key(&element) {
            Node::leaf()
        } else {
            Node { member: true, ..node_of(item, form.item()) }
        };
        nodes.insert(element, node);
    }
    nodes.into_iter().collect()
}

/// Adds the declared structs and lists on the way to a path: a set with `.spec.replicas` then has `.spec` as well.
/// Entries of maps and items of lists are not added.
pub(super) fn with_declared(set: &FieldSet, form: Form<'_>) -> FieldSet {
    set.nodes()
        .map(|(element, node)| {
            let (below, declared) = match element {
                Element::Field(name) => (form.member(name), form.declares(name)),
                _ => (form.item(), false),
            };
            let node = Node { member: node.member || declared, below: with_declared(&node.below, below) };
            (element.clone(), node)
        })
        .collect()
}

/// What is wrong with a configuration's lists: an item that nothing identifies, or that stands twice.
///
/// Each as a sentence with its path: `.spec.ports: duplicate entries for key [port=80,protocol="TCP"]`.
pub(super) fn list_problem(object: &Value, schema: Schema<'_>) -> Option<String> {
    problem(object, Form::Struct(schema), "")
}

fn problem(value: &Value, form: Form<'_>, path: &str) -> Option<String> {
    match (form.fitted(Some(value)), value) {
        (Form::Whole, _) => None,
        (form, Value::Object(map)) => {
            map.iter().find_map(|(name, value)| problem(value, form.member(name), &format!("{path}.{name}")))
        }
        (form, Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let Some(element) = form.identify(item) else {
                    return Some(unidentified(form, path, index));
                };
                if seen.contains(&element) {
                    return Some(format!("{path}: duplicate entries for key {element}"));
                }
                if let Some(problem) = problem(item, form.item(), &format!("{path}{element}")) {
                    return Some(problem);
                }
                seen.insert(element);
            }
            None
        }
        _ => None,
    }
}

fn unidentified(form: Form<'_>, path: &str, index: usize) -> String {
    match form.keys() {
        [] => format!("{path}: element {index}: items of a set must be scalars"),
        keys => format!(
            "{path}: element {index}: associative list with keys has an element that omits all key fields {keys:?} \
             (and doesn't have default values for any key fields)"
        ),
    }
}

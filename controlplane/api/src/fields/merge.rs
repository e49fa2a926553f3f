//! A configuration merged into an object: what it names counts, what it does not name stays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Element;
use super::form::Form;
use crate::schema::Schema;

/// The object with the configuration's values. A null in it makes a field null; the caller takes nulls out.
pub(super) fn merge(object: &Value, configuration: &Value, schema: Schema<'_>) -> Value {
    merged(object, configuration, Form::Struct(schema))
}

fn merged(old: &Value, new: &Value, form: Form<'_>) -> Value {
    match (form.fitted(Some(old)).fitted(Some(new)), old, new) {
        (Form::Whole, _, _) => new.clone(),
        (form, Value::Object(old), Value::Object(new)) if !new.is_empty() => Value::Object(members(old, new, form)),
        (form, Value::Array(old), Value::Array(new)) if !new.is_empty() => Value::Array(items(old, new, form)),
        // Nothing is named below: null and empty replace only what is empty.
        (_, Value::Object(map), _) if !map.is_empty() => old.clone(),
        (_, Value::Array(items), _) if !items.is_empty() => old.clone(),
        _ => new.clone(),
    }
}

fn members(old: &Map<String, Value>, new: &Map<String, Value>, form: Form<'_>) -> Map<String, Value> {
    let mut map = old.clone();
    for (name, value) in new {
        let value = match old.get(name) {
            Some(old) => merged(old, value, form.member(name)),
            None => value.clone(),
        };
        map.insert(name.clone(), value);
    }
    map
}

/// The order is the configuration's; an item that only the object has stays before the named one that it was before.
fn items(old: &[Value], new: &[Value], form: Form<'_>) -> Vec<Value> {
    let old_elements = elements(old, form);
    let new_elements = elements(new, form);
    let named: BTreeSet<&Element> = new_elements.iter().collect();
    let mut present: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, item) in old_elements.iter().zip(old) {
        // What stands twice is replaced and not merged.
        present.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
    }
    let mut shared = new_elements.iter().filter(|element| present.contains_key(element)).peekable();
    let mut waiting = old_elements.iter().zip(old).peekable();
    let mut list = Vec::with_capacity(old.len().max(new.len()));
    for (element, item) in new_elements.iter().zip(new) {
        while let Some((before, item)) = waiting.next_if(|(before, _)| shared.peek() != Some(before)) {
            if !named.contains(before) {
                list.push(item.clone());
            }
        }
        shared.next_if_eq(&element);
        match present.get(element) {
            Some(Some(old)) => list.push(merged(old, item, form.item())),
            _ => list.push(item.clone()),
        }
    }
    list.extend(waiting.filter(|(element, _)| !named.contains(element)).map(|(_, item)| item.clone()));
    list
}

fn elements(items: &[Value], form: Form<'_>) -> Vec<Element> {
    items.iter().enumerate().map(|(index, item)| form.element(index, item)).collect()
}

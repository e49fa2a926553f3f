//! What an object's change has added, modified and removed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::form::Form;
use super::set::Node;
use super::{Element, FieldSet};
use crate::schema::Schema;

/// A change as sets of fields. No field is in two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The change without some fields.
    pub(super) fn but(mut self, fields: &FieldSet) -> Self {
        [&mut self.added, &mut self.modified, &mut self.removed].into_iter().for_each(|set| set.subtract(fields));
        self
    }
}

/// Compares two states of an object.
pub(super) fn compare(old: &Value, new: &Value, schema: Schema<'_>) -> Changes {
    let delta = delta(Some(old), Some(new), Form::Struct(schema));
    Changes { added: delta.added.below, modified: delta.modified.below, removed: delta.removed.below }
}

/// The same at one place.
#[derive(Default)]
struct Delta {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Delta {
    fn put(&mut self, element: Element, delta: Self) {
        let Self { added, modified, removed } = delta;
        self.added.below.put(element.clone(), added);
        self.modified.below.put(element.clone(), modified);
        self.removed.below.put(element, removed);
    }

    /// A value that is looked at as one.
    fn whole<T: PartialEq + Copy>(old: Option<T>, new: Option<T>) -> Self {
        let mut delta = Self::default();
        match (old, new) {
            (None, Some(_)) => delta.added.member = true,
            (Some(_), None) => delta.removed.member = true,
            _ => delta.modified.member = old != new,
        }
        delta
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl PartialEq for Delta {
    fn eq(&self, other: &Self) -> bool {
        (&self.added, &self.modified, &self.removed) == (&other.added, &other.modified, &other.removed)
    }
}

fn delta(old: Option<&Value>, new: Option<&Value>, form: Form<'_>) -> Delta {
    // To unset what is not there is no change.
    if old.is_none() && new.is_none_or(Value::is_null) {
        return Delta::default();
    }
    let form = form.fitted(old).fitted(new);
    // Two empty ones are compared as one value, so that null, absent and empty stay different.
    if matches!(form, Form::Whole) || (is_empty(old) && is_empty(new)) {
        return Delta::whole(old, new);
    }
    let mut delta = match form {
        Form::Struct(_) | Form::Map(_) => members(old.and_then(Value::as_object), new.and_then(Value::as_object), form),
        _ => items(list(old), list(new), form),
    };
    delta.added.member = old.is_none();
    delta.removed.member = new.is_none();
    delta
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn members(old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>, form: Form<'_>) -> Delta {
    let empty = Value::Object(Map::new());
    let mut delta = Delta::default();
    let of_new = new.into_iter().flat_map(Map::keys);
    let only_old = old.into_iter().flat_map(Map::keys).filter(|name| new.is_none_or(|new| !new.contains_key(*name)));
    for name in of_new.chain(only_old) {
        let by_value = form.holds_by_value(name);
        let old = old.and_then(|old| old.get(name).or(by_value.then_some(&empty)));
        let new = new.and_then(|new| new.get(name).or(by_value.then_some(&empty)));
        let found = self::delta(old, new, form.member(name));
        if !found.is_empty() {
            delta.put(Element::field(name), found);
        }
    }
    delta
}

fn items(old: &[Value], new: &[Value], form: Form<'_>) -> Delta {
    let mut delta = Delta::default();
    if old == new {
        return delta;
    }
    let (old, new) = (by_element(old, form), by_element(new, form));
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let found = match (old.get(element).map(Vec::as_slice), new.get(element).map(Vec::as_slice)) {
            (Some([old]), Some([new])) => self::delta(Some(old), Some(new), form.item()),
            (Some([old]), None) => self::delta(Some(old), None, form.item()),
            (None, Some([new])) => self::delta(None, Some(new), form.item()),
            // What stands twice cannot be told apart.
            (old, new) => Delta::whole(old, new),
        };
        if !found.is_empty() {
            delta.put(element.clone(), found);
        }
    }
    delta
}

fn by_element<'v>(items: &'v [Value], form: Form<'_>) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut by_element: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        by_element.entry(form.element(index, item)).or_default().push(item);
    }
    by_element
}

//! An object without some of its fields.

use serde_json::{Map, Value};

use super::form::Form;
use super::{Element, FieldSet};
use crate::schema::Schema;

/// Takes the fields of a set, with all that is below them, out of an object. What is empty after it goes as well.
pub(super) fn without(object: Value, set: &FieldSet, schema: Schema<'_>) -> Value {
    rest(object, set, Form::Struct(schema)).unwrap_or_else(|| Value::Object(Map::new()))
}

/// What is left of a value; none if that is nothing.
fn rest(value: Value, set: &FieldSet, form: Form<'_>) -> Option<Value> {
    match (form.fitted(Some(&value)), value) {
        (Form::Whole, value) => Some(value),
        (form, Value::Object(map)) => {
            let kept = map.into_iter().filter_map(|(name, value)| {
                let form = form.member(&name);
                let value = part(value, set, &Element::Field(name.clone()), form)?;
                Some((name, value))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (form, Value::Array(items)) => {
            let kept = items.into_iter().enumerate().filter_map(|(index, item)| {
                let element = form.element(index, &item);
                part(item, set, &element, form.item())
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (_, value) => Some(value),
    }
}

fn part(value: Value, set: &FieldSet, element: &Element, form: Form<'_>) -> Option<Value> {
    match set.get(element) {
        None => Some(value),
        Some(node) if node.member => None,
        Some(node) => rest(value, &node.below, form),
    }
}

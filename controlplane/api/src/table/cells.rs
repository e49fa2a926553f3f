//! Cells that several kinds share, and the reading of odd values that they have in common: never a panic, at worst a gap.

use jiff::Timestamp;
use serde_json::Value;

use super::human_duration;
use crate::metadata;
use crate::resource::Column;

/// What kubectl prints where there is nothing.
pub(crate) const NONE: &str = "<none>";
/// What kubectl prints where a value should be and is not.
pub(crate) const UNKNOWN: &str = "<unknown>";

/// A text column that is always shown.
pub(crate) const fn column(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description, cell }
}

/// A text column of `-o wide`.
pub(crate) const fn wide(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column { priority: 1, ..column(name, description, cell) }
}

/// A column of numbers that is always shown.
pub(crate) const fn number(
    name: &'static str,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
) -> Column {
    Column { kind: "integer", ..column(name, description, cell) }
}

/// The first column of every table.
pub(crate) const NAME: Column =
    Column { format: "name", ..column("Name", "Name must be unique within a namespace.", name_cell) };
/// The last column of most tables.
pub(crate) const AGE: Column = column("Age", "How long ago the object was created.", age_cell);
/// When it was made, for kinds without columns of their own.
pub(crate) const CREATED_AT: Column = Column {
    kind: "date",
    ..column("Created At", "When the object was created.", |object, _| {
        metadata::creation_timestamp(object).unwrap_or(UNKNOWN).into()
    })
};

fn name_cell(object: &Value, _: Timestamp) -> Value {
    metadata::name(object).unwrap_or_default().into()
}

fn age_cell(object: &Value, now: Timestamp) -> Value {
    since(metadata::creation_timestamp(object), now).into()
}

/// How long ago this time was; `<unknown>` if it is none.
pub(crate) fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) => human_duration(now.as_second().saturating_sub(time.as_second())),
        None => UNKNOWN.to_owned(),
    }
}

/// The text at a pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a pointer; zero if there is none.
pub(crate) fn integer(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a pointer; empty if there is none.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The number of members of the object at a pointer.
pub(crate) fn members(object: &Value, pointer: &str) -> usize {
    object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// The text, or `<none>` if it is empty.
pub(crate) fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

/// The first items joined by commas, and how many more there are.
pub(crate) fn first(items: &[String], limit: usize) -> String {
    if items.is_empty() {
        return NONE.to_owned();
    }
    let shown = items.get(..limit).unwrap_or(items).join(",");
    if items.len() > limit { format!("{shown} + {} more...", items.len() - limit) } else { shown }
}

/// The names and the images of the containers in a pod spec.
pub(crate) fn containers(object: &Value, pointer: &str, field: &str) -> Value {
    list(object, pointer).iter().map(|container| text(container, field)).collect::<Vec<_>>().join(",").into()
}

/// A `metav1.LabelSelector` as one text.
pub(crate) fn selector(value: Option<&Value>) -> Value {
    let selector =
        crate::selector::LabelSelector::from_value(value).map(|selector| selector.to_string()).unwrap_or_default();
    or_none(&selector).into()
}

/// A map of labels as one text.
pub(crate) fn labels(value: Option<&Value>) -> String {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

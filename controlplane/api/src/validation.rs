//! Checks that many kinds share. Each appends what is wrong to a list, with the field's path.

mod field_error;
mod metadata;
pub mod names;

pub use field_error::{FieldError, FieldErrorKind};
pub use metadata::{NameRule, label_map, metadata_change, object_metadata};

use serde_json::Value;

use crate::quantity::Quantity;

/// Appends `Invalid value` for each text.
pub(crate) fn invalid(problems: &mut Vec<FieldError>, field: &str, value: impl Into<Value>, wrong: Vec<String>) {
    let value = value.into();
    problems.extend(wrong.into_iter().map(|message| FieldError::invalid(field, value.clone(), message)));
}

/// The text must be one of these; an empty one is required.
pub(crate) fn one_of(problems: &mut Vec<FieldError>, field: &str, value: &str, supported: &[&str]) {
    if value.is_empty() {
        problems.push(FieldError::required(field, ""));
    } else if !supported.contains(&value) {
        problems.push(FieldError::not_supported(field, value, supported));
    }
}

/// A number that must not be below zero, where there is one.
pub(crate) fn non_negative(problems: &mut Vec<FieldError>, field: &str, value: Option<&Value>) {
    at_least(problems, field, value, 0);
}

/// A number that must not be below `least`, where there is one.
pub(crate) fn at_least(problems: &mut Vec<FieldError>, field: &str, value: Option<&Value>, least: i64) {
    if let Some(number) = value.and_then(Value::as_i64).filter(|number| *number < least) {
        problems.push(FieldError::invalid(field, number, format!("must be greater than or equal to {least}")));
    }
}

/// A port number.
pub(crate) fn port(problems: &mut Vec<FieldError>, field: &str, value: Option<&Value>) {
    if let Some(number) = value.and_then(Value::as_i64).filter(|number| !(1..=65_535).contains(number)) {
        problems.push(FieldError::invalid(field, number, "must be between 1 and 65535, inclusive"));
    }
}

/// A port number or a port's name.
pub(crate) fn port_or_name(problems: &mut Vec<FieldError>, field: &str, value: Option<&Value>) {
    match value {
        Some(Value::String(name)) => invalid(problems, field, name.as_str(), names::port_name(name)),
        number => port(problems, field, number),
    }
}

/// A quantity that must not be negative, where there is one.
pub(crate) fn quantity(problems: &mut Vec<FieldError>, field: &str, value: &Value) -> Option<Quantity> {
    match Quantity::from_value(value) {
        Ok(quantity) if quantity.is_negative() => {
            problems.push(FieldError::invalid(field, value.clone(), "must be greater than or equal to 0"));
            None
        }
        Ok(quantity) => Some(quantity),
        Err(error) => {
            problems.push(FieldError::invalid(field, value.clone(), error.to_string()));
            None
        }
    }
}

/// A value that never changes.
pub(crate) fn immutable(problems: &mut Vec<FieldError>, field: &str, new: Option<&Value>, old: Option<&Value>) {
    if new != old {
        problems.push(FieldError::invalid(field, new.cloned().unwrap_or_default(), "field is immutable"));
    }
}

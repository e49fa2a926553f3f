//! One wrong field: its path, what is wrong, and the wording that Kubernetes gives it.

use std::fmt;

use serde_json::Value;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It must be there.
    Required,
    /// Its value cannot be.
    Invalid,
    /// Its value is none of those that there are.
    NotSupported,
    /// It must not be there, or not be changed.
    Forbidden,
    /// It is there twice.
    Duplicate,
    /// It is too long.
    TooLong,
    /// There are too many of it.
    TooMany,
    /// It names something that does not exist.
    NotFound,
}

impl FieldErrorKind {
    /// The `reason` of the cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }

    fn shows_value(self) -> bool {
        matches!(self, Self::Invalid | Self::NotSupported | Self::Duplicate | Self::NotFound)
    }
}

/// One wrong field. Displays as `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The path, as in `spec.containers[0].name`.
    pub field: String,
    /// The value in question; null where none is shown.
    pub value: Value,
    /// What is wrong with it, for a person; may be empty.
    pub message: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: impl Into<String>, value: Value, message: impl Into<String>) -> Self {
        Self { kind, field: field.into(), value, message: message.into() }
    }

    /// The field must be there.
    pub fn required(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, Value::Null, message)
    }

    /// The field has a value that cannot be.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, value.into(), message)
    }

    /// The field must not be there, or must not be changed.
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, Value::Null, message)
    }

    /// The field's value is none of `supported`.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let listed: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        Self::new(FieldErrorKind::NotSupported, field, value.into(), format!("supported values: {}", listed.join(", ")))
    }

    /// The value is there twice.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, value.into(), "")
    }

    /// The value is longer than `limit` bytes.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, field, Value::Null, format!("may not be more than {limit} bytes"))
    }

    /// There is no such thing as the field names.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, field, value.into(), "")
    }

    /// The text without the path: what a cause says.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if self.kind.shows_value() {
            text.push_str(": ");
            text.push_str(&self.value.to_string());
        }
        if !self.message.is_empty() {
            text.push_str(": ");
            text.push_str(&self.message);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            formatter.write_str(&self.body())
        } else {
            write!(formatter, "{}: {}", self.field, self.body())
        }
    }
}

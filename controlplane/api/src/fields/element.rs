//! One step of a path: a member, or an item of a list by what identifies it.
//!
//! As `FieldsV1` writes them: `f:spec`, `k:{"name":"main"}`, `v:"a.example/finalizer"`, `i:0`. As a message shows them:
//! `.spec`, `[name="main"]`, `[="a.example/finalizer"]`, `[0]`.

use std::fmt;

use serde_json::{Map, Value};

/// One step of a path. Values are kept as compact JSON with sorted members, so that equal values are equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A member of a struct or of a map.
    Field(String),
    /// An item of a list by the members that identify it: `{"containerPort":80,"protocol":"TCP"}`.
    Key(String),
    /// An item of a set by itself: `"a"`.
    Value(String),
    /// An item of a list by its place, counted from 0.
    Index(i64),
}

impl Element {
    /// The member of that name.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// The item that these members identify.
    pub fn key(members: Map<String, Value>) -> Self {
        Self::Key(Value::Object(members).to_string())
    }

    /// The item of a set.
    pub fn value(value: &Value) -> Self {
        Self::Value(value.to_string())
    }

    /// Reads the step as `FieldsV1` writes it; none for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self::field(rest)),
            "v:" => serde_json::from_str(rest).ok().map(|value: Value| Self::value(&value)),
            "k:" => serde_json::from_str(rest).ok().map(Self::key),
            "i:" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The step as `FieldsV1` writes it.
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(members) => format!("k:{members}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(formatter, ".{name}"),
            Self::Key(members) => {
                let members: Map<String, Value> = serde_json::from_str(members).unwrap_or_default();
                let texts: Vec<String> = members.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(formatter, "[{}]", texts.join(","))
            }
            Self::Value(value) => write!(formatter, "[={value}]"),
            Self::Index(index) => write!(formatter, "[{index}]"),
        }
    }
}

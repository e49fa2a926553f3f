//! A document as it stands: members in their order, repeated ones included.
//!
//! `serde_json::Value` loses both, and strict validation must report them. One type for JSON and YAML, so that one
//! check serves both.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::DecodeError;

/// A document or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// Null, a truth value, a number or a text.
    Scalar(Value),
    List(Vec<Raw>),
    Members(Vec<(String, Raw)>),
}

impl Raw {
    /// The text of a member; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        let Self::Members(members) = self else { return "" };
        match members.iter().rev().find(|(member, _)| member == name) {
            Some((_, Self::Scalar(Value::String(text)))) => text,
            _ => "",
        }
    }
}

pub(super) fn from_json(body: &[u8]) -> Result<Raw, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Malformed(error.to_string()))
}

pub(super) fn from_yaml(body: &[u8]) -> Result<Raw, DecodeError> {
    let malformed = |error: &dyn fmt::Display| DecodeError::Malformed(error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| malformed(&error.without_snippet()))
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Members(members.into_iter().map(|(name, value)| (name, value.into())).collect())
            }
            scalar => Self::Scalar(scalar),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(name)) = entries.next_key()? {
            members.push((name, entries.next_value()?));
        }
        Ok(Raw::Members(members))
    }
}

/// A member's name; YAML allows numbers and truth values there, which JSON writes as text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Raw::deserialize(deserializer)? {
            Raw::Scalar(Value::String(name)) => Ok(Self(name)),
            Raw::Scalar(other) => Ok(Self(other.to_string())),
            _ => Err(D::Error::custom("a key must be a text")),
        }
    }
}

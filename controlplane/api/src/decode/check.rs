//! Walks a document and its schema together: drops and names what is unknown, refuses what has the wrong type.
//!
//! The words of a mismatch are Go's, because that is what kubectl users and tests look for. Nulls stand for absence, as
//! in Go; a null among the values of a list or a map becomes the zero of its type.

use std::fmt;

use base64::Engine;
use serde_json::{Map, Value};

use super::{MAX_DEPTH, Nulls, Raw};
use crate::quantity::Quantity;
use crate::schema::{Field, Kind, Schema, Shape};

/// A document that is what its schema says.
pub(super) struct Checked {
    pub(super) value: Value,
    pub(super) facts: Vec<Fact>,
}

/// What strict validation reports; the path is in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Unknown(String),
    Duplicate(String),
}

impl fmt::Display for Fact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(formatter, "unknown field {path:?}"),
            Self::Duplicate(path) => write!(formatter, "duplicate field {path:?}"),
        }
    }
}

/// Why a document is not what its schema says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    TooDeep,
    Mismatch(String),
}

/// Checks a whole document; without a schema only for repetitions and depth.
pub(super) fn check(raw: Raw, schema: Option<Schema<'_>>, nulls: Nulls) -> Result<Checked, Problem> {
    let mut walk = Walk { nulls, facts: Vec::new(), path: Vec::new() };
    let value = match (schema, raw) {
        (Some(schema), Raw::Members(members)) => walk.members(members, schema)?,
        (Some(schema), other) => return Err(mismatch(&other, &format!("Go value of type v1.{}", schema.short_name()))),
        (None, raw) => walk.anything(raw)?,
    };
    Ok(Checked { value, facts: walk.facts })
}

fn mismatch(raw: &Raw, wanted: &str) -> Problem {
    Problem::Mismatch(format!("json: cannot unmarshal {} into {wanted}", word(raw)))
}

/// What Go calls a value.
fn word(raw: &Raw) -> &'static str {
    match raw {
        Raw::Scalar(Value::Null) => "null",
        Raw::Scalar(Value::Bool(_)) => "bool",
        Raw::Scalar(Value::Number(_)) => "number",
        Raw::Scalar(_) => "string",
        Raw::List(_) => "array",
        Raw::Members(_) => "object",
    }
}

/// Where a value is: a member of a struct or of a map, or an item of a list.
enum Step {
    Name(String),
    Index(usize),
}

struct Walk {
    nulls: Nulls,
    facts: Vec<Fact>,
    path: Vec<Step>,
}

/// The field that a value belongs to, and the struct that the field is in.
#[derive(Clone, Copy)]
struct Place<'t> {
    schema: Schema<'t>,
    field: &'t Field,
}

impl Walk {
    fn members(&mut self, members: Vec<(String, Raw)>, schema: Schema<'_>) -> Result<Value, Problem> {
        self.check_depth()?;
        let mut map = Map::new();
        let mut seen: Vec<&str> = Vec::new();
        for (name, raw) in members {
            let field = schema.field(&name);
            self.path.push(Step::Name(name));
            match field {
                None => self.note_once(Fact::Unknown),
                Some(field) => {
                    if seen.contains(&field.name) {
                        self.note_once(Fact::Duplicate);
                    }
                    seen.push(field.name);
                    let value = self.field(raw, Place { schema, field })?;
                    if !value.is_null() || field.kind == Kind::Json || self.nulls == Nulls::Kept {
                        map.insert(field.name.to_owned(), value);
                    }
                }
            }
            self.path.pop();
        }
        Ok(Value::Object(map))
    }

    fn field(&mut self, raw: Raw, place: Place<'_>) -> Result<Value, Problem> {
        match (place.field.shape, raw) {
            (_, Raw::Scalar(Value::Null)) => Ok(Value::Null),
            (Shape::One, raw) => self.single(raw, place),
            (Shape::List, Raw::List(items)) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(index));
                    list.push(self.among_many(item, place)?);
                    self.path.pop();
                }
                Ok(Value::Array(list))
            }
            (Shape::Map, Raw::Members(members)) => {
                let mut map = Map::new();
                for (name, raw) in members {
                    self.path.push(Step::Name(name.clone()));
                    if map.contains_key(&name) {
                        self.note_once(Fact::Duplicate);
                    }
                    let value = self.among_many(raw, place)?;
                    self.path.pop();
                    map.insert(name, value);
                }
                Ok(Value::Object(map))
            }
            (Shape::List, other) => Err(self.mismatch(&other, place, "[]")),
            (Shape::Map, other) => Err(self.mismatch(&other, place, "map[string]")),
        }
    }

    /// An item of a list or a value of a map, where null is the zero of the type.
    fn among_many(&mut self, raw: Raw, place: Place<'_>) -> Result<Value, Problem> {
        if raw != Raw::Scalar(Value::Null) {
            return self.single(raw, place);
        }
        Ok(match place.field.kind {
            Kind::String | Kind::Bytes => "".into(),
            Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => 0.into(),
            Kind::Bool => false.into(),
            Kind::Quantity => "0".into(),
            Kind::Message(_) => Value::Object(Map::new()),
            _ => Value::Null,
        })
    }

    fn single(&mut self, raw: Raw, place: Place<'_>) -> Result<Value, Problem> {
        let child = place.schema.child(place.field);
        match (place.field.kind, child, raw) {
            (Kind::Json, _, raw) => self.anything(raw),
            (Kind::Object | Kind::Fields, _, raw @ Raw::Members(_)) => self.anything(raw),
            (Kind::Strings, _, Raw::List(items)) => {
                let of_strings = |item: &Raw| matches!(item, Raw::Scalar(Value::String(_)));
                match items.iter().find(|item| !of_strings(item)) {
                    Some(wrong) => Err(self.mismatch(wrong, place, "")),
                    None => self.anything(Raw::List(items)),
                }
            }
            (_, Some(child), Raw::Members(members)) => self.members(members, child),
            (Kind::SchemaOrList, Some(child), Raw::List(items)) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(index));
                    match item {
                        Raw::Members(members) => list.push(self.members(members, child)?),
                        other => return Err(self.mismatch(&other, place, "")),
                    }
                    self.path.pop();
                }
                Ok(Value::Array(list))
            }
            (Kind::SchemaOrBool, _, Raw::Scalar(value @ Value::Bool(_))) => Ok(value),
            (Kind::SchemaOrStrings, _, raw @ Raw::List(_)) => self.anything(raw),
            (kind, _, Raw::Scalar(value)) => match scalar(kind, value) {
                Ok(value) => Ok(value),
                Err(Refused::Type(value)) => Err(self.mismatch(&Raw::Scalar(value), place, "")),
                Err(Refused::Text(text)) => Err(Problem::Mismatch(text)),
            },
            (_, _, other) => Err(self.mismatch(&other, place, "")),
        }
    }

    /// A value that has no schema.
    fn anything(&mut self, raw: Raw) -> Result<Value, Problem> {
        self.check_depth()?;
        match raw {
            Raw::Scalar(value) => Ok(value),
            Raw::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(index));
                    list.push(self.anything(item)?);
                    self.path.pop();
                }
                Ok(Value::Array(list))
            }
            Raw::Members(members) => {
                let mut map = Map::new();
                for (name, raw) in members {
                    self.path.push(Step::Name(name.clone()));
                    if map.contains_key(&name) {
                        self.note_once(Fact::Duplicate);
                    }
                    let value = self.anything(raw)?;
                    self.path.pop();
                    map.insert(name, value);
                }
                Ok(Value::Object(map))
            }
        }
    }

    fn check_depth(&self) -> Result<(), Problem> {
        if self.path.len() > MAX_DEPTH { Err(Problem::TooDeep) } else { Ok(()) }
    }

    /// Notes a fact about the present path, unless it is noted already.
    fn note_once(&mut self, fact: fn(String) -> Fact) {
        let fact = fact(self.path_text(true));
        if !self.facts.contains(&fact) {
            self.facts.push(fact);
        }
    }

    /// `spec.containers[0].image`, or without the indices, as Go's messages have it.
    fn path_text(&self, indices: bool) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) if text.is_empty() => text.push_str(name),
                Step::Name(name) => text.extend([".", name]),
                Step::Index(index) if indices => text.push_str(&format!("[{index}]")),
                Step::Index(_) => {}
            }
        }
        text
    }

    fn mismatch(&self, raw: &Raw, place: Place<'_>, shape: &str) -> Problem {
        let owner = place.schema.short_name();
        let path = self.path_text(false);
        mismatch(raw, &format!("Go struct field {owner}.{path} of type {shape}{}", type_word(place)))
    }
}

/// What Go calls the type of a field's values.
fn type_word(place: Place<'_>) -> String {
    match place.field.kind {
        Kind::String => "string".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::Time => "v1.Time".to_owned(),
        Kind::MicroTime => "v1.MicroTime".to_owned(),
        Kind::Duration => "v1.Duration".to_owned(),
        Kind::IntOrString => "intstr.IntOrString".to_owned(),
        Kind::Quantity => "resource.Quantity".to_owned(),
        Kind::Object => "runtime.RawExtension".to_owned(),
        Kind::Fields => "v1.FieldsV1".to_owned(),
        Kind::Json => "v1.JSON".to_owned(),
        Kind::Strings => "[]string".to_owned(),
        Kind::Message(_) | Kind::SchemaOrList | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            let name = place.schema.child(place.field).map_or("", |child| child.message().name);
            let mut parts = name.rsplit('.');
            let (short, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{version}.{short}")
        }
    }
}

/// Why a scalar is refused: its type, or its text, with the message.
enum Refused {
    Type(Value),
    Text(String),
}

/// The value as it is stored, if it is one of that kind.
fn scalar(kind: Kind, value: Value) -> Result<Value, Refused> {
    match (kind, &value) {
        (Kind::String, Value::String(_)) | (Kind::Bool, Value::Bool(_)) | (Kind::Double, Value::Number(_)) => Ok(value),
        (Kind::Int32, Value::Number(number)) => whole(number, i64::from(i32::MIN), i64::from(i32::MAX), "int32"),
        (Kind::Int64, Value::Number(number)) => whole(number, i64::MIN, i64::MAX, "int64"),
        (Kind::IntOrString, Value::Number(number)) => whole(number, i64::from(i32::MIN), i64::from(i32::MAX), "int32"),
        (Kind::IntOrString, Value::String(_)) => Ok(value),
        (Kind::Quantity, Value::Number(_) | Value::String(_)) => match Quantity::from_value(&value) {
            Ok(quantity) => Ok(quantity.canonical().into()),
            Err(error) => Err(Refused::Text(error.to_string())),
        },
        (Kind::Bytes, Value::String(text)) => match base64::prelude::BASE64_STANDARD.decode(text.as_bytes()) {
            Ok(_) => Ok(value),
            Err(error) => Err(Refused::Text(format!("illegal base64 data at input byte {}", position(&error)))),
        },
        (Kind::Time | Kind::MicroTime, Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                Ok(if kind == Kind::Time { crate::protobuf::time(time) } else { crate::protobuf::micro_time(time) }
                    .into())
            }
            Err(_) => Err(Refused::Text(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))),
        },
        (Kind::Duration, Value::String(_)) => Ok(value),
        _ => Err(Refused::Type(value)),
    }
}

fn whole(number: &serde_json::Number, least: i64, most: i64, name: &str) -> Result<Value, Refused> {
    match number.as_i64().or_else(|| {
        number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i64)
    }) {
        Some(whole) if (least..=most).contains(&whole) => Ok(whole.into()),
        _ => Err(Refused::Text(format!("json: cannot unmarshal number {number} into Go value of type {name}"))),
    }
}

fn position(error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => *at,
        _ => 0,
    }
}

//! Kubernetes' protobuf bodies, read into JSON by the schema table.
//!
//! A body is four bytes `k8s\0` and a `runtime.Unknown`: field 1 a `TypeMeta` (1 `apiVersion`, 2 `kind`), field 2 the
//! object's own bytes. Go writes every field that is no pointer, zeros included, so zeros are left out here where JSON
//! would omit them. Nothing is written in protobuf: every client takes JSON answers.

mod special;
mod wire;

use base64::Engine;
use serde_json::{Map, Value};

use crate::schema::{self, Field, Kind, Schema, Shape};
use wire::{Reader, Wire};

pub(crate) use special::{micro_time, time};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const MAX_DEPTH: usize = 100;

/// Why bytes are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes do not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    /// The bytes end too early or are not protobuf.
    #[error("the protobuf message is broken")]
    Malformed,
    /// Messages nest too deep.
    #[error("the protobuf message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The envelope is of a kind that the schema table does not have.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// What the envelope says.
        api_version: String,
        /// What the envelope says.
        kind: String,
    },
}

/// What an envelope holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

/// Reads an enveloped object of the kind that the envelope names.
///
/// # Errors
/// See [`ProtobufError`]; the client is at fault.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    decode_as(bytes, None)
}

/// Reads an enveloped object; `expected` names the message where the envelope's kind has none of its own, such as
/// `DeleteOptions`, which every group has under its own name.
///
/// # Errors
/// See [`ProtobufError`]; the client is at fault.
pub fn decode_as(bytes: &[u8], expected: Option<&str>) -> Result<Value, ProtobufError> {
    let Envelope { api_version, kind, raw } = envelope(bytes)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let named = schema::of_kind(group, version, &kind);
    let meta = || schema::schema(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    let schema = named.or_else(|| expected.and_then(schema::schema)).or_else(meta);
    let Some(schema) = schema else { return Err(ProtobufError::UnknownKind { api_version, kind }) };
    let mut object = Map::new();
    message(raw, schema, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader::new(body);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(type_meta)) => {
                let mut reader = Reader::new(type_meta);
                while let Some((number, wire)) = reader.next()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed)
}

/// Reads the fields of a message into an object; unknown field numbers are passed over.
fn message(
    bytes: &[u8],
    schema: Schema<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let Some(field) = schema.message().fields.iter().find(|field| field.number == number) {
            add(object, schema, field, wire, depth)?;
        } else if let (Some((_, inner)), Wire::Bytes(bytes)) =
            (schema.inlined().find(|(inlined, _)| *inlined == number), wire)
        {
            message(bytes, inner, object, depth + 1)?;
        }
    }
    Ok(())
}

fn add(
    object: &mut Map<String, Value>,
    schema: Schema<'_>,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::One => {
            let mut present = object.remove(field.name);
            if let (Some(Value::Object(members)), Some(child), Wire::Bytes(bytes), Kind::Message(_)) =
                (&mut present, schema.child(field), wire, field.kind)
            {
                // A message that comes in parts is one message.
                message(bytes, child, members, depth + 1)?;
                object.extend(present.map(|value| (field.name.to_owned(), value)));
                return Ok(());
            }
            let value = single(schema, field, wire, depth)?;
            if !omitted(field, &value) {
                object.insert(field.name.to_owned(), value);
            }
        }
        Shape::List => {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else { return Err(ProtobufError::Malformed) };
            match (field.kind, wire) {
                (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while let Some(number) = reader.varint()? {
                        list.push(single(schema, field, Wire::Varint(number), depth)?);
                    }
                }
                _ => list.push(single(schema, field, wire, depth)?),
            }
        }
        Shape::Map => {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::Malformed) };
            let (mut key, mut value) = (String::new(), None);
            let mut reader = Reader::new(entry);
            while let Some((number, wire)) = reader.next()? {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) => value = Some(wire),
                    _ => {}
                }
            }
            let value = single(schema, field, value.unwrap_or(Wire::Bytes(&[])), depth)?;
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Some(map) = map.as_object_mut() else { return Err(ProtobufError::Malformed) };
            map.insert(key, value);
        }
    }
    Ok(())
}

/// Whether JSON leaves the value out: Go's `omitempty`, which knows no zero of a type that is no pointer.
fn omitted(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        _ if field.pointer || field.required => false,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty() && field.kind != Kind::Quantity,
        _ => false,
    }
}

fn single(schema: Schema<'_>, field: &Field, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (field.kind, wire) {
        (Kind::String, Wire::Bytes(bytes)) => Ok(utf8(bytes)?.into()),
        (Kind::Bytes, Wire::Bytes(bytes)) => Ok(base64::prelude::BASE64_STANDARD.encode(bytes).into()),
        (Kind::Bool, Wire::Varint(value)) => Ok((value != 0).into()),
        // The low half of a varint is the number: negative ones are sign-extended.
        (Kind::Int32, Wire::Varint(value)) => Ok((value as i32).into()),
        (Kind::Int64, Wire::Varint(value)) => Ok((value as i64).into()),
        (Kind::Double, Wire::Fixed64(bits)) => Ok(f64::from_bits(bits).into()),
        (Kind::Message(_), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            let child = schema.child(field).ok_or(ProtobufError::Malformed)?;
            message(bytes, child, &mut object, depth + 1)?;
            Ok(Value::Object(object))
        }
        (Kind::SchemaOrList | Kind::SchemaOrBool | Kind::SchemaOrStrings, Wire::Bytes(bytes)) => {
            let child = schema.child(field).ok_or(ProtobufError::Malformed)?;
            schema_or(bytes, child, field.kind, depth)
        }
        (kind, Wire::Bytes(bytes)) => special::decode(kind, bytes),
        _ => Err(ProtobufError::Malformed),
    }
}

/// `JSONSchemaPropsOrArray` (1 schema, 2 schemas), `...OrBool` (1 truth value, 2 schema), `...OrStringArray` (1 schema, 2 strings).
fn schema_or(bytes: &[u8], child: Schema<'_>, kind: Kind, depth: usize) -> Result<Value, ProtobufError> {
    let (mut one, mut many, mut truth) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (kind, number, wire) {
            (Kind::SchemaOrBool, 1, Wire::Varint(value)) => truth = value != 0,
            (Kind::SchemaOrStrings, 2, Wire::Bytes(text)) => many.push(utf8(text)?.into()),
            (_, number, Wire::Bytes(bytes)) => {
                let mut object = Map::new();
                message(bytes, child, &mut object, depth + 1)?;
                match (kind, number) {
                    (Kind::SchemaOrList, 2) => many.push(Value::Object(object)),
                    _ => one = Some(Value::Object(object)),
                }
            }
            _ => {}
        }
    }
    Ok(match (one, kind) {
        (Some(schema), _) => schema,
        (None, Kind::SchemaOrBool) => truth.into(),
        (None, _) => Value::Array(many),
    })
}

#[cfg(test)]
mod tests;

//! Reads the structs that prost made of Kubernetes' protobuf files: numbers, types, and the marks in the comments.

use std::path::Path;

use anyhow::Context;

use crate::facts::PACKAGES;

/// A protobuf message. `path` is its Rust path without the crate: `api::apps::v1::DeploymentSpec`.
pub struct Message {
    pub path: String,
    pub marks: Vec<String>,
    pub fields: Vec<Field>,
}

/// A field of a protobuf message.
pub struct Field {
    pub rust_name: String,
    pub number: u32,
    pub shape: Shape,
    pub kind: Kind,
    pub marks: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    One,
    List,
    Map,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    Scalar(&'static str),
    /// The Rust path of the message.
    Message(String),
}

/// Reads every package that the table covers.
pub fn read(crate_source: &Path) -> anyhow::Result<Vec<Message>> {
    let mut messages = Vec::new();
    for package in PACKAGES {
        let file = crate_source.join("src").join(package.replace("::", "/")).join("mod.rs");
        let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        messages.extend(parse(package, &text));
    }
    Ok(messages)
}

fn parse(package: &str, text: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut marks = Vec::new();
    let mut attribute = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix("///") {
            marks.extend(comment.trim().strip_prefix('+').map(ToOwned::to_owned));
        } else if trimmed.starts_with("#[prost(") {
            attribute = until(trimmed, &mut lines, |whole| whole.ends_with(")]"));
        } else if let Some(name) = trimmed.strip_prefix("pub struct ") {
            let name = name.split([' ', '{']).next().unwrap_or_default();
            let path = format!("{package}::{name}");
            messages.push(Message { path, marks: std::mem::take(&mut marks), fields: Vec::new() });
        } else if let Some(message) = messages.last_mut().filter(|_| trimmed.starts_with("pub ") && !attribute.is_empty()) {
            // A type that spans lines ends where its angle brackets do: `BTreeMap<`, `String,`, `Quantity,`, `>,`.
            let declaration = until(trimmed, &mut lines, |whole| {
                whole.ends_with(',') && whole.matches('<').count() == whole.matches('>').count()
            });
            let taken = std::mem::take(&mut marks);
            message.fields.push(field(package, &std::mem::take(&mut attribute), &declaration, taken));
        }
    }
    messages
}

/// The text from `first` to the line with which it is whole, as one line.
fn until<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>, is_whole: fn(&str) -> bool) -> String {
    let mut whole = first.to_owned();
    while !is_whole(&whole) {
        let Some(next) = lines.next() else { break };
        whole.push(' ');
        whole.push_str(next.trim());
    }
    whole
}

fn field(package: &str, attribute: &str, declaration: &str, marks: Vec<String>) -> Field {
    let (name, type_text) = declaration["pub ".len()..].split_once(':').expect("a field has a type");
    let number = attribute.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next());
    let shape = match attribute {
        map if map.contains("btree_map") => Shape::Map,
        list if list.contains("repeated") => Shape::List,
        _ => Shape::One,
    };
    let kind = match attribute.split("btree_map = \"string,").nth(1).unwrap_or(&attribute["#[prost(".len()..]).trim() {
        scalar if scalar.starts_with("string") => Kind::Scalar("string"),
        scalar if scalar.starts_with("bytes") => Kind::Scalar("bytes"),
        scalar if scalar.starts_with("bool") => Kind::Scalar("bool"),
        scalar if scalar.starts_with("int32") => Kind::Scalar("int32"),
        scalar if scalar.starts_with("int64") => Kind::Scalar("int64"),
        scalar if scalar.starts_with("double") => Kind::Scalar("double"),
        message if message.starts_with("message") => Kind::Message(resolve(package, type_text)),
        other => panic!("unknown protobuf type {other:?}"),
    };
    Field {
        rust_name: name.trim().trim_start_matches("r#").to_owned(),
        number: number.and_then(|number| number.parse().ok()).expect("a field has a number"),
        shape,
        kind,
        marks,
    }
}

/// The path of the innermost type, seen from the crate's root.
fn resolve(package: &str, type_text: &str) -> String {
    let inner = type_text.trim_end_matches([' ', '>', ',']);
    let inner = inner.rsplit(['<', ' ']).next().unwrap_or(inner).trim();
    let mut path: Vec<&str> = package.split("::").collect();
    for part in inner.split("::") {
        match part {
            "super" => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("::")
}

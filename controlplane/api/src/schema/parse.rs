//! Reads the text of the schema table.
//!
//! ```text
//! io.k8s.api.apps.v1.Deployment kind=apps/v1/Deployment
//! 2 spec DeploymentSpec
//! 0 kind string
//!
//! io.k8s.api.core.v1.Probe
//! 1 - ProbeHandler
//! ```
//! A block is a message; a line is a field: its number, its JSON name (`-` for an inlined struct), its type and its
//! marks. `[]` before a type is a list, `{}` a map from strings. A type without a dot that is no scalar is a message of
//! the same package. Marks: `list=`, `keys=`, `patch=`, `key=`, `required`, `pointer`.

use std::collections::BTreeMap;

use super::{Field, GroupVersionKind, Kind, ListType, Message, MessageId, PatchStrategy, Shape, Table};

/// Parses a whole table; the error names the line.
pub(super) fn parse(text: &'static str) -> Result<Table, String> {
    let blocks: Vec<&'static str> = text.split("\n\n").skip(1).collect();
    let mut by_name = BTreeMap::new();
    for (index, block) in blocks.iter().enumerate() {
        let name = block.split([' ', '\n']).next().ok_or("an empty block")?;
        let index = u16::try_from(index).map_err(|_| "too many messages")?;
        by_name.insert(name, MessageId(index));
    }
    let mut messages = Vec::with_capacity(blocks.len());
    for block in blocks {
        messages.push(message(block, &by_name)?);
    }
    for index in 0..messages.len() {
        let mut members = Vec::new();
        collect_inlined(&messages, index, &mut members);
        let fields = &mut messages[index].fields;
        fields.extend(members);
        fields.sort_by_key(|field| field.name);
        fields.shrink_to_fit();
    }
    let kinds = messages.iter().zip(0u16..).filter_map(|(message, index)| Some((message.kind?, MessageId(index))));
    Ok(Table { by_kind: kinds.collect(), by_name, messages })
}

/// The fields of the structs inlined into a message, as JSON sees them. Runs before or after the others were extended.
fn collect_inlined(messages: &[Message], index: usize, members: &mut Vec<Field>) {
    for (_, id) in &messages[index].inlined {
        let inner = usize::from(id.0);
        let own = messages[inner].fields.iter().filter(|field| field.number != 0);
        members.extend(own.map(|field| Field { number: 0, ..field.clone() }));
        collect_inlined(messages, inner, members);
    }
}

fn message(block: &'static str, names: &BTreeMap<&'static str, MessageId>) -> Result<Message, String> {
    let mut lines = block.lines();
    let mut head = lines.next().ok_or("an empty block")?.split(' ');
    let name = head.next().ok_or("a block without a name")?;
    let mut message = Message { name, kind: None, atomic: false, fields: Vec::new(), inlined: Vec::new() };
    for mark in head {
        match mark.split_once('=') {
            Some(("kind", kind)) => message.kind = Some(group_version_kind(kind)?),
            None if mark == "atomic" => message.atomic = true,
            _ => return Err(format!("unknown mark {mark:?} of {name}")),
        }
    }
    for line in lines {
        let field = field(line, name, names).map_err(|problem| format!("{problem} in {line:?} of {name}"))?;
        match (field.name, field.kind) {
            ("-", Kind::Message(id)) => message.inlined.push((field.number, id)),
            _ => message.fields.push(field),
        }
    }
    Ok(message)
}

fn group_version_kind(text: &'static str) -> Result<GroupVersionKind, String> {
    let mut parts = text.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(version), Some(kind)) => Ok(GroupVersionKind { group, version, kind }),
        _ => Err(format!("{text:?} is no group, version and kind")),
    }
}

fn field(line: &'static str, message: &str, names: &BTreeMap<&'static str, MessageId>) -> Result<Field, String> {
    let mut words = line.split(' ');
    let (Some(number), Some(name), Some(type_text)) = (words.next(), words.next(), words.next()) else {
        return Err("too few words".to_owned());
    };
    let (shape, type_text) = match type_text.split_at_checked(2) {
        Some(("[]", rest)) => (Shape::List, rest),
        Some(("{}", rest)) => (Shape::Map, rest),
        _ => (Shape::One, type_text),
    };
    let mut field = Field {
        name,
        number: number.parse().map_err(|_| "no number")?,
        kind: kind(type_text, message, names)?,
        shape,
        list_type: ListType::Default,
        map_keys: Vec::new(),
        patch: PatchStrategy::default(),
        merge_key: None,
        required: false,
        pointer: false,
    };
    for mark in words {
        apply_mark(&mut field, mark)?;
    }
    Ok(field)
}

fn apply_mark(field: &mut Field, mark: &'static str) -> Result<(), String> {
    match mark.split_once('=').unwrap_or((mark, "")) {
        ("list", "atomic") => field.list_type = ListType::Atomic,
        ("list", "set") => field.list_type = ListType::Set,
        ("list", "map") => field.list_type = ListType::Map,
        ("list", "granular") => field.list_type = ListType::Default,
        ("keys", keys) => field.map_keys = keys.split(',').collect(),
        ("key", key) => field.merge_key = Some(key),
        ("required", _) => field.required = true,
        ("pointer", _) => field.pointer = true,
        ("patch", strategies) => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.patch.merge = true,
                    "replace" => field.patch.replace = true,
                    "retainKeys" => field.patch.retain_keys = true,
                    _ => return Err(format!("unknown strategy {strategy:?}")),
                }
            }
        }
        _ => return Err(format!("unknown mark {mark:?}")),
    }
    Ok(())
}

fn kind(text: &str, message: &str, names: &BTreeMap<&'static str, MessageId>) -> Result<Kind, String> {
    Ok(match text {
        "string" => Kind::String,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        "bool" => Kind::Bool,
        "bytes" => Kind::Bytes,
        "time" => Kind::Time,
        "micro-time" => Kind::MicroTime,
        "duration" => Kind::Duration,
        "int-or-string" => Kind::IntOrString,
        "quantity" => Kind::Quantity,
        "object" => Kind::Object,
        "fields" => Kind::Fields,
        "json" => Kind::Json,
        "strings" => Kind::Strings,
        "schema-or-list" => Kind::SchemaOrList,
        "schema-or-bool" => Kind::SchemaOrBool,
        "schema-or-strings" => Kind::SchemaOrStrings,
        name if name.contains('.') => Kind::Message(*names.get(name).ok_or("no such message")?),
        name => {
            let package = message.rfind('.').map_or("", |dot| &message[..=dot]);
            Kind::Message(*names.get(format!("{package}{name}").as_str()).ok_or("no such message")?)
        }
    })
}

//! Joins the sources and writes the table. The format is described where it is read, in `schema/parse.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::facts::{ROOTS, SPECIAL};
use crate::openapi::{Definition, key};
use crate::prost::{Field, Kind, Message, Shape};

/// The text of the table.
pub fn table(messages: &[Message], definitions: &BTreeMap<String, Definition>, pointers: &BTreeSet<String>) -> String {
    let all = Joined { messages: messages.iter().map(|message| (message.path.as_str(), message)).collect(), definitions };
    let mut out = String::from("# Made by schema-gen; do not edit. Facts of Kubernetes 1.35.\n");
    let mut unused = pointers.clone();
    let mut reached: Vec<_> = all.reachable().into_iter().map(|path| (all.name(path), all.messages[path])).collect();
    reached.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, message) in reached {
        all.write_message(&mut out, &name, message, &mut unused, pointers);
    }
    for pointer in unused {
        println!("no such field: {pointer}");
    }
    out
}

struct Joined<'a> {
    messages: BTreeMap<&'a str, &'a Message>,
    definitions: &'a BTreeMap<String, Definition>,
}

impl<'a> Joined<'a> {
    fn definition(&self, path: &str) -> Option<&'a Definition> {
        self.definitions.get(&key(&dotted(path)))
    }

    /// The published name, or the nearest thing to it for what is not published.
    fn name(&self, path: &str) -> String {
        self.definition(path).map_or_else(|| dotted(path), |definition| definition.name.clone())
    }

    /// `/v1/PodList` and `/v1/Pod` alike.
    fn kind(&self, path: &str) -> Option<String> {
        if let Some(definition) = self.definition(path) {
            return definition.kind.clone();
        }
        let item = self.definition(path.strip_suffix("List")?)?;
        item.list_kind.clone()
    }

    fn reachable(&self) -> BTreeSet<&'a str> {
        let kinds = self.messages.keys().copied().filter(|path| self.kind(path).is_some() || ROOTS.contains(path));
        let mut waiting: Vec<&str> = kinds.collect();
        let mut reached = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            let Some(message) = self.messages.get(path).filter(|_| special(path).is_none()) else { continue };
            if reached.insert(path) {
                waiting.extend(message.fields.iter().filter_map(|field| match &field.kind {
                    Kind::Message(target) => Some(target.as_str()),
                    Kind::Scalar(_) => None,
                }));
            }
        }
        reached
    }

    fn write_message(&self, out: &mut String, name: &str, message: &Message, unused: &mut BTreeSet<String>, pointers: &BTreeSet<String>) {
        let definition = self.definition(&message.path);
        let kind = self.kind(&message.path);
        write!(out, "\n{name}").expect("a string takes all");
        if let Some(kind) = &kind {
            write!(out, " kind={kind}").expect("a string takes all");
        }
        if message.marks.iter().any(|mark| mark == "structType=atomic") {
            out.push_str(" atomic");
        }
        out.push('\n');
        let mut json_names: BTreeMap<String, (&str, bool)> = BTreeMap::new();
        for (json, required) in definition.iter().flat_map(|definition| &definition.fields) {
            json_names.insert(key(json), (json, *required));
        }
        if definition.is_none() && kind.is_some() {
            json_names.insert("kind".to_owned(), ("kind", false));
            json_names.insert("apiversion".to_owned(), ("apiVersion", false));
        }
        let short = short(name);
        for field in &message.fields {
            let found = json_names.remove(&key(&field.rust_name));
            let inline = definition.is_some() && found.is_none() && matches!(field.kind, Kind::Message(_));
            if definition.is_some() && found.is_none() && !inline {
                println!("not in JSON: {name}.{} {}", field.rust_name, field.number);
                continue;
            }
            let camel = camel(&field.rust_name);
            let (json, required) = found.unwrap_or((&camel, false));
            let json = if inline { "-" } else { json };
            write!(out, "{} {json} {}", field.number, self.type_text(name, field)).expect("a string takes all");
            self.write_marks(out, field, inline);
            if required {
                out.push_str(" required");
            }
            let pointer = format!("{short}.{json}");
            if pointers.contains(&pointer) {
                unused.remove(&pointer);
                out.push_str(" pointer");
            }
            out.push('\n');
            if inline {
                println!("inline: {name}.{}", field.rust_name);
            }
        }
        // What is left belongs to inlined structs, or is `kind` and `apiVersion`.
        for (json, _) in json_names.into_values().filter(|(json, _)| ["kind", "apiVersion"].contains(json)) {
            writeln!(out, "0 {json} string").expect("a string takes all");
        }
    }

    fn type_text(&self, message: &str, field: &Field) -> String {
        let shape = match field.shape {
            Shape::One => "",
            Shape::List => "[]",
            Shape::Map => "{}",
        };
        let kind = match &field.kind {
            Kind::Scalar(name) => (*name).to_owned(),
            Kind::Message(path) => match special(path) {
                Some(name) => name.to_owned(),
                None => {
                    let target = self.name(path);
                    let package = &message[..=message.rfind('.').expect("a name has a package")];
                    match target.strip_prefix(package) {
                        Some(same_package) => same_package.to_owned(),
                        None => target,
                    }
                }
            },
        };
        format!("{shape}{kind}")
    }

    fn write_marks(&self, out: &mut String, field: &Field, inline: bool) {
        if inline {
            return;
        }
        let mut keys = Vec::new();
        for mark in &field.marks {
            let mark = mark.trim().trim_end_matches('.');
            match mark.split_once('=') {
                Some(("listType" | "mapType" | "structType", value)) => {
                    write!(out, " list={value}").expect("a string takes all");
                }
                Some(("listMapKey", value)) => keys.push(value),
                Some(("patchStrategy", value)) => write!(out, " patch={value}").expect("a string takes all"),
                Some(("patchMergeKey", value)) => write!(out, " key={value}").expect("a string takes all"),
                _ => {}
            }
        }
        if !keys.is_empty() {
            write!(out, " keys={}", keys.join(",")).expect("a string takes all");
        }
    }
}

fn special(path: &str) -> Option<&'static str> {
    SPECIAL.iter().find(|(special, _)| *special == path).map(|(_, name)| *name)
}

/// `api::apps::v1::Deployment` is published as `io.k8s.api.apps.v1.Deployment`.
fn dotted(path: &str) -> String {
    let path = path.replace("::", ".").replace("apiextensions_apiserver", "apiextensions-apiserver");
    format!("io.k8s.{}", path.replace("kube_aggregator", "kube-aggregator"))
}

/// `io.k8s.api.apps.v1.DeploymentSpec` is `apps.v1.DeploymentSpec` in `facts/`.
fn short(name: &str) -> String {
    let parts: Vec<&str> = name.rsplitn(4, '.').collect();
    format!("{}.{}.{}", parts[2], parts[1], parts[0])
}

fn camel(snake: &str) -> String {
    let mut out = String::new();
    let mut upper = false;
    for c in snake.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

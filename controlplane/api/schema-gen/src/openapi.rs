//! Reads the structs of `k8s-openapi`: exact names, JSON names, which fields are required, which structs are kinds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

/// One definition of the published API.
#[derive(Default)]
pub struct Definition {
    /// `io.k8s.api.apps.v1.DeploymentSpec`.
    pub name: String,
    /// JSON names; true for a required one.
    pub fields: BTreeMap<String, bool>,
    /// `apps/v1/Deployment`, `/v1/Pod`.
    pub kind: Option<String>,
    /// `DeploymentList`.
    pub list_kind: Option<String>,
}

/// Every definition, by [`key`] of its name.
pub fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, Definition>> {
    let mut definitions = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("failed to read {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if let Some(definition) = parse(&std::fs::read_to_string(&path)?) {
                definitions.insert(key(&definition.name), definition);
            }
        }
    }
    Ok(definitions)
}

/// A name without what prost's renaming loses: case, dashes, underscores and dollars.
pub fn key(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || *c == '.').collect::<String>().to_lowercase()
}

fn parse(text: &str) -> Option<Definition> {
    let name = text.lines().next()?.strip_prefix("// Generated from definition ")?.trim().to_owned();
    let mut definition = Definition { name, ..Definition::default() };
    let mut optional = BTreeMap::new();
    let mut consts = BTreeMap::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some((json, rust)) = trimmed.split_once(" => Field::Key_").filter(|(json, _)| json.starts_with('"')) {
            let rust = rust.trim_end_matches(',');
            let required = optional.get(rust).is_some_and(|optional: &bool| !optional) && rust != "metadata";
            definition.fields.insert(json.trim_matches('"').to_owned(), required);
        } else if let Some(constant) = trimmed.strip_prefix("const ") {
            let value = constant.split('"').nth(1).unwrap_or_default();
            consts.entry(constant.split(':').next().unwrap_or_default()).or_insert(value);
        } else if let Some((field, kind)) = line.strip_prefix("    pub ").and_then(|rest| rest.split_once(": ")) {
            optional.insert(field.to_owned(), kind.starts_with("Option<"));
        }
    }
    if let (Some(group), Some(version), Some(kind)) = (consts.get("GROUP"), consts.get("VERSION"), consts.get("KIND")) {
        definition.kind = Some(format!("{group}/{version}/{kind}"));
        definition.list_kind = consts.get("LIST_KIND").map(|kind| format!("{group}/{version}/{kind}"));
    }
    Some(definition)
}

//! `metadata.managedFields`: each writer's entry, and the limit on how many there are.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use super::{FieldSet, Writer};

/// The most writers that did not apply, as in Kubernetes; the oldest ones share one entry.
const MAX_UPDATERS: usize = 10;
/// The entry of those who were too many.
const ANCIENT: &str = "ancient-changes";
/// The longest name of a manager, in characters.
const MAX_NAME: usize = 128;

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying a configuration.
    Apply,
    /// By any other write.
    Update,
}

/// What tells two entries apart. One who applies is the same whatever version it speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// `kubectl`.
    pub name: String,
    /// How it owns what it owns.
    pub operation: Operation,
    /// `status`; empty for the object itself.
    pub subresource: String,
    /// `apps/v1`; empty for [`Operation::Apply`].
    pub api_version: String,
}

/// What a manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its fields; not empty in a stored entry.
    pub fields: FieldSet,
    /// The version in which the fields are named: `apps/v1`.
    pub api_version: String,
    /// When it last changed something, RFC 3339 in seconds.
    pub time: Option<String>,
}

/// Every manager of an object with what it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    pub(super) entries: BTreeMap<Manager, Entry>,
}

/// Not a list of `ManagedFieldsEntry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the managed fields are malformed")]
pub struct Malformed;

impl Operation {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Manager {
    pub(super) fn of(writer: Writer<'_>, operation: Operation) -> Self {
        let api_version = if operation == Operation::Update { writer.api_version } else { "" };
        Self {
            name: writer.manager.to_owned(),
            operation,
            subresource: writer.subresource.to_owned(),
            api_version: api_version.to_owned(),
        }
    }
}

/// As a conflict names it: `"kubectl-edit" with subresource "status" using apps/v1`.
impl fmt::Display for Manager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(formatter, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(formatter, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

impl Managed {
    /// Reads `metadata.managedFields`; null and absent are no managers.
    ///
    /// # Errors
    /// [`Malformed`]; the caller should go on with what it has stored.
    pub fn decode(value: &Value) -> Result<Self, Malformed> {
        let mut entries = BTreeMap::new();
        let list = match value {
            Value::Null => return Ok(Self::default()),
            Value::Array(list) => list,
            _ => return Err(Malformed),
        };
        for item in list {
            let (manager, entry) = decode_entry(item).ok_or(Malformed)?;
            entries.insert(manager, entry);
        }
        Ok(Self { entries })
    }

    /// As `metadata.managedFields`: those who applied first, then by time and name.
    pub fn encode(&self) -> Value {
        let mut entries: Vec<(&Manager, &Entry)> = self.entries.iter().collect();
        entries.sort_by_key(|(manager, entry)| (manager.operation, entry.time.as_deref(), *manager));
        entries.into_iter().map(|(manager, entry)| encode_entry(manager, entry)).collect()
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every manager with what it owns, in the order of [`Manager`].
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Entry)> {
        self.entries.iter()
    }

    /// What a manager owns.
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.get(manager)
    }

    /// Everything that is owned.
    pub(super) fn all_fields(&self) -> FieldSet {
        let mut all = FieldSet::default();
        self.entries.values().for_each(|entry| all.add(&entry.fields));
        all
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Puts the oldest updaters of each version into one entry until there are few enough.
    pub(super) fn cap(&mut self) {
        let is_updater = |(manager, _): &(&Manager, &Entry)| manager.operation == Operation::Update;
        let mut updaters: Vec<(Option<String>, Manager)> = self
            .entries
            .iter()
            .filter(is_updater)
            .map(|(manager, entry)| (entry.time.clone(), manager.clone()))
            .collect();
        updaters.sort();
        let mut left = updaters.len();
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for (time, manager) in updaters {
            if left <= MAX_UPDATERS {
                return;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            let bucket = ancient(version.clone());
            // A bucket is made only when there are two to share it.
            let mut shared = self.entries.remove(first).unwrap_or_default();
            shared.fields.add(&self.entries.remove(&manager).unwrap_or_default().fields);
            shared.time = time;
            self.entries.insert(bucket.clone(), shared);
            first_of_version.insert(version, bucket);
            left -= 1;
        }
    }
}

fn ancient(api_version: String) -> Manager {
    Manager { name: ANCIENT.to_owned(), operation: Operation::Update, subresource: String::new(), api_version }
}

fn decode_entry(value: &Value) -> Option<(Manager, Entry)> {
    let text = |field: &str| match value.get(field) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let (name, api_version) = (text("manager")?, text("apiVersion")?);
    if api_version.is_empty() || text("fieldsType")? != "FieldsV1" || name.chars().count() > MAX_NAME {
        return None;
    }
    let fields = match value.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::default(),
        Some(fields) => FieldSet::decode(fields)?,
    };
    let manager = Manager {
        name: name.to_owned(),
        operation,
        subresource: text("subresource")?.to_owned(),
        api_version: if operation == Operation::Update { api_version.to_owned() } else { String::new() },
    };
    let time = Some(text("time")?.to_owned()).filter(|time| !time.is_empty());
    Some((manager, Entry { fields, api_version: api_version.to_owned(), time }))
}

fn encode_entry(manager: &Manager, entry: &Entry) -> Value {
    let mut map: Map<String, Value> = Map::new();
    let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
    set("manager", json!(manager.name));
    set("operation", json!(manager.operation.as_str()));
    set("apiVersion", json!(entry.api_version));
    if let Some(time) = &entry.time {
        set("time", json!(time));
    }
    set("fieldsType", json!("FieldsV1"));
    set("fieldsV1", entry.fields.encode());
    if !manager.subresource.is_empty() {
        set("subresource", json!(manager.subresource));
    }
    Value::Object(map)
}

//! The resource table: one row a resource, and nothing that knows a resource by name anywhere else.
//!
//! A row says how the resource is called, which verbs and subresources it has, where it is stored, which columns a
//! table of it shows, and which [`Strategy`] completes and checks its objects. Discovery, OpenAPI paths, tables and the
//! API server's verbs are all derived from it. To add a resource: a file in `kinds/`, its row, its name in
//! `kinds/mod.rs`.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds;
use crate::metadata;
use crate::validation::{self, FieldError, NameRule};

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`.
    pub plural: &'static str,
    /// `deployment`.
    pub singular: &'static str,
    /// `deploy`.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// The message in the schema table: `io.k8s.api.apps.v1.Deployment`.
    pub schema: &'static str,
    /// The part of the key: `core/pods`. Empty for what is never stored.
    pub storage: &'static str,
    /// The columns of a table, the name first.
    pub columns: &'static [Column],
    /// Whether a change of its wish counts a generation.
    pub has_generation: bool,
    /// Whether an update of a missing object creates it.
    pub create_on_update: bool,
    /// Whether its objects go away by themselves some time after their last write.
    pub short_lived: bool,
    /// Whether an update need not say which version it has seen.
    pub unconditional_update: bool,
    /// The fields by which it can be selected.
    pub selectable_fields: &'static [SelectableField],
    /// Its defaults and checks.
    pub strategy: &'static dyn Strategy,
}

/// A part of a resource that has a path of its own.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// `scale`.
    pub name: &'static str,
    /// The group of the kind that it speaks: `autoscaling`.
    pub group: &'static str,
    /// The version of the kind that it speaks.
    pub version: &'static str,
    /// The kind that it speaks: `Scale`.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// A column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    /// `Ready`; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer`.
    pub kind: &'static str,
    /// `name` for the name, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What it means.
    pub description: &'static str,
    /// What it shows of an object. Never fails: what is missing or odd shows as a gap.
    pub cell: fn(&Value, Timestamp) -> Value,
}

/// A field by which objects can be selected.
#[derive(Clone, Copy)]
pub struct SelectableField {
    /// `spec.nodeName`.
    pub name: &'static str,
    /// Its value as text; empty when it is missing.
    pub value: fn(&Value) -> String,
}

/// How objects of a resource are completed and checked. Pure: neither time nor anything but the object is known.
pub trait Strategy: Send + Sync {
    /// Which names its objects may have.
    fn names(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Fills in what Kubernetes fills in. Doing it twice is the same as once.
    fn default(&self, _object: &mut Value) {}

    /// Takes from a new object what a creator may not set, and adds what it is born with.
    fn prepare_create(&self, object: &mut Value) {
        remove_status(object);
    }

    /// Undoes what an update of the main resource may not touch: the status.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    /// Undoes what an update of the status may not touch: everything but status and metadata.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
    }

    /// What is wrong with the object, whether it is new or changed, apart from its metadata.
    fn check(&self, _object: &Value, _problems: &mut Vec<FieldError>) {}

    /// What is wrong with the change.
    fn check_change(&self, _new: &Value, _old: &Value, _problems: &mut Vec<FieldError>) {}

    /// Everything that is wrong with a new object.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut problems = validation::object_metadata(object, self.names());
        self.check(object, &mut problems);
        problems
    }

    /// Everything that is wrong with a changed object.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut problems = validation::object_metadata(new, self.names());
        validation::metadata_change(new, old, &mut problems);
        self.check(new, &mut problems);
        self.check_change(new, old, &mut problems);
        problems
    }
}

/// The strategy of what has neither defaults nor checks of its own.
pub struct Plain;

impl Strategy for Plain {}

/// Carries a member of the old object over to the new one.
pub(crate) fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

pub(crate) fn remove_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
}

pub(crate) fn keep_all_but_status(new: &mut Value, old: &Value) {
    let (status, metadata) = (new.get("status").cloned(), new.get("metadata").cloned());
    *new = old.clone();
    let Some(map) = new.as_object_mut() else { return };
    for (field, value) in [("status", status), ("metadata", metadata)] {
        match value {
            Some(value) => map.insert(field.to_owned(), value),
            None => map.remove(field),
        };
    }
    for field in ["ownerReferences", "finalizers"] {
        let kept = old.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        match kept {
            Some(kept) => metadata::metadata_mut(new).insert(field.to_owned(), kept),
            None => metadata::metadata_mut(new).remove(field),
        };
    }
}

/// The verbs of an ordinary resource.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Resource {
    /// What most rows have; each row says only how it differs.
    pub(crate) const BASE: Self = Self {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        schema: "",
        storage: "",
        columns: &[],
        has_generation: false,
        create_on_update: false,
        short_lived: false,
        unconditional_update: true,
        selectable_fields: &[],
        strategy: &Plain,
    };

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether its objects are answered and never stored.
    pub fn is_virtual(&self) -> bool {
        self.storage.is_empty()
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Resource({}/{})", self.api_version(), self.plural)
    }
}

pub use kinds::metrics::GROUP as METRICS_GROUP;
pub use kinds::storage_class::is_default as is_default_storage_class;

/// Every resource, core group first.
pub fn resources() -> &'static [Resource] {
    kinds::RESOURCES
}

/// The resource of that name: `find("apps", "v1", "deployments")`.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// The resource of that kind: `find_kind("apps", "v1", "Deployment")`.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    resources().iter().find(|row| row.group == group && row.version == version && row.kind == kind)
}

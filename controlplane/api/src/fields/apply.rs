//! An applied configuration: merged into the object, less what its manager no longer names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::collect::{fields_of, list_problem, with_declared};
use super::compare::compare;
use super::conflict::{self, Conflict};
use super::form::Form;
use super::managed::{Managed, Manager, Operation};
use super::merge::merge;
use super::remove::without;
use super::track::{nobodys, owners, set, update};
use super::{FieldSet, Writer, last_applied};
use crate::metadata;
use crate::schema::Schema;
use crate::status::Status;

/// Who owns an object that nobody has owned when it is first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What is applied, and how.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// An object of the kind with the fields that matter; explicit nulls unset fields.
    pub object: &'a Value,
    /// Whether to take what others own.
    pub force: bool,
}

/// An object to which a configuration was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object with its new `managedFields`, not defaulted; a field that was unset may be null.
    pub object: Value,
    /// Whether anything but times differs from before.
    pub changed: bool,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it names, and want it otherwise. Not empty.
    #[error("apply failed with {} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The configuration brings managed fields of its own.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// A list has an item that nothing identifies, or that stands twice.
    #[error("failed to create typed patch object ({subject}): {problem}")]
    List {
        /// `default/web; apps/v1, Kind=Deployment`.
        subject: String,
        /// The path and what is wrong there.
        problem: String,
    },
}

impl ApplyError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => conflict::status(conflicts),
            Self::ManagedFields | Self::List { .. } => Status::bad_request(self.to_string()),
        }
    }
}

/// Applies a configuration to an object.
///
/// `live` is the object as it is, or one of no content (but its kind and name) that is to be created.
///
/// # Errors
/// See [`ApplyError`]; with [`Configuration::force`] there are no conflicts.
pub fn apply(
    live: &Value,
    configuration: Configuration<'_>,
    schema: Schema<'_>,
    writer: Writer<'_>,
) -> Result<Applied, ApplyError> {
    let wanted = configuration.object;
    if wanted.pointer("/metadata/managedFields").is_some_and(|given| !given.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    if let Some(problem) = list_problem(wanted, schema) {
        return Err(ApplyError::List { subject: subject(wanted), problem });
    }
    let mut managed = owners(live);
    if managed.is_empty() {
        let (nothing, seen) = (json!({ "metadata": {} }), seen(live, writer.subresource));
        let first = Writer { manager: BEFORE_FIRST_APPLY, ..writer };
        update(&mut managed, &compare(&nothing, &seen, schema).but(nobodys()), first);
    }
    let step = Step { live, wanted, schema, writer };
    let outcome = match step.take(&managed, configuration.force) {
        Err(conflicts) if writer.manager == last_applied::MANAGER => {
            match last_applied::refuse(conflicts, live, schema, writer.api_version) {
                Some(conflicts) => Err(conflicts),
                None => step.take(&managed, true),
            }
        }
        outcome => outcome,
    };
    let (mut object, managed) = outcome.map_err(ApplyError::Conflicts)?;
    if writer.manager == last_applied::MANAGER {
        last_applied::refresh(&mut object, wanted);
    }
    set(&mut object, &managed);
    let changed = object != *live;
    Ok(Applied { object, changed })
}

/// What of an object can be written through a subresource: only of that somebody is made the owner.
fn seen(live: &Value, subresource: &str) -> Value {
    let mut seen = live.clone();
    if let Some(map) = seen.as_object_mut() {
        map.retain(|field, _| field == "metadata" || (field == "status") == (subresource == "status"));
    }
    seen
}

fn subject(object: &Value) -> String {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) =
        (metadata::namespace(object).unwrap_or_default(), metadata::name(object).unwrap_or_default());
    format!("{namespace}/{name}; {}, Kind={}", text("apiVersion"), text("kind"))
}

/// One try to apply.
#[derive(Clone, Copy)]
struct Step<'a, 't> {
    live: &'a Value,
    wanted: &'a Value,
    schema: Schema<'t>,
    writer: Writer<'a>,
}

impl Step<'_, '_> {
    /// The object and its managers afterwards, or what is in the way.
    fn take(self, before: &Managed, force: bool) -> Result<(Value, Managed), Vec<Conflict>> {
        let own = Manager::of(self.writer, Operation::Apply);
        let mut managed = before.clone();
        let fields = fields_of(self.wanted, self.schema);
        let entry = managed.entries.entry(own.clone()).or_default();
        let last = std::mem::replace(&mut entry.fields, fields);
        self.writer.api_version.clone_into(&mut entry.api_version);

        let merged = merge(self.live, self.wanted, self.schema);
        let object = self.prune(merged, &last, &managed);
        let changes = compare(self.live, &object, self.schema);
        let set = changes.added.clone().union(&changes.modified);
        let others = managed.entries.iter().filter(|(manager, _)| **manager != own);
        let in_the_way: BTreeMap<Manager, FieldSet> = others
            .map(|(manager, entry)| (manager.clone(), entry.fields.intersection(&set)))
            .filter(|(_, fields)| !fields.is_empty())
            .collect();
        if !force && !in_the_way.is_empty() {
            return Err(conflict::of(&in_the_way));
        }
        for (manager, entry) in managed.entries.iter_mut().filter(|(manager, _)| **manager != own) {
            if let Some(fields) = in_the_way.get(manager) {
                entry.fields.subtract(fields);
            }
            entry.fields.subtract(&changes.removed);
        }
        // Not before: the object keeps its name because the configuration names it.
        managed.entries.entry(own.clone()).or_default().fields.subtract(nobodys());
        managed.drop_empty();
        if (!changes.is_empty() || managed != *before)
            && let Some(entry) = managed.entries.get_mut(&own)
        {
            entry.time = Some(self.writer.now.to_owned());
        }
        Ok((object, managed))
    }

    /// Removes what the manager applied last time and names no more, and nobody else owns.
    fn prune(self, merged: Value, last: &FieldSet, managed: &Managed) -> Value {
        if last.is_empty() {
            return merged;
        }
        let declared = |set: &FieldSet| with_declared(set, Form::Struct(self.schema));
        let present = declared(&fields_of(&merged, self.schema));
        let dropped = present.intersection(&declared(last)).difference(&declared(&managed.all_fields()));
        if dropped.is_empty() { merged } else { without(merged, &dropped, self.schema) }
    }
}

//! `update`, and the read-modify-write that patches and subresources share with it.
//!
//! A change is made to what this server has, which may be old; the commit's precondition catches that. An answer that
//! is given without a commit (a failure, "nothing to change") is given only after the state was confirmed.

use http::{Response, StatusCode};
use serde_json::Value;
use shoal_api::{FieldError, Status, fields, metadata, subresource};
use shoal_store::{Entry, Transaction};

use crate::admission;
use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::ownership::{self, Ownership};
use crate::query::WriteOptions;
use crate::verbs::commit::{self, Outcome};
use crate::verbs::create;
use crate::{Body, allocate, decode, errors, events, limits, object, respond, stored};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status, and little else.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
    /// A pod's ephemeral containers.
    EphemeralContainers,
    /// A pod's node: no rule of updates applies, its own stand in `subresources/binding.rs`.
    Binding,
}

impl Part {
    fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Status => Some("status"),
            Self::Finalize => Some("finalize"),
            Self::EphemeralContainers => Some("ephemeralcontainers"),
            Self::Binding => Some("binding"),
        }
    }
}

/// A change of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub part: Part,
    pub dry_run: bool,
    pub ownership: Ownership,
}

impl Change {
    /// A change that is no apply.
    pub(crate) fn of(part: Part, dry_run: bool) -> Self {
        Self { part, dry_run, ownership: Ownership::OfChanges }
    }
}

/// Replaces an object by the one in the body.
pub(crate) async fn answer(call: &Call, body: Body, part: Part) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let options = WriteOptions::parse(&call.query)?;
    let resource = call.resource;
    let body = decode::read(body).await?;
    let kind = (resource.group, resource.version, resource.kind);
    let (mut object, warnings) =
        decode::object(&call.headers, &body, Some(resource.schema), kind, options.field_validation)?;
    let name = call.name()?;
    if metadata::name(&object).unwrap_or_default().is_empty() && part != Part::Main {
        object::metadata_mut(&mut object).insert("name".to_owned(), name.into());
    }
    let write = Change::of(part, options.dry_run);
    let changed = change(call, name, write, |_| Ok(object.clone())).await;
    let (code, object) = match changed {
        Err(status) if status.code == 404 && may_create(call, &object, part) => {
            call.require("create", resource.group, resource.plural, "", name)?;
            check_name(&object, name)?;
            (StatusCode::CREATED, create::create(call, object, options.dry_run, Ownership::OfChanges).await?)
        }
        changed => (StatusCode::OK, changed?),
    };
    Ok(respond::with_warnings(respond::value(code, &shown.object(object)), &warnings))
}

fn may_create(call: &Call, object: &Value, part: Part) -> bool {
    call.resource.create_on_update
        && part == Part::Main
        && metadata::resource_version(object).unwrap_or_default().is_empty()
}

/// Changes an object by `make`, which is given it in the spelling of its group, as often as it takes.
///
/// Returns the object as it is now, in the stored spelling.
///
/// # Errors
/// 404, 409 when it is not what the client has seen, 422 when the outcome is not valid, and what `make` says.
pub(crate) async fn change(
    call: &Call,
    name: &str,
    change: Change,
    make: impl Fn(&Value) -> Result<Value, Status> + Send + Sync,
) -> Result<Value, Status> {
    for _ in 0..limits::UPDATE_TRIES {
        let entry = call.entry(name);
        let outcome = match &entry {
            Some(entry) => attempt(call, name, change, entry, &make).await,
            None => Err(call.not_found(name)),
        };
        if let Ok(Attempt::Committed(object)) = outcome {
            return Ok(object);
        }
        // Nothing was committed, so nothing has proved that what was read is current.
        call.barrier().await?;
        let is_current = call.entry(name).map(|entry| entry.modified) == entry.map(|entry| entry.modified);
        match outcome {
            Ok(Attempt::Unchanged(object)) if is_current => return Ok(object),
            Err(status) if is_current => return Err(status),
            _ => {}
        }
    }
    Err(conflict(call, name))
}

/// The failure that tells a client to read again.
pub(crate) fn conflict(call: &Call, name: &str) -> Status {
    let message = "the object has been modified; please apply your changes to the latest version and try again";
    Status::conflict(call.resource.group, call.resource.plural, name, message)
}

enum Attempt {
    Committed(Value),
    /// Nothing to change, or a dry run: the object as it would be.
    Unchanged(Value),
    Lost,
}

async fn attempt(
    call: &Call,
    name: &str,
    Change { part, dry_run, ownership }: Change,
    entry: &Entry,
    make: &(impl Fn(&Value) -> Result<Value, Status> + Send + Sync),
) -> Result<Attempt, Status> {
    let resource = call.resource;
    let mut old = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
    // Through a subresource nobody can change the managed fields, and only an apply reads them.
    let is_hidden = ownership == Ownership::OfChanges && call.target.subresource.is_some();
    let hidden = if is_hidden { ownership::take(&mut old) } else { None };
    let mut new = if events::is_other_spelling(resource.group) {
        let mut served = old.clone();
        events::serve(&mut served);
        let mut new = make(&served)?;
        events::store(&mut new);
        new
    } else {
        make(&old)?
    };
    check_name(&new, name)?;
    object::set_namespace(&mut new, call.namespace())?;
    check_version(call, name, part, &new, &old)?;
    object::keep_identity(&mut new, &old);
    match part {
        Part::Main => resource.strategy.prepare_update(&mut new, &old),
        Part::Status => resource.strategy.prepare_status_update(&mut new, &old),
        Part::Finalize => prepare_finalize(&mut new, &old),
        Part::EphemeralContainers => subresource::take_ephemeral_containers(&mut new, &old),
        Part::Binding => {}
    }
    resource.strategy.default(&mut new);
    // What admission and allocation add below is nobody's, and so is a pod's node; as in Kubernetes.
    if part == Part::Binding {
        ownership::put_back(&mut new, hidden.clone());
    } else if ownership == Ownership::OfChanges {
        let kept = hidden.as_ref().or_else(|| old.pointer("/metadata/managedFields"));
        ownership::changed(call, &old, kept, &mut new);
    }
    ownership::put_back(&mut old, hidden);
    let view = call.store().view();
    admission::update(&call.admission(name, part.subresource(), &view), &new, &old)?;
    if resource.has_generation && matches!(part, Part::Main | Part::EphemeralContainers) {
        object::count_generation(&mut new, &old);
    }
    let mut problems = match part {
        Part::Binding => Vec::new(),
        Part::EphemeralContainers => subresource::ephemeral_container_problems(&new, &old),
        Part::Main | Part::Status | Part::Finalize => resource.strategy.validate_update(&new, &old),
    };
    problems.extend(new_finalizers(&new, &old));
    if !problems.is_empty() {
        return Err(Status::invalid(resource.group, resource.kind, name, problems));
    }
    let mut settled = Transaction::default();
    allocate::settle(resource, &view, Some(&mut new), Some(&old), &mut settled)?;
    if dry_run {
        return Ok(Attempt::Unchanged(new));
    }
    if new == old || fields::only_times_differ(&new, &old) {
        return Ok(Attempt::Unchanged(old));
    }
    let mut transaction;
    if is_over(&new) {
        transaction = Transaction::default();
        transaction.require_modified_at(call.key(name), entry.modified);
        transaction.delete(call.key(name));
        allocate::settle(resource, &view, None, Some(&old), &mut transaction)?;
    } else {
        transaction = commit::replace(call, name, entry.modified, stored::encode(&new));
        transaction.preconditions.append(&mut settled.preconditions);
        transaction.writes.append(&mut settled.writes);
    }
    match commit::commit(call, transaction).await? {
        Outcome::Committed(revision) => {
            object::metadata_mut(&mut new).insert("resourceVersion".to_owned(), revision.to_string().into());
            Ok(Attempt::Committed(new))
        }
        Outcome::Lost(_) => Ok(Attempt::Lost),
    }
}

pub(crate) fn check_name(object: &Value, name: &str) -> Result<(), Status> {
    match metadata::name(object) {
        Some(given) if given == name => Ok(()),
        given => {
            let given = given.unwrap_or_default();
            Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )))
        }
    }
}

/// Compares the version and uid that the client has seen with what there is.
fn check_version(call: &Call, name: &str, part: Part, new: &Value, old: &Value) -> Result<(), Status> {
    let given = metadata::uid(new).unwrap_or_default();
    let uid = metadata::uid(old).unwrap_or_default();
    if !given.is_empty() && given != uid {
        let message = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Status::conflict(call.resource.group, call.resource.plural, name, &message));
    }
    let version = metadata::resource_version(new).unwrap_or_default();
    if version.is_empty() || version == "0" {
        if part == Part::Main && !call.resource.unconditional_update {
            let error =
                FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update".to_owned());
            return Err(Status::invalid(call.resource.group, call.resource.kind, name, vec![error]));
        }
        return Ok(());
    }
    if metadata::resource_version(old) == Some(version) { Ok(()) } else { Err(conflict(call, name)) }
}

/// `finalize` changes a namespace's `spec.finalizers` and nothing else.
fn prepare_finalize(new: &mut Value, old: &Value) {
    let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| serde_json::json!([]));
    *new = old.clone();
    if let Some(map) = new.as_object_mut() {
        let spec = map.entry("spec").or_insert_with(|| serde_json::json!({}));
        spec["finalizers"] = finalizers;
    }
}

/// Nothing may be put in the way of an object that is being deleted.
fn new_finalizers(new: &Value, old: &Value) -> Option<FieldError> {
    metadata::deletion_timestamp(old)?;
    let before = metadata::finalizers(old);
    let added: Vec<String> = metadata::finalizers(new)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|name| format!("{name:?}"))
        .collect();
    if added.is_empty() {
        return None;
    }
    let message = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    Some(FieldError::forbidden("metadata.finalizers", message))
}

/// Whether an object that is being deleted has nothing left that holds it.
fn is_over(object: &Value) -> bool {
    metadata::deletion_timestamp(object).is_some()
        && metadata::finalizers(object).is_empty()
        && object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && !holds_content(object)
}

/// Whether this is a namespace whose content is still to be deleted.
pub(crate) fn holds_content(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Namespace")
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|finalizers| !finalizers.is_empty())
}

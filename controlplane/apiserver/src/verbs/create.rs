//! `create`: a new object, in one transaction with what it takes.

use http::{Response, StatusCode};
use serde_json::Value;
use shoal_api::{Status, metadata};
use shoal_store::{Revision, Transaction};

use crate::admission;
use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::ownership::{self, Ownership};
use crate::query::WriteOptions;
use crate::verbs::commit::{self, Outcome};
use crate::{Body, allocate, decode, events, limits, object, respond, stored};

/// Creates the object in the body.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let options = WriteOptions::parse(&call.query)?;
    let resource = call.resource;
    let body = decode::read(body).await?;
    let kind = (resource.group, resource.version, resource.kind);
    let (object, warnings) =
        decode::object(&call.headers, &body, Some(resource.schema), kind, options.field_validation)?;
    let created = create(call, object, options.dry_run, Ownership::OfChanges).await?;
    Ok(respond::with_warnings(respond::value(StatusCode::CREATED, &shown.object(created)), &warnings))
}

/// Completes, checks and stores a new object (in the spelling of its group); returns it in the stored spelling.
pub(crate) async fn create(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    ownership: Ownership,
) -> Result<Value, Status> {
    let resource = call.resource;
    object::set_namespace(&mut object, call.namespace())?;
    if metadata::resource_version(&object).is_some_and(|version| !version.is_empty()) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created".to_owned()));
    }
    if events::is_other_spelling(resource.group) {
        events::store(&mut object);
    }
    object::give_identity(&mut object, resource.has_generation);
    let mut tries = limits::GENERATED_NAME_TRIES + limits::ALLOCATION_TRIES;
    loop {
        let mut object = object.clone();
        let generated = object::generate_name(&mut object);
        tries -= 1;
        match attempt(call, &mut object, dry_run, ownership).await? {
            Attempt::Done(revision) => {
                if let Some(revision) = revision {
                    object::metadata_mut(&mut object).insert("resourceVersion".to_owned(), revision.to_string().into());
                }
                return Ok(object);
            }
            Attempt::NameTaken if !generated || tries == 0 => {
                let name = metadata::name(&object).unwrap_or_default();
                return Err(Status::already_exists(resource.group, resource.plural, name));
            }
            Attempt::NameTaken => {}
            Attempt::LostRace if tries == 0 => {
                return Err(Status::too_many_requests(
                    "too many writers, please try again".to_owned(),
                    limits::RETRY_AFTER_SECONDS,
                ));
            }
            // What another object took, or a namespace that changed: look again.
            Attempt::LostRace => {}
        }
    }
}

enum Attempt {
    /// Stored at this revision; none when nothing was to be stored.
    Done(Option<Revision>),
    NameTaken,
    LostRace,
}

async fn attempt(call: &Call, object: &mut Value, dry_run: bool, ownership: Ownership) -> Result<Attempt, Status> {
    let resource = call.resource;
    let view = call.store().view();
    let name = metadata::name(object).unwrap_or_default().to_owned();
    if name.is_empty() {
        let error = shoal_api::FieldError::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(resource.group, resource.kind, "", vec![error]));
    }
    let mut transaction = Transaction::default();
    let key = call.key(&name);
    transaction.require_absent(key.clone());
    if let Some(namespace) = call.namespace() {
        let living =
            admission::living_namespace(&view, namespace, (resource.group, resource.plural, &name), &mut transaction);
        if let Err(status) = living {
            // This server may be behind: a namespace that was just made elsewhere counts.
            if status.code != 404 || call.barrier().await? <= view.revision() {
                return Err(status);
            }
            return Ok(Attempt::LostRace);
        }
    }
    resource.strategy.prepare_create(object);
    resource.strategy.default(object);
    // What admission and allocation add below is nobody's, as in Kubernetes.
    if ownership == Ownership::OfChanges {
        ownership::created(call, object);
    }
    admission::create(&call.admission(&name, None, &view), object)?;
    let problems = resource.strategy.validate_create(object);
    if !problems.is_empty() {
        return Err(Status::invalid(resource.group, resource.kind, &name, problems));
    }
    allocate::settle(resource, &view, Some(object), None, &mut transaction)?;
    if dry_run {
        call.barrier().await?;
        return Ok(if call.store().view().get(&key).is_some() { Attempt::NameTaken } else { Attempt::Done(None) });
    }
    commit::put(call, key, stored::encode(object), &mut transaction);
    match commit::commit(call, transaction).await? {
        Outcome::Committed(revision) => Ok(Attempt::Done(Some(revision))),
        Outcome::Lost(0) => Ok(Attempt::NameTaken),
        Outcome::Lost(_) => {
            // What stood in the way may not have reached this server yet.
            call.barrier().await?;
            Ok(Attempt::LostRace)
        }
    }
}

//! `list`: a collection at one revision, a page at a time.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::{Status, table};
use shoal_store::{Revision, View};

use crate::continue_token::ContinueToken;
use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::respond;
use crate::selection::Selection;
use crate::verbs::list_options::{self, At};
use crate::{Body, errors, keys, stored};

/// One page: the objects' stored bytes, and what is left.
struct Page {
    objects: Vec<(bytes::Bytes, Revision)>,
    /// The last key of the page, behind the prefix, when there is more.
    more: Option<String>,
    /// How many are left; unknown when a selector hides some.
    remaining: Option<usize>,
}

/// Answers with a page of the collection.
pub(crate) async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let selection = Selection::parse(call.resource, &call.query)?;
    let limit = usize::try_from(call.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let prefix = keys::collection(call.resource.storage, call.namespace());
    let at = list_options::list_at(&call.query)?;
    let after = match &at {
        At::Continue(token) => Some(format!("{prefix}{}", token.after)),
        _ => None,
    };
    let view = state(call, &at).await?;
    let page = page(&view, &prefix, after.as_deref(), limit, &selection)?;

    let mut list = json!({"resourceVersion": view.revision().to_string()});
    if let Some(last) = page.more {
        list["continue"] = ContinueToken::new(Some(view.revision().0), last).encode().into();
        if let Some(remaining) = page.remaining {
            list["remainingItemCount"] = remaining.into();
        }
    }
    render(&shown, list, &page.objects)
}

/// The state that the list shows.
async fn state(call: &Call, at: &At) -> Result<View, Status> {
    match at {
        At::Current => {
            call.barrier().await?;
            Ok(call.store().view())
        }
        At::Any => Ok(call.store().view()),
        At::NotOlder(revision) => {
            list_options::wait_for(call, *revision).await?;
            Ok(call.store().view())
        }
        At::Exact(revision) => {
            list_options::wait_for(call, *revision).await?;
            let view = call.store().view_at(Revision(*revision));
            view.ok_or_else(|| {
                Status::expired(format!("The resourceVersion for the provided list is too old: {revision}"))
            })
        }
        At::Continue(token) => {
            let Some(revision) = token.rv else {
                call.barrier().await?;
                return Ok(call.store().view());
            };
            list_options::wait_for(call, revision).await?;
            call.store().view_at(Revision(revision)).ok_or_else(|| {
                // The client may go on from where it was, at the price of one consistent state.
                let token = ContinueToken::new(None, token.after.clone()).encode();
                Status::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
                     the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
                        .to_owned(),
                )
                .with_continue(token)
            })
        }
    }
}

fn page(view: &View, prefix: &str, after: Option<&str>, limit: usize, selection: &Selection) -> Result<Page, Status> {
    let mut page = Page { objects: Vec::new(), more: None, remaining: None };
    let mut last = String::new();
    let mut left = 0_usize;
    for (key, entry) in view.range(prefix, after) {
        if limit > 0 && page.objects.len() == limit && selection.is_everything() {
            left += 1;
            continue;
        }
        if !selection.is_everything() {
            let object: Value =
                stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
            if !selection.matches(&object) {
                continue;
            }
            if limit > 0 && page.objects.len() == limit {
                page.more = Some(last);
                return Ok(page);
            }
        }
        key[prefix.len()..].clone_into(&mut last);
        page.objects.push((entry.value.clone(), entry.modified));
    }
    if left > 0 {
        page.more = Some(last);
        page.remaining = Some(left);
    }
    Ok(page)
}

fn render(shown: &respond::View, list: Value, objects: &[(bytes::Bytes, Revision)]) -> Result<Response<Body>, Status> {
    let resource = shown.resource;
    let decode = |bytes: &[u8], revision| -> Result<Value, Status> {
        let mut object = stored::decode(bytes, revision).map_err(|error| errors::corrupt(&error))?;
        shown.respell(&mut object);
        Ok(object)
    };
    if shown.form == Form::Table {
        let values = objects.iter().map(|(bytes, revision)| decode(bytes, *revision)).collect::<Result<Vec<_>, _>>()?;
        let mut whole = shown.table(&values.iter().collect::<Vec<_>>(), "");
        whole["metadata"] = list;
        return Ok(respond::value(StatusCode::OK, &whole));
    }
    let (api_version, kind) = match shown.form {
        Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
        _ if resource.group.is_empty() => (resource.version.to_owned(), format!("{}List", resource.kind)),
        _ => (format!("{}/{}", resource.group, resource.version), format!("{}List", resource.kind)),
    };
    let bytes: usize = objects.iter().map(|(bytes, _)| bytes.len() + 48).sum();
    let mut text = Vec::with_capacity(bytes + 256);
    text.extend_from_slice(
        format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{list},\"items\":[", json!(kind), json!(api_version))
            .as_bytes(),
    );
    for (index, (bytes, revision)) in objects.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        if shown.copies_bytes() {
            stored::append(&mut text, bytes, *revision).map_err(|error| errors::corrupt(&error))?;
        } else if shown.form == Form::Metadata {
            text.extend_from_slice(table::partial_object_metadata(&decode(bytes, *revision)?).to_string().as_bytes());
        } else {
            text.extend_from_slice(decode(bytes, *revision)?.to_string().as_bytes());
        }
    }
    text.extend_from_slice(b"]}");
    Ok(respond::json_text(StatusCode::OK, text))
}

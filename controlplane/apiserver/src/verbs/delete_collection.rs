//! `deletecollection`: every object of a collection that the selectors name, one after the other.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::{Status, metadata};

use crate::handler::Call;
use crate::selection::Selection;
use crate::verbs::delete::{self, Deleted};
use crate::verbs::delete_options::DeleteOptions;
use crate::{Body, errors, keys, respond, stored};

/// Deletes what is selected, up to `limit`, and answers with the list of it.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::read(&call.query, &call.headers, body).await?;
    let selection = Selection::parse(call.resource, &call.query)?;
    let limit = call
        .query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    call.barrier().await?;
    let mut items: Vec<Value> = Vec::new();
    for (name, namespace) in selected(call, &selection, limit)? {
        let mut one = Call {
            shared: call.shared.clone(),
            user: call.user.clone(),
            target: call.target.clone(),
            resource: call.resource,
            query: call.query.clone(),
            headers: call.headers.clone(),
            uri: call.uri.clone(),
            upgrade: None,
        };
        one.target.namespace = namespace;
        match delete::delete(&one, &name, &options).await {
            Ok(Deleted::Gone(object) | Deleted::Marked(object)) => items.push(object),
            // Another was faster, or made it anew since: both are as good.
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => return Err(status),
        }
    }
    let resource = call.resource;
    let api_version = if resource.group.is_empty() {
        resource.version.to_owned()
    } else {
        format!("{}/{}", resource.group, resource.version)
    };
    let revision = call.store().view().revision().to_string();
    let list = json!({"kind": format!("{}List", resource.kind), "apiVersion": api_version, "metadata": {"resourceVersion": revision}, "items": items});
    Ok(respond::value(StatusCode::OK, &list))
}

/// The names, each with its namespace, of what is to go.
fn selected(call: &Call, selection: &Selection, limit: usize) -> Result<Vec<(String, Option<String>)>, Status> {
    let prefix = keys::collection(call.resource.storage, call.namespace());
    let mut names = Vec::new();
    for (_, entry) in call.store().view().range(&prefix, None) {
        let object = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
        if selection.matches(&object) {
            names.push((
                metadata::name(&object).unwrap_or_default().to_owned(),
                metadata::namespace(&object).map(str::to_owned),
            ));
        }
        if names.len() >= limit {
            break;
        }
    }
    Ok(names)
}

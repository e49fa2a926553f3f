//! The life of a namespace: nothing is created in one that does not exist or is on its way out.

use serde_json::Value;
use shoal_api::{Status, metadata};
use shoal_store::{Transaction, View};

use crate::{errors, keys, stored};

/// Requires, at commit time too, that `namespace` exists and is not being deleted.
///
/// `group` and `resource` and `name` say what is being created, for the message.
///
/// # Errors
/// 404 when there is no such namespace, 403 with cause `NamespaceTerminating` when it is being deleted.
pub(crate) fn living_namespace(
    view: &View,
    namespace: &str,
    (group, resource, name): (&str, &str, &str),
    transaction: &mut Transaction,
) -> Result<(), Status> {
    let key = keys::namespace(namespace);
    let entry = view.get(&key).ok_or_else(|| Status::not_found("", "namespaces", namespace))?;
    let object: Value = stored::decode(&entry.value, entry.modified).map_err(|error| errors::corrupt(&error))?;
    if metadata::deletion_timestamp(&object).is_some() {
        let message = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Status::forbidden(group, resource, name, &message).with_cause(
            "NamespaceTerminating",
            "metadata.namespace",
            &format!("namespace {namespace} is being terminated"),
        ));
    }
    transaction.require_modified_at(key, entry.modified);
    Ok(())
}

//! What objects hold that nobody else may have, taken and given back in the write's own transaction.
//!
//! Each thing in use has a key whose value is its owner (`namespace/name`). An object that asks for one gets a
//! precondition that the key is absent, so two writers cannot both have it, whatever they saw before.

mod nodes;
mod services;

use bytes::Bytes;
use serde_json::Value;
use shoal_api::resource::Resource;
use shoal_api::{Status, metadata};
use shoal_store::{Transaction, View};

/// Fills in what the object `new` of `resource` lacks and adds to `transaction` what it takes that `old` has not, and what
/// it gives back; no `new` gives back everything. Resources that hold nothing of this kind are left alone.
///
/// # Errors
/// 422 when something that is asked for is out of range or taken; 500 when there is nothing left to give.
pub(crate) fn settle(
    resource: &Resource,
    view: &View,
    new: Option<&mut Value>,
    old: Option<&Value>,
    transaction: &mut Transaction,
) -> Result<(), Status> {
    match resource.storage {
        "core/services" => services::settle(view, new, old, transaction),
        "core/nodes" => nodes::settle(view, new, old, transaction),
        _ => Ok(()),
    }
}

fn owner(object: &Value) -> String {
    format!("{}/{}", metadata::namespace(object).unwrap_or_default(), metadata::name(object).unwrap_or_default())
}

fn take(key: String, owner: &str, transaction: &mut Transaction) {
    transaction.require_absent(key.clone());
    transaction.put(key, Bytes::copy_from_slice(owner.as_bytes()));
}

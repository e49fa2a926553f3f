//! Claims and volumes: the default class, the finalizers that protect what is in use, and who may grow.

use serde_json::{Value, json};
use shoal_api::quantity::Quantity;
use shoal_api::{Status, metadata, resource};
use shoal_store::View;

use super::Admission;
use crate::{keys, object, stored};

/// Holds a claim while a pod uses it.
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Holds a volume while a claim has it.
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const CLASSES: &str = "storage.k8s.io/storageclasses";

/// Protects a new claim or volume, and gives a claim that says nothing the default class.
pub(super) fn complete(admission: &Admission<'_>, new: &mut Value) {
    match admission.storage {
        "core/persistentvolumeclaims" => {
            protect(new, CLAIM_PROTECTION);
            set_class(admission.view, new);
        }
        "core/persistentvolumes" => protect(new, VOLUME_PROTECTION),
        _ => {}
    }
}

/// Refuses the growth of a claim whose class does not allow it.
///
/// # Errors
/// 403 in Kubernetes' words.
pub(super) fn check_growth(admission: &Admission<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    if admission.storage != "core/persistentvolumeclaims" || admission.subresource.is_some() || size(new) <= size(old) {
        return Ok(());
    }
    let class = old.pointer("/spec/storageClassName").and_then(Value::as_str).unwrap_or_default();
    let class = admission.view.get(&keys::object(CLASSES, None, class));
    let class = class.and_then(|entry| stored::decode(&entry.value, entry.modified).ok());
    if class.is_some_and(|class| class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true)) {
        return Ok(());
    }
    let message = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(Status::forbidden("", "persistentvolumeclaims", admission.name, message))
}

fn protect(new: &mut Value, finalizer: &str) {
    if metadata::finalizers(new).contains(&finalizer) {
        return;
    }
    let finalizers = object::metadata_mut(new).entry("finalizers").or_insert_with(|| json!([]));
    match finalizers.as_array_mut() {
        Some(list) => list.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
}

fn set_class(view: &View, claim: &mut Value) {
    let says_class = claim.pointer("/spec/storageClassName").is_some()
        || metadata::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
    if says_class {
        return;
    }
    let Some(class) = default_class(view) else { return };
    if let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("storageClassName".to_owned(), class.into());
    }
}

/// The name of the default class; of several the newest, as in Kubernetes.
fn default_class(view: &View) -> Option<String> {
    let prefix = keys::collection(CLASSES, None);
    let classes = view.range(&prefix, None).filter_map(|(_, entry)| stored::decode(&entry.value, entry.modified).ok());
    let newest = classes.filter(resource::is_default_storage_class).max_by(|one, other| {
        let age = |class: &Value| metadata::creation_timestamp(class).map(str::to_owned);
        // Of two that are equally old, the first by name.
        age(one).cmp(&age(other)).then_with(|| metadata::name(other).cmp(&metadata::name(one)))
    });
    newest.as_ref().and_then(metadata::name).map(str::to_owned)
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::from_value(claim.pointer("/spec/resources/requests/storage")?).ok()
}

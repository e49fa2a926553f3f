//! PersistentVolumeClaim: the wish for storage, and the volume that answers it.

use serde_json::{Value, json};

use super::{status, storage};
use crate::metadata;
use crate::quantity::Quantity;
use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, text, wide};
use crate::validation::FieldError;

pub(super) const ROW: Resource = Resource {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[status("", "PersistentVolumeClaim")],
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    storage: "core/persistentvolumeclaims",
    columns: &[
        NAME,
        column("Status", "Whether it has its volume.", |claim, _| storage::phase(claim)),
        column("Volume", "The volume that it has.", |claim, _| text(claim, "/spec/volumeName").into()),
        column("Capacity", "How much that volume holds.", |claim, _| {
            bound(claim, text(claim, "/status/capacity/storage")).into()
        }),
        column("Access Modes", "In which ways that volume can be used.", |claim, _| {
            bound(claim, &storage::access_modes(claim, "/status/accessModes")).into()
        }),
        column("StorageClass", "Its class.", |claim, _| storage::class(claim).into()),
        column("VolumeAttributesClass", "The class of its attributes.", |claim, _| storage::attributes_class(claim)),
        AGE,
        wide("VolumeMode", "Whether it is a file system or a device.", |claim, _| storage::volume_mode(claim)),
    ],
    strategy: &PersistentVolumeClaim,
    ..Resource::BASE
};

/// The text, if the claim names a volume at all.
fn bound<'a>(claim: &Value, shown: &'a str) -> &'a str {
    if text(claim, "/spec/volumeName").is_empty() { "" } else { shown }
}

struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, claim: &mut Value) {
        let spec = metadata::member_mut(claim, "spec");
        storage::default_spec(spec);
        for list in ["requests", "limits"] {
            storage::canonical(spec.get_mut("resources").and_then(|resources| resources.get_mut(list)));
        }
        let status = metadata::member_mut(claim, "status");
        if status.get("phase").and_then(Value::as_str).is_none_or(str::is_empty) {
            status.insert("phase".to_owned(), "Pending".into());
        }
    }

    fn prepare_create(&self, claim: &mut Value) {
        if let Some(map) = claim.as_object_mut() {
            map.insert("status".to_owned(), json!({"phase": "Pending"}));
        }
    }

    fn check(&self, claim: &Value, problems: &mut Vec<FieldError>) {
        check_spec(claim.get("spec").unwrap_or(&Value::Null), "spec", problems);
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        if fixed(new, old) != fixed(old, old) {
            problems.push(FieldError::forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ));
        } else if size(new) < size(old) {
            problems.push(FieldError::forbidden(
                "spec.resources.requests.storage",
                "field can not be less than status.capacity",
            ));
        }
    }
}

/// What is wrong with the spec of a claim, or of the claim that a pod makes for itself.
pub(super) fn check_spec(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    storage::check_access_modes(spec, path, problems);
    match spec.pointer("/resources/requests/storage") {
        None => problems.push(FieldError::required(format!("{path}.resources[storage]"), "")),
        Some(size) => storage::check_size(size, &format!("{path}.resources[storage]"), problems),
    }
    storage::check_mode_and_class(spec, path, problems);
}

/// The spec without what may change: the volume and the class once, the size of what is bound.
fn fixed(claim: &Value, old: &Value) -> Value {
    let mut spec = claim.get("spec").cloned().unwrap_or_default();
    let Some(map) = spec.as_object_mut() else { return spec };
    if text(old, "/spec/volumeName").is_empty() {
        map.remove("volumeName");
    }
    if old.pointer("/spec/storageClassName").is_none() {
        map.remove("storageClassName");
    }
    if text(old, "/status/phase") == "Bound" {
        map.remove("volumeAttributesClassName");
        if let Some(requests) = map.get_mut("resources").and_then(|resources| resources.get_mut("requests")) {
            *requests = Value::Null;
        }
    }
    spec
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::from_value(claim.pointer("/spec/resources/requests/storage")?).ok()
}

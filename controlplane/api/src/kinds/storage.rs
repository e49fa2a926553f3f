//! What volumes and claims have in common: access modes, modes of use, sizes, and how tables show them.

use serde_json::{Map, Value};

use crate::metadata;
use crate::quantity::Quantity;
use crate::table::cells::{list, text};
use crate::validation::{FieldError, invalid, names, quantity};

/// What kubectl prints for what was not set.
pub(super) const UNSET: &str = "<unset>";

/// The access modes and their short forms, in the order in which they are shown.
const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// The phase, or that the object is on its way out.
pub(super) fn phase(object: &Value) -> Value {
    match metadata::deletion_timestamp(object) {
        Some(_) => "Terminating".into(),
        None => text(object, "/status/phase").into(),
    }
}

/// The access modes at a pointer in their short forms: `RWO,ROX`.
pub(super) fn access_modes(object: &Value, pointer: &str) -> String {
    let given = list(object, pointer);
    let shown = ACCESS_MODES.iter().filter(|(mode, _)| given.iter().any(|given| given == mode));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The class of a volume or claim: the old annotation, or else the field.
pub(super) fn class(object: &Value) -> &str {
    let old = metadata::annotation(object, "volume.beta.kubernetes.io/storage-class");
    old.unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

/// The class of a table's column for the attributes that can be changed.
pub(super) fn attributes_class(object: &Value) -> Value {
    match text(object, "/spec/volumeAttributesClassName") {
        "" => UNSET.into(),
        name => name.into(),
    }
}

/// Whether it is a file system or a device.
pub(super) fn volume_mode(object: &Value) -> Value {
    match text(object, "/spec/volumeMode") {
        "" => UNSET.into(),
        mode => mode.into(),
    }
}

/// Fills in what both specs have in common.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    if spec.get("volumeMode").is_none_or(Value::is_null) {
        spec.insert("volumeMode".to_owned(), "Filesystem".into());
    }
}

/// Writes the quantities of a map as Kubernetes does.
pub(super) fn canonical(map: Option<&mut Value>) {
    for value in map.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Ok(quantity) = Quantity::from_value(value) {
            *value = quantity.to_string().into();
        }
    }
}

/// The access modes must be there, known, and a pod of its own excludes all others.
pub(super) fn check_access_modes(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let field = format!("{path}.accessModes");
    let modes = list(spec, "/accessModes");
    if modes.is_empty() {
        problems.push(FieldError::required(field.as_str(), "at least 1 access mode is required"));
    }
    let known: Vec<&str> = ACCESS_MODES.iter().map(|(mode, _)| *mode).collect();
    for mode in modes.iter().filter(|mode| !known.iter().any(|known| mode == known)) {
        problems.push(FieldError::not_supported(field.as_str(), mode.clone(), &known));
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        problems.push(FieldError::forbidden(field, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// What is said of the mode of use and of the class must make sense.
pub(super) fn check_mode_and_class(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let mode = text(spec, "/volumeMode");
    if !mode.is_empty() && !matches!(mode, "Block" | "Filesystem") {
        problems.push(FieldError::not_supported(format!("{path}.volumeMode"), mode, &["Block", "Filesystem"]));
    }
    if let Some(class) = spec.get("storageClassName").and_then(Value::as_str).filter(|class| !class.is_empty()) {
        invalid(problems, &format!("{path}.storageClassName"), class, names::dns_subdomain(class));
    }
}

/// A size that must be above zero.
pub(super) fn check_size(size: &Value, field: &str, problems: &mut Vec<FieldError>) {
    if quantity(problems, field, size).is_some_and(|quantity| quantity.is_zero()) {
        problems.push(FieldError::invalid(field, size.clone(), "must be greater than zero"));
    }
}

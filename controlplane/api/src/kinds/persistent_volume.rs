//! PersistentVolume: storage that somebody made, and the one claim that it belongs to.

use serde_json::{Map, Value, json};

use super::{status, storage};
use crate::metadata;
use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, list, text, wide};
use crate::validation::{FieldError, immutable, one_of};

/// The members of the spec that are no volume source.
const NO_SOURCES: [&str; 9] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// What a path on a node may be.
const PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(super) const ROW: Resource = Resource {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[status("", "PersistentVolume")],
    schema: "io.k8s.api.core.v1.PersistentVolume",
    storage: "core/persistentvolumes",
    columns: &[
        NAME,
        column("Capacity", "How much it holds.", |volume, _| text(volume, "/spec/capacity/storage").into()),
        column("Access Modes", "In which ways it can be used.", |volume, _| {
            storage::access_modes(volume, "/spec/accessModes").into()
        }),
        column("Reclaim Policy", "What becomes of it when its claim is gone.", |volume, _| {
            text(volume, "/spec/persistentVolumeReclaimPolicy").into()
        }),
        column("Status", "Whether it is free, claimed or left behind.", |volume, _| storage::phase(volume)),
        column("Claim", "The claim that it belongs to.", |volume, _| claim(volume).into()),
        column("StorageClass", "Its class.", |volume, _| storage::class(volume).into()),
        column("VolumeAttributesClass", "The class of its attributes.", |volume, _| storage::attributes_class(volume)),
        column("Reason", "Why it is as it is.", |volume, _| text(volume, "/status/reason").into()),
        AGE,
        wide("VolumeMode", "Whether it is a file system or a device.", |volume, _| storage::volume_mode(volume)),
    ],
    strategy: &PersistentVolume,
    ..Resource::BASE
};

fn claim(volume: &Value) -> String {
    match volume.pointer("/spec/claimRef").filter(|claim| claim.is_object()) {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    }
}

struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, volume: &mut Value) {
        let spec = metadata::member_mut(volume, "spec");
        storage::default_spec(spec);
        storage::canonical(spec.get_mut("capacity"));
        if spec.get("persistentVolumeReclaimPolicy").and_then(Value::as_str).is_none_or(str::is_empty) {
            spec.insert("persistentVolumeReclaimPolicy".to_owned(), "Retain".into());
        }
        if let Some(host) = spec.get_mut("hostPath").and_then(Value::as_object_mut) {
            host.entry("type").or_insert_with(|| "".into());
        }
        let status = metadata::member_mut(volume, "status");
        if status.get("phase").and_then(Value::as_str).is_none_or(str::is_empty) {
            status.insert("phase".to_owned(), "Pending".into());
        }
    }

    fn prepare_create(&self, volume: &mut Value) {
        if let Some(map) = volume.as_object_mut() {
            map.insert("status".to_owned(), json!({"phase": "Pending"}));
        }
    }

    fn check(&self, volume: &Value, problems: &mut Vec<FieldError>) {
        let spec = volume.get("spec").unwrap_or(&Value::Null);
        storage::check_access_modes(spec, "spec", problems);
        check_capacity(spec, problems);
        check_source(spec, problems);
        one_of(
            problems,
            "spec.persistentVolumeReclaimPolicy",
            text(spec, "/persistentVolumeReclaimPolicy"),
            &["Delete", "Recycle", "Retain"],
        );
        storage::check_mode_and_class(spec, "spec", problems);
        check_affinity(spec, problems);
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        if sources(new.get("spec")) != sources(old.get("spec")) {
            problems.push(FieldError::forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        immutable(problems, "spec.volumeMode", new.pointer("/spec/volumeMode"), old.pointer("/spec/volumeMode"));
        if let Some(before) = old.pointer("/spec/nodeAffinity") {
            immutable(problems, "spec.nodeAffinity", new.pointer("/spec/nodeAffinity"), Some(before));
        }
    }
}

/// Where the data is: every member of the spec that says so.
fn sources(spec: Option<&Value>) -> Map<String, Value> {
    let members = spec.and_then(Value::as_object).into_iter().flatten();
    let sources = members.filter(|(name, _)| !NO_SOURCES.contains(&name.as_str()));
    sources.map(|(name, source)| (name.clone(), source.clone())).collect()
}

fn check_capacity(spec: &Value, problems: &mut Vec<FieldError>) {
    match spec.pointer("/capacity/storage") {
        None => problems.push(FieldError::required("spec.capacity", "")),
        Some(size) => storage::check_size(size, "spec.capacity[storage]", problems),
    }
}

fn check_source(spec: &Value, problems: &mut Vec<FieldError>) {
    let sources = sources(Some(spec));
    if sources.is_empty() {
        problems.push(FieldError::required("spec", "must specify a volume type"));
    }
    for name in sources.keys().skip(1) {
        problems.push(FieldError::forbidden(format!("spec.{name}"), "may not specify more than 1 volume type"));
    }
    for kind in ["hostPath", "local"].into_iter().filter(|kind| sources.contains_key(*kind)) {
        check_path(&sources[kind], &format!("spec.{kind}"), problems);
    }
    if text(spec, "/hostPath/path") == "/" && text(spec, "/persistentVolumeReclaimPolicy") == "Recycle" {
        problems.push(FieldError::forbidden(
            "spec.persistentVolumeReclaimPolicy",
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
}

/// A path on a node: there, without a way out, and of a known type.
pub(super) fn check_path(source: &Value, field: &str, problems: &mut Vec<FieldError>) {
    let path = text(source, "/path");
    if path.is_empty() {
        problems.push(FieldError::required(format!("{field}.path"), ""));
    }
    if path.split('/').any(|part| part == "..") {
        problems.push(FieldError::invalid(format!("{field}.path"), path, "must not contain '..'"));
    }
    let kind = text(source, "/type");
    if !PATH_TYPES.contains(&kind) {
        problems.push(FieldError::not_supported(format!("{field}.type"), kind, &PATH_TYPES));
    }
}

fn check_affinity(spec: &Value, problems: &mut Vec<FieldError>) {
    match spec.get("nodeAffinity") {
        None if spec.get("local").is_some() => {
            problems.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
        }
        None => {}
        Some(affinity) if list(affinity, "/required/nodeSelectorTerms").is_empty() => {
            problems.push(FieldError::required(
                "spec.nodeAffinity.required.nodeSelectorTerms",
                "must have at least one node selector term",
            ));
        }
        Some(_) => {}
    }
}

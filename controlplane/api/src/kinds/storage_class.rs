//! StorageClass: a way in which volumes are made for claims.

use serde_json::Value;

use crate::metadata;
use crate::resource::{Column, Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, text};
use crate::validation::{FieldError, immutable, invalid, names, one_of};

/// The annotation of the class that claims get which name none.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// The same from the time before.
const DEFAULT_BEFORE: &str = "storageclass.beta.kubernetes.io/is-default-class";

pub(super) const ROW: Resource = Resource {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    schema: "io.k8s.api.storage.v1.StorageClass",
    storage: "storage.k8s.io/storageclasses",
    create_on_update: true,
    columns: &[
        NAMED,
        column("Provisioner", "Who makes the volumes.", |class, _| text(class, "/provisioner").into()),
        column("ReclaimPolicy", "What becomes of a volume when its claim is gone.", |class, _| {
            text(class, "/reclaimPolicy").into()
        }),
        column("VolumeBindingMode", "When a claim gets its volume.", |class, _| {
            text(class, "/volumeBindingMode").into()
        }),
        column("AllowVolumeExpansion", "Whether claims may grow.", |class, _| {
            class.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false).into()
        }),
        AGE,
    ],
    strategy: &StorageClass,
    ..Resource::BASE
};

const NAMED: Column = Column {
    cell: |class, now| match is_default(class) {
        true => format!("{} (default)", metadata::name(class).unwrap_or_default()).into(),
        false => (NAME.cell)(class, now),
    },
    ..NAME
};

/// Whether claims that name no class get this one.
pub fn is_default(class: &Value) -> bool {
    [DEFAULT, DEFAULT_BEFORE].iter().any(|annotation| metadata::annotation(class, annotation) == Some("true"))
}

struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, class: &mut Value) {
        let Some(map) = class.as_object_mut() else { return };
        for (field, usual) in [("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")] {
            if map.get(field).is_none_or(Value::is_null) {
                map.insert(field.to_owned(), usual.into());
            }
        }
    }

    fn check(&self, class: &Value, problems: &mut Vec<FieldError>) {
        let provisioner = text(class, "/provisioner");
        if provisioner.is_empty() {
            problems.push(FieldError::required("provisioner", ""));
        } else {
            invalid(problems, "provisioner", provisioner, names::qualified_name(&provisioner.to_lowercase()));
        }
        one_of(problems, "reclaimPolicy", text(class, "/reclaimPolicy"), &["Delete", "Retain"]);
        one_of(
            problems,
            "volumeBindingMode",
            text(class, "/volumeBindingMode"),
            &["Immediate", "WaitForFirstConsumer"],
        );
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if new.get(field) != old.get(field) {
                problems.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
        immutable(problems, "volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"));
    }
}

//! What neither crate says, by hand.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

/// The packages that the table covers, as modules of `k8s-pb`.
pub const PACKAGES: &[&str] = &[
    "api::admissionregistration::v1",
    "api::apps::v1",
    "api::authentication::v1",
    "api::authorization::v1",
    "api::autoscaling::v1",
    "api::autoscaling::v2",
    "api::batch::v1",
    "api::certificates::v1",
    "api::coordination::v1",
    "api::core::v1",
    "api::discovery::v1",
    "api::events::v1",
    "api::flowcontrol::v1",
    "api::networking::v1",
    "api::node::v1",
    "api::policy::v1",
    "api::rbac::v1",
    "api::resource::v1",
    "api::scheduling::v1",
    "api::storage::v1",
    "apiextensions_apiserver::pkg::apis::apiextensions::v1",
    "apimachinery::pkg::apis::meta::v1",
    "kube_aggregator::pkg::apis::apiregistration::v1",
];

/// Messages that JSON writes in a way of their own, and what the table calls them.
pub const SPECIAL: &[(&str, &str)] = &[
    ("api::authentication::v1::ExtraValue", "strings"),
    ("api::authorization::v1::ExtraValue", "strings"),
    ("api::certificates::v1::ExtraValue", "strings"),
    ("apiextensions_apiserver::pkg::apis::apiextensions::v1::Json", "json"),
    ("apiextensions_apiserver::pkg::apis::apiextensions::v1::JsonSchemaPropsOrArray", "schema-or-list"),
    ("apiextensions_apiserver::pkg::apis::apiextensions::v1::JsonSchemaPropsOrBool", "schema-or-bool"),
    ("apiextensions_apiserver::pkg::apis::apiextensions::v1::JsonSchemaPropsOrStringArray", "schema-or-strings"),
    ("apimachinery::pkg::api::resource::Quantity", "quantity"),
    ("apimachinery::pkg::apis::meta::v1::Duration", "duration"),
    ("apimachinery::pkg::apis::meta::v1::FieldsV1", "fields"),
    ("apimachinery::pkg::apis::meta::v1::MicroTime", "micro-time"),
    ("apimachinery::pkg::apis::meta::v1::Time", "time"),
    ("apimachinery::pkg::apis::meta::v1::Verbs", "strings"),
    ("apimachinery::pkg::runtime::RawExtension", "object"),
    ("apimachinery::pkg::util::intstr::IntOrString", "int-or-string"),
];

/// Messages that no kind refers to and that the table has all the same.
pub const ROOTS: &[&str] = &[
    "apimachinery::pkg::apis::meta::v1::ApiGroup",
    "apimachinery::pkg::apis::meta::v1::ApiGroupList",
    "apimachinery::pkg::apis::meta::v1::ApiResourceList",
    "apimachinery::pkg::apis::meta::v1::ApiVersions",
    "apimachinery::pkg::apis::meta::v1::DeleteOptions",
    "apimachinery::pkg::apis::meta::v1::PartialObjectMetadata",
    "apimachinery::pkg::apis::meta::v1::PartialObjectMetadataList",
    "apimachinery::pkg::apis::meta::v1::Status",
    "apimachinery::pkg::apis::meta::v1::WatchEvent",
];

/// The fields that are pointers to scalars in Go, so that zero is not the same as absent: `core.v1.PodSpec.hostUsers`.
pub fn pointers(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut pointers = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (message, fields) = line.split_once(':').with_context(|| format!("no colon in {line:?}"))?;
        pointers.extend(fields.split_whitespace().map(|field| format!("{message}.{field}")));
    }
    Ok(pointers)
}

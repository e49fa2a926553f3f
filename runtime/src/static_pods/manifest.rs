//! A manifest as the pod that this node runs. Pure.

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shoal_api::resource::{self, Resource};
use shoal_api::{decode, metadata};

use crate::pod::references::references;
use crate::pod::spec::{CONFIG_HASH, CONFIG_SOURCE};

/// Why a manifest is no pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Neither YAML nor JSON, or not of a Pod's form.
    #[error("{0}")]
    Form(String),
    /// Something else than a Pod.
    #[error("it is a {0} and not a Pod of v1")]
    Kind(String),
    /// A value that the API would refuse.
    #[error("{0}")]
    Invalid(String),
    /// It needs something of the API, which a static pod must do without.
    #[error("static pods may not reference {0}")]
    References(&'static str),
}

/// The pod of a manifest, as the kubelet completes it: the node's name behind its own, a uid that is a hash of all of it, the
/// annotations that tell where it is from.
///
/// # Errors
/// [`ManifestError`].
pub fn read(bytes: &[u8], node: &str) -> Result<Pod, ManifestError> {
    let form = |error: &dyn std::fmt::Display| ManifestError::Form(error.to_string());
    let row: &Resource = resource::find("", "v1", "pods").expect("the table has pods");
    let decoded = decode::decode_body("application/yaml", bytes, Some(row.schema)).map_err(|error| form(&error))?;
    if (decoded.api_version.as_str(), decoded.kind.as_str()) != ("v1", "Pod") {
        return Err(ManifestError::Kind(format!("{} of {}", decoded.kind, decoded.api_version)));
    }
    let mut object = decoded.value;
    let name = format!("{}-{}", metadata::name(&object).unwrap_or_default(), node.to_lowercase());
    let fields = metadata_of(&mut object);
    fields.retain(|field, _| ["labels", "annotations", "namespace"].contains(&field.as_str()));
    fields.insert("name".to_owned(), name.into());
    fields.entry("namespace").or_insert_with(|| "default".into());
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    object["spec"]["nodeName"] = node.into();
    row.strategy.default(&mut object);
    let problems = row.strategy.validate_create(&object);
    if let Some(problem) = problems.first() {
        return Err(ManifestError::Invalid(problem.to_string()));
    }
    let hash = hex::encode(&Sha256::digest(object.to_string().as_bytes())[..16]);
    let mut pod: Pod = serde_json::from_value(object).map_err(|error| form(&error))?;
    check_references(&pod)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE.to_owned(), "file".to_owned());
    annotations.insert(CONFIG_HASH.to_owned(), hash.clone());
    pod.metadata.uid = Some(hash);
    // Nothing drives it away: whoever wants it gone removes its manifest.
    let stays = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    pod.spec.get_or_insert_default().tolerations.get_or_insert_default().push(stays);
    Ok(pod)
}

fn metadata_of(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    object["metadata"].as_object_mut().expect("it was just made one")
}

fn check_references(pod: &Pod) -> Result<(), ManifestError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let account = spec.service_account_name.as_deref().unwrap_or_default();
    if !account.is_empty() {
        return Err(ManifestError::References("serviceaccounts"));
    }
    if spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some()) {
        return Err(ManifestError::References("persistentvolumeclaims"));
    }
    if !references(pod).is_empty() {
        return Err(ManifestError::References("configmaps or secrets"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, uid: mine, labels: {app: web}}
spec: {containers: [{name: c, image: 'hello:1'}]}
";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = read(MANIFEST.as_bytes(), "worker-1").expect("a pod");
        assert_eq!((spec::name(&pod), spec::namespace(&pod)), ("web-worker-1", "default"));
        assert_eq!(spec::annotation(&pod, CONFIG_HASH), pod.metadata.uid.as_deref());
        assert!(spec::is_static(&pod) && spec::is_critical(&pod));
        let filled = pod.spec.clone().unwrap_or_default();
        assert_eq!((filled.node_name.as_deref(), filled.restart_policy.as_deref()), (Some("worker-1"), Some("Always")));
        assert_eq!(pod.metadata.uid.as_deref().map(str::len), Some(32));
    }

    #[test]
    fn the_uid_changes_with_the_manifest_and_the_node_and_with_nothing_else() {
        let uid = |text: &str, node: &str| read(text.as_bytes(), node).expect("a pod").metadata.uid;
        assert_eq!(uid(MANIFEST, "a"), uid(&MANIFEST.replace("mine", "another"), "a"));
        assert_ne!(uid(MANIFEST, "a"), uid(&MANIFEST.replace("hello:1", "hello:2"), "a"));
        assert_ne!(uid(MANIFEST, "a"), uid(MANIFEST, "b"));
    }

    #[test]
    fn json_is_a_manifest_too_and_what_is_none_says_why() {
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        assert!(read(json.as_bytes(), "n").is_ok());
        let said = |text: &str| read(text.as_bytes(), "n").map(|_| ()).expect_err("no pod").to_string();
        assert_eq!(said("apiVersion: v1\nkind: Service\n"), "it is a Service of v1 and not a Pod of v1");
        assert!(said("{").contains("error"), "{}", said("{"));
        assert!(said(&MANIFEST.replace("image: 'hello:1'", "name: x")).len() > 1);
        let secret = MANIFEST.replace("image: 'hello:1'", "image: i, envFrom: [{secretRef: {name: s}}]");
        assert_eq!(said(&secret), "static pods may not reference configmaps or secrets");
    }
}

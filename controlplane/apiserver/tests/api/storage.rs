//! Claims, volumes and classes as the API completes and refuses them.

use serde_json::{Value, json};

use crate::support::*;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

fn claim(name: &str, class: Option<&str>) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    if let Some(class) = class {
        claim["spec"]["storageClassName"] = class.into();
    }
    claim
}

fn class(name: &str, is_default: bool) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/disk",
           "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": is_default.to_string()}}})
}

#[tokio::test]
async fn a_claim_that_names_no_class_gets_the_default_one_and_is_protected() {
    let api = Api::start().await;
    let early = api.create(CLAIMS, claim("early", None)).await;
    assert_eq!(early["spec"]["storageClassName"], "local-path");
    let other = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "false"}}});
    api.patch(&format!("{CLASSES}/local-path"), "merge", other).await;
    let none = api.create(CLAIMS, claim("none", None)).await;
    assert_eq!(none["spec"]["storageClassName"], Value::Null);
    api.create(CLASSES, class("plain", false)).await;
    api.create(CLASSES, class("usual", true)).await;
    let made = api.create(CLAIMS, claim("made", None)).await;
    assert_eq!(made["spec"]["storageClassName"], "usual");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!(made["status"]["phase"], "Pending");
    for class in ["", "plain"] {
        let name = format!("own{class}");
        let own = api.create(CLAIMS, claim(&name, Some(class))).await;
        assert_eq!(own["spec"]["storageClassName"], class);
    }
}

#[tokio::test]
async fn a_deleted_claim_waits_for_its_finalizer() {
    let api = Api::start().await;
    api.create(CLAIMS, claim("data", None)).await;
    api.delete(&format!("{CLAIMS}/data")).await;
    let marked = api.get(&format!("{CLAIMS}/data")).await.json;
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
}

#[tokio::test]
async fn a_claim_grows_only_where_its_class_allows_it() {
    let api = Api::start().await;
    api.create(CLASSES, class("fixed", false)).await;
    let mut growing = class("growing", false);
    growing["allowVolumeExpansion"] = true.into();
    api.create(CLASSES, growing).await;
    let merge = [("content-type", "application/merge-patch+json")];
    for (class, code) in [("fixed", 403), ("growing", 200)] {
        api.create(CLAIMS, claim(class, Some(class))).await;
        let path = format!("{CLAIMS}/{class}");
        let bound = json!({"status": {"phase": "Bound"}}).to_string();
        assert_eq!(api.send(admin(), "PATCH", &format!("{path}/status"), &merge, bound).await.code, 200);
        let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}).to_string();
        assert_eq!(api.send(admin(), "PATCH", &path, &merge, larger).await.code, code, "{class}");
    }
}

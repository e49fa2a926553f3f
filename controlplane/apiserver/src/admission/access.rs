//! The volume with which a pod talks to the API: its token, the CA and its namespace, where client libraries look for them.
//!
//! Only for pods that ask for it, or whose service account does. Kubernetes gives it to all that do not refuse it; here it would cost
//! a request and three files at the start of each of thousands of pods, and few guests talk to the API.

use serde_json::{Map, Value, json};

use crate::object;

/// Where every client library looks.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The beginning of the volume's name.
const VOLUME: &str = "kube-api-access-";
/// For how long a token is, as Kubernetes asks for it.
const TOKEN_SECONDS: u32 = 3607;

/// Whether the pod is to have it: its own word, else its account's.
pub(super) fn is_wanted(spec: &Map<String, Value>, account: Option<&Value>) -> bool {
    let said = |value: Option<&Value>| value.and_then(Value::as_bool);
    said(spec.get("automountServiceAccountToken"))
        .or_else(|| said(account.and_then(|account| account.get("automountServiceAccountToken"))))
        == Some(true)
}

/// Mounts it in every container that has nothing at its place.
pub(super) fn mount(spec: &mut Map<String, Value>) {
    let mut name = None;
    for field in ["containers", "initContainers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount.get("mountPath").and_then(Value::as_str) == Some(PLACE)) {
                let name = name.get_or_insert_with(|| format!("{VOLUME}{}", object::suffix()));
                mounts.push(json!({"name": name, "mountPath": PLACE, "readOnly": true}));
            }
        }
    }
    let Some(name) = name else { return };
    if let Some(volumes) = spec.entry("volumes").or_insert_with(|| json!([])).as_array_mut() {
        let namespace =
            json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]}}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn the_pod_s_word_goes_before_its_account_s() {
        let said = |value: bool| json!({"automountServiceAccountToken": value});
        assert!(!is_wanted(&Map::new(), None));
        assert!(!is_wanted(&Map::new(), Some(&json!({}))));
        assert!(is_wanted(&Map::new(), Some(&said(true))));
        assert!(!is_wanted(&spec(&said(false)), Some(&said(true))));
        assert!(is_wanted(&spec(&said(true)), Some(&said(false))));
    }

    #[test]
    fn it_is_mounted_where_nothing_is() {
        let own = json!({"name": "v", "mountPath": PLACE});
        let mut pod = spec(
            &json!({"containers": [{"name": "a", "volumeMounts": [own]}, {"name": "b"}], "initContainers": [{"name": "c"}]}),
        );
        mount(&mut pod);
        let name = pod["volumes"][0]["name"].as_str().unwrap_or_default().to_owned();
        assert!(name.starts_with(VOLUME) && name.len() == VOLUME.len() + 5, "{name}");
        assert_eq!(pod["containers"][0]["volumeMounts"], json!([own]));
        for container in [&pod["containers"][1], &pod["initContainers"][0]] {
            assert_eq!(container["volumeMounts"], json!([{"name": name, "mountPath": PLACE, "readOnly": true}]));
        }
        let mut full = spec(&json!({"containers": [{"name": "a", "volumeMounts": [own]}]}));
        mount(&mut full);
        assert!(full.get("volumes").is_none());
    }
}

//! The credentials with which a pod's images are pulled: its pull secrets, made into a keyring.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret};
use shoal_images::Keyring;

use crate::context::Context;

/// What the pod's pull secrets hold. One that is not there is told as an event, and the pull goes on without it, as with the kubelet.
///
/// # Errors
/// A sentence: a secret that is there cannot be read.
pub async fn of_pod(context: &Context, pod: &Pod) -> Result<Keyring, String> {
    let secrets = context.sources.pull_secrets(pod).await;
    let missing: Vec<&str> =
        secrets.iter().filter(|(_, secret)| secret.is_none()).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        context.events.warning(pod, None, "FailedToRetrieveImagePullSecret", &message);
    }
    keyring(secrets.into_iter().filter_map(|(name, secret)| Some((name, secret?))))
}

/// The keyring of these secrets; one of another type holds no credentials.
fn keyring(secrets: impl Iterator<Item = (String, Arc<Secret>)>) -> Result<Keyring, String> {
    let mut keyring = Keyring::default();
    for (name, secret) in secrets {
        let content = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        let added = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => content(".dockerconfigjson").map(|json| keyring.add_config(json)),
            Some("kubernetes.io/dockercfg") => content(".dockercfg").map(|json| keyring.add_legacy(json)),
            _ => None,
        };
        added.unwrap_or(Ok(())).map_err(|why| format!("the image pull secret {name:?} cannot be used: {why}"))?;
    }
    Ok(keyring)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shoal_images::Reference;

    use super::*;

    fn secret(name: &str, kind: &str, key: &str, content: &Value) -> (String, Arc<Secret>) {
        let bytes = k8s_openapi::ByteString(content.to_string().into_bytes());
        let secret =
            Secret { type_: Some(kind.to_owned()), data: Some([(key.to_owned(), bytes)].into()), ..Secret::default() };
        (name.to_owned(), Arc::new(secret))
    }

    #[test]
    fn both_forms_are_read_in_order_and_other_types_are_not() {
        let login = |user: &str| json!({"example.com": {"username": user, "password": "p"}});
        let config = json!({"auths": login("new")});
        let secrets = [
            secret("a", "kubernetes.io/dockercfg", ".dockercfg", &login("old")),
            secret("b", "Opaque", ".dockerconfigjson", &config),
            secret("c", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &config),
            secret("d", "kubernetes.io/dockerconfigjson", "other", &json!("x")),
        ];
        let keyring = keyring(secrets.into_iter()).expect("a keyring");
        let mut expected = Keyring::default();
        expected.add_legacy(login("old").to_string().as_bytes()).expect("a login");
        expected.add_config(config.to_string().as_bytes()).expect("a login");
        assert_eq!(keyring, expected);
        assert_eq!(keyring.credentials(&Reference::parse("example.com/x").expect("a reference")).len(), 2);
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named() {
        let broken = secret("regcred", "kubernetes.io/dockercfg", ".dockercfg", &json!(7));
        assert!(keyring([broken].into_iter()).is_err_and(|why| why.contains("regcred")));
    }
}

//! What every namespace has: the account that pods use by default, and the cluster's CA for them to trust.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::action::Action;

/// The name of the ConfigMap with the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// What `namespace` lacks, given its default account and its CA's ConfigMap if they are there.
pub fn reconcile(
    namespace: &Namespace,
    account: Option<&ServiceAccount>,
    root_ca: Option<&ConfigMap>,
    ca_pem: &str,
) -> Vec<Action> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    let mut actions = Vec::new();
    if account.is_none() {
        actions.push(Action::create(&ServiceAccount { metadata: metadata("default"), ..ServiceAccount::default() }));
    }
    let data = Some(BTreeMap::from([("ca.crt".to_owned(), ca_pem.to_owned())]));
    match root_ca {
        None => actions.push(Action::create(&ConfigMap { metadata: metadata(ROOT_CA), data, ..ConfigMap::default() })),
        Some(present) if present.data != data => actions.push(Action::replace(&ConfigMap { data, ..present.clone() })),
        Some(_) => {}
    }
    actions
}

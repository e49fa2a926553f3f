//! Whose signatures images need: the Namespaces' policies as this node knows them, kept on disk for the time without a control plane.
//!
//! One watch serves all pods. A policy that is not known, or cannot be read, is not taken for none: nothing that it may be about is
//! started. Static pods are the node's own and no policy is about them, as no admission is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use shoal_api::image_policy::{ImagePolicy, KeyKind, PUBLIC_KEYS, UNSIGNED};
use shoal_client::{Cache, Client, Selection};
use shoal_images::{Algorithm, Reference};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::guests::PublicKey;
use crate::local_store::LocalStore;
use crate::pod::spec;
use crate::uplink::Uplink;

/// How long a pod waits for its Namespace to be heard of before what is on disk is taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the policies are kept: collection and name.
const KEPT: (&str, &str) = ("namespaces", "image-policies");

/// The annotations that are a namespace's policy, by name.
type Annotations = BTreeMap<String, String>;

/// The policies of all namespaces.
pub struct ImagePolicies {
    namespaces: Cache<Namespace>,
    uplink: Uplink,
    /// What the last process knew.
    kept: BTreeMap<String, Annotations>,
}

impl ImagePolicies {
    /// Begins to follow the Namespaces. Blocks on the local store.
    pub fn new(client: Client, uplink: Uplink, store: &LocalStore, stop: CancellationToken) -> Self {
        let namespaces = Cache::start(client, Selection::default(), stop);
        Self { namespaces, uplink, kept: store.load(KEPT.0, KEPT.1).unwrap_or_default() }
    }

    /// The keys of which one must have signed this image of the pod's; none if it needs no signature.
    ///
    /// # Errors
    /// A sentence: the policy is not known or cannot be read.
    pub async fn signers(&self, pod: &Pod, image: &str) -> Result<Option<Vec<PublicKey>>, String> {
        if spec::is_static(pod) {
            return Ok(None);
        }
        let namespace = spec::namespace(pod);
        let annotations = self.annotations(namespace).await.ok_or_else(|| {
            format!("image {image:?} is not verified: the node has not heard yet which signatures the namespace {namespace:?} wants")
        })?;
        let policy = ImagePolicy::of(|name| annotations.get(name).map(String::as_str)).map_err(|error| {
            format!(
                "image {image:?} is not verified: the policy of the namespace {namespace:?} cannot be read: {error}"
            )
        })?;
        // A name that cannot be read is told by who pulls it.
        let repository = Reference::parse(image).map(|reference| reference.name()).unwrap_or_default();
        Ok(policy.keys(&repository).map(|keys| keys.iter().map(public_key).collect()))
    }

    /// Waits a little for what is not known. A namespace that was heard of once is known without a server.
    async fn annotations(&self, namespace: &str) -> Option<Annotations> {
        let kept = self.kept.get(namespace);
        if self.uplink.is_connected() || kept.is_none() {
            // When it takes too long, what is known is taken.
            let _ = tokio::time::timeout(PATIENCE, self.heard_of(namespace)).await;
        }
        if !self.namespaces.is_synced() {
            return kept.cloned();
        }
        self.namespaces.get("", namespace).map(|namespace| annotations(&namespace))
    }

    async fn heard_of(&self, namespace: &str) {
        let mut changed = self.namespaces.changed();
        loop {
            changed.mark_unchanged();
            if self.namespaces.is_synced() && self.namespaces.get("", namespace).is_some() {
                return;
            }
            // Its sender lives in the cache.
            let _ = changed.changed().await;
        }
    }
}

/// Keeps on disk what changes, for ever.
pub async fn keep(context: Arc<Context>) {
    let policies = &context.image_policies;
    let mut changed = policies.namespaces.changed();
    let mut known = policies.kept.clone();
    loop {
        changed.mark_unchanged();
        if policies.namespaces.is_synced() {
            let snapshot = policies.namespaces.snapshot();
            let named = |namespace: &Arc<Namespace>| Some((namespace.metadata.name.clone()?, annotations(namespace)));
            let newest: BTreeMap<String, Annotations> = snapshot.values().filter_map(named).collect();
            if newest != known {
                context.keeper.keep(KEPT.0, KEPT.1, &newest);
                known = newest;
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn annotations(namespace: &Namespace) -> Annotations {
    let all = namespace.metadata.annotations.iter().flatten();
    let own = all.filter(|(name, _)| [PUBLIC_KEYS, UNSIGNED].contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn public_key(key: &shoal_api::image_policy::PublicKey) -> PublicKey {
    let algorithm = match key.kind {
        KeyKind::EcdsaP256 => Algorithm::EcdsaP256,
        KeyKind::EcdsaP384 => Algorithm::EcdsaP384,
        KeyKind::Ed25519 => Algorithm::Ed25519,
        KeyKind::Rsa => Algorithm::Rsa,
    };
    PublicKey::new(algorithm, key.bytes.clone())
}

//! The ConfigMaps and Secrets that a pod names, and their contents as they are known.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};
use serde::{Deserialize, Serialize};

use super::spec;
use super::tokens::{Token, Wanted};

/// What kind of object is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// An object in the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// Its kind.
    pub kind: SourceKind,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            SourceKind::ConfigMap => "configmap",
            SourceKind::Secret => "secret",
        };
        write!(f, "{kind} {:?}", self.name)
    }
}

/// What a pod's variables and volumes are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The objects that it names, as far as they exist: the bytes by key.
    objects: BTreeMap<Reference, BTreeMap<String, Vec<u8>>>,
    /// The tokens that its volumes want.
    pub tokens: Vec<Token>,
}

impl Sources {
    /// Adds an object's contents.
    pub fn insert(&mut self, reference: Reference, contents: BTreeMap<String, Vec<u8>>) {
        self.objects.insert(reference, contents);
    }

    /// The contents of an object; `None` if it does not exist.
    pub fn get(&self, kind: SourceKind, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.objects.get(&Reference { kind, name: name.to_owned() })
    }

    /// The token that was asked for so.
    pub fn token(&self, wanted: &Wanted) -> Option<&str> {
        self.tokens.iter().find(|token| token.wanted == *wanted).map(|token| token.text.as_str())
    }
}

/// A ConfigMap's contents.
pub fn config_map_contents(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

/// A Secret's contents.
pub fn secret_contents(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

/// Everything that the pod names, optional or not, but for [`pull_secrets`].
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    for container in spec::every_container(pod) {
        of_container(&container, &mut found);
    }
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        of_volume(volume, &mut found);
    }
    found
}

/// The secrets with which the pod's images are pulled, in its order, each once. A pod starts without them where its images can be had.
pub fn pull_secrets(pod: &Pod) -> Vec<Reference> {
    let mut found: Vec<Reference> = Vec::new();
    for secret in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
        let reference = Reference { kind: SourceKind::Secret, name: secret.name.clone() };
        if !secret.name.is_empty() && !found.contains(&reference) {
            found.push(reference);
        }
    }
    found
}

fn add(found: &mut BTreeSet<Reference>, kind: SourceKind, name: &str) {
    if !name.is_empty() {
        found.insert(Reference { kind, name: name.to_owned() });
    }
}

fn of_container(container: &Container, found: &mut BTreeSet<Reference>) {
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            add(found, SourceKind::ConfigMap, &map.name);
        }
        if let Some(secret) = &source.secret_ref {
            add(found, SourceKind::Secret, &secret.name);
        }
    }
    for source in container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
        if let Some(key) = &source.config_map_key_ref {
            add(found, SourceKind::ConfigMap, &key.name);
        }
        if let Some(key) = &source.secret_key_ref {
            add(found, SourceKind::Secret, &key.name);
        }
    }
}

fn of_volume(volume: &Volume, found: &mut BTreeSet<Reference>) {
    if let Some(map) = &volume.config_map {
        add(found, SourceKind::ConfigMap, &map.name);
    }
    if let Some(secret) = &volume.secret {
        add(found, SourceKind::Secret, secret.secret_name.as_deref().unwrap_or_default());
    }
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        if let Some(map) = &source.config_map {
            add(found, SourceKind::ConfigMap, &map.name);
        }
        if let Some(secret) = &source.secret {
            add(found, SourceKind::Secret, &secret.name);
        }
    }
}

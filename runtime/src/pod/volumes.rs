//! What a pod's volumes contain. Pure: files as bytes; [`super::directory`] writes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};
use shoal_api::quantity::Quantity;

use super::environment::not_found;
use super::fields::{self, Place};
use super::references::{SourceKind, Sources};
use super::resources::{self, Bound};
use super::spec;
use super::tokens::Wanted;

/// The mode of a file for which nothing says another.
const DEFAULT_MODE: u32 = 0o644;

/// The contents of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// An empty directory that the containers may write.
    Empty,
    /// A directory that is not the pod's own: a claim's, or the node's.
    Elsewhere,
    /// Files that the containers may only read, by path in the volume.
    Files(BTreeMap<String, File>),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The contents of one volume of the pod.
///
/// # Errors
/// The message of a `FailedMount`: an object or a key that is missing, a path that leaves the volume.
pub fn contents(pod: &Pod, volume: &Volume, sources: &Sources, place: &Place) -> Result<Contents, String> {
    let is_of_others =
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() || volume.host_path.is_some();
    if is_of_others || is_in_memory(volume) {
        return Ok(Contents::Elsewhere);
    }
    let mut files = BTreeMap::new();
    if let Some(map) = &volume.config_map {
        let of = Of {
            kind: SourceKind::ConfigMap,
            name: &map.name,
            items: map.items.as_deref(),
            optional: map.optional,
            mode: mode(map.default_mode),
        };
        of.add(sources, &mut files)?;
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let of = Of {
            kind: SourceKind::Secret,
            name,
            items: secret.items.as_deref(),
            optional: secret.optional,
            mode: mode(secret.default_mode),
        };
        of.add(sources, &mut files)?;
    } else if let Some(downward) = &volume.downward_api {
        add_downward(
            pod,
            place,
            downward.items.as_deref().unwrap_or_default(),
            mode(downward.default_mode),
            &mut files,
        )?;
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            add_projection(pod, source, sources, place, mode(projected.default_mode), &mut files)?;
        }
    } else {
        return Ok(Contents::Empty);
    }
    Ok(Contents::Files(files))
}

/// Whether the volume is to be in memory.
pub fn is_in_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref() == Some("Memory"))
}

/// How much an emptyDir may hold: its sizeLimit; one in memory no more than the pod's memory limit, where all of its containers have
/// one, as in Kubernetes.
pub fn size_limit(pod: &Pod, volume: &Volume) -> Option<Quantity> {
    let empty = volume.empty_dir.as_ref()?;
    let own = empty.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
    let own = own.filter(|limit| !limit.is_zero());
    let has_limit = |c: &Container| resources::of_container(c, Bound::Limits, "memory").is_some();
    let is_limited =
        resources::of_whole(pod, Bound::Limits, "memory").is_some() || spec::all_containers(pod).all(has_limit);
    let of_pod = || resources::limit(pod, "memory").filter(|_| is_limited && is_in_memory(volume));
    own.into_iter().chain(of_pod()).min()
}

fn mode(given: Option<i32>) -> u32 {
    given.and_then(|m| u32::try_from(m).ok()).map_or(DEFAULT_MODE, |m| m & 0o777)
}

/// A ConfigMap or Secret as files.
struct Of<'a> {
    kind: SourceKind,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
}

impl Of<'_> {
    fn add(&self, sources: &Sources, files: &mut BTreeMap<String, File>) -> Result<(), String> {
        let optional = self.optional == Some(true);
        let Some(contents) = sources.get(self.kind, self.name) else {
            return if optional { Ok(()) } else { Err(not_found(self.kind, self.name)) };
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            files.extend(
                contents.iter().map(|(key, bytes)| (key.clone(), File { bytes: bytes.clone(), mode: self.mode })),
            );
            return Ok(());
        };
        for item in items {
            match contents.get(&item.key) {
                Some(bytes) => {
                    let mode = item.mode.map_or(self.mode, |m| mode(Some(m)));
                    files.insert(inside(&item.path)?, File { bytes: bytes.clone(), mode });
                }
                None if optional => {}
                None => {
                    let kind = if self.kind == SourceKind::ConfigMap { "configmap" } else { "secret" };
                    return Err(format!("{kind} references non-existent {kind} key: {}", item.key));
                }
            }
        }
        Ok(())
    }
}

fn add_projection(
    pod: &Pod,
    source: &VolumeProjection,
    sources: &Sources,
    place: &Place,
    mode: u32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    if let Some(map) = &source.config_map {
        let of = Of {
            kind: SourceKind::ConfigMap,
            name: &map.name,
            items: map.items.as_deref(),
            optional: map.optional,
            mode,
        };
        of.add(sources, files)?;
    }
    if let Some(secret) = &source.secret {
        let of = Of {
            kind: SourceKind::Secret,
            name: &secret.name,
            items: secret.items.as_deref(),
            optional: secret.optional,
            mode,
        };
        of.add(sources, files)?;
    }
    if let Some(downward) = &source.downward_api {
        add_downward(pod, place, downward.items.as_deref().unwrap_or_default(), mode, files)?;
    }
    if let Some(token) = &source.service_account_token {
        let text = sources.token(&Wanted::of(token)).ok_or("failed to fetch token: there is none")?;
        files.insert(inside(&token.path)?, File { bytes: text.as_bytes().to_vec(), mode });
    }
    Ok(())
}

fn add_downward(
    pod: &Pod,
    place: &Place,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => fields::field(pod, place, selector)?,
            (None, Some(selector)) => {
                fields::resource(pod, place, selector.container_name.as_deref().unwrap_or_default(), selector)?
            }
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(default_mode, |m| mode(Some(m)));
        files.insert(inside(&item.path)?, File { bytes: text.into_bytes(), mode });
    }
    Ok(())
}

/// The path, if it stays inside the volume.
fn inside(path: &str) -> Result<String, String> {
    let is_bad = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part.is_empty() || part == "." || part.starts_with(".."));
    if is_bad { Err(format!("path {path:?} must be relative and stay inside the volume")) } else { Ok(path.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::references::Reference;
    use crate::pod::tokens::Token;
    use jiff::Timestamp;
    use serde_json::json;

    fn of(volume: serde_json::Value) -> Result<BTreeMap<String, (String, u32)>, String> {
        let mut sources = Sources::default();
        let contents = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
        sources.insert(Reference { kind: SourceKind::Secret, name: "keys".into() }, contents);
        let wanted = Wanted { audience: "vault".into(), seconds: 600 };
        let until = Timestamp::UNIX_EPOCH;
        sources.tokens.push(Token { wanted, text: "a.b.c".into(), from: until, until });
        let volume: Volume = serde_json::from_value(volume).expect("volume");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).expect("pod");
        match contents_of(&pod, &volume, &sources)? {
            Contents::Empty | Contents::Elsewhere => Ok(BTreeMap::new()),
            Contents::Files(files) => {
                let text = |f: File| (String::from_utf8(f.bytes).expect("text"), f.mode);
                Ok(files.into_iter().map(|(path, file)| (path, text(file))).collect())
            }
        }
    }

    fn contents_of(pod: &Pod, volume: &Volume, sources: &Sources) -> Result<Contents, String> {
        contents(pod, volume, sources, &Place::default())
    }

    #[test]
    fn a_secret_becomes_files_with_modes() {
        let all = of(json!({"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o400}})).expect("files");
        assert_eq!(all, [("a".to_owned(), ("1".to_owned(), 0o400)), ("b".to_owned(), ("2".to_owned(), 0o400))].into());
        let one = of(json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "a", "path": "sub/x", "mode": 0o600}]}})).expect("files");
        assert_eq!(one, [("sub/x".to_owned(), ("1".to_owned(), 0o600))].into());
    }

    #[test]
    fn what_is_missing_fails_unless_it_is_optional() {
        assert_eq!(of(json!({"name": "v", "configMap": {"name": "no"}})), Err("configmap \"no\" not found".to_owned()));
        assert_eq!(of(json!({"name": "v", "configMap": {"name": "no", "optional": true}})), Ok(BTreeMap::new()));
        assert!(
            of(json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "z", "path": "z"}]}})).is_err()
        );
        assert!(
            of(json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "a", "path": "../z"}]}}))
                .is_err()
        );
    }

    #[test]
    fn a_projection_puts_sources_side_by_side() {
        let files = of(json!({"name": "v", "projected": {"sources": [
            {"secret": {"name": "keys", "items": [{"key": "a", "path": "a"}]}},
            {"serviceAccountToken": {"path": "run/token", "audience": "vault", "expirationSeconds": 600}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}))
        .expect("files");
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "name", "run/token"]);
        assert_eq!(files["run/token"].0, "a.b.c");
        let other = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
        assert!(of(other).is_err(), "a token for another is no token");
    }

    #[test]
    fn a_volume_in_memory_holds_no_more_than_its_pod_may() {
        let of = |empty: serde_json::Value, memory: Option<&str>| {
            let limits = memory.map(|memory| json!({"limits": {"memory": memory}})).unwrap_or_default();
            let volume = json!({"name": "v", "emptyDir": empty});
            let pod = json!({"spec": {"containers": [{"name": "c", "resources": limits}], "volumes": [volume]}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let volume = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).next().expect("a volume");
            size_limit(&pod, volume).map(|limit| limit.to_string())
        };
        let memory = || json!({"medium": "Memory"});
        assert_eq!(of(json!({}), Some("1Mi")), None);
        assert_eq!(of(json!({"sizeLimit": "2Mi"}), Some("1Mi")).as_deref(), Some("2Mi"));
        assert_eq!(of(memory(), None), None);
        assert_eq!(of(memory(), Some("1Mi")).as_deref(), Some("1Mi"));
        assert_eq!(of(json!({"medium": "Memory", "sizeLimit": "512Ki"}), Some("1Mi")).as_deref(), Some("512Ki"));
    }
}

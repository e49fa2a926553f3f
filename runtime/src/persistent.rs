//! Directories that outlive pods: finding out which one a claim means, and removing one when nobody wants it any more.
//!
//! A pod's own folder has a link to each of them: what mounts its volumes need not know that they are elsewhere, what removes the
//! folder does not follow links, and the links say which directories are in use. What a claim means does not change while a pod has
//! it, so it is kept with the pod, which starts again without a server.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use shoal_client::ClientError;

use crate::context::Context;
use crate::memory_volumes::MemoryVolumes;
use crate::node;
use crate::pod::claims::{self, Directory};
use crate::pod::{host_paths, spec, volumes};

/// Where it is kept what the claims of a pod mean: a collection, by the pod's uid.
pub const KEPT: &str = "claims";

/// The directories of a pod by the name of the volume.
pub type Directories = BTreeMap<String, Directory>;

/// What the claims and host paths of a pod mean, and where its volumes in memory are.
///
/// # Errors
/// The message of a `FailedMount`.
pub async fn directories(context: &Arc<Context>, pod: &Pod) -> Result<Directories, String> {
    let mut found = of_claims(context, pod).await?;
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if let Some(host) = &volume.host_path {
            let create = host.type_.as_deref() == Some("DirectoryOrCreate");
            found.insert(volume.name.clone(), Directory::OfNode { path: host.path.clone().into(), create });
        }
        if volumes::is_in_memory(volume)
            && let Some(path) = context.memory_volumes.directory(spec::uid(pod), &volume.name)
        {
            found.insert(volume.name.clone(), Directory::InMemory(path));
        }
    }
    Ok(found)
}

async fn of_claims(context: &Arc<Context>, pod: &Pod) -> Result<Directories, String> {
    let wanted = claims::claims(pod);
    if wanted.is_empty() {
        return Ok(Directories::new());
    }
    let (store, uid) = (context.store.clone(), spec::uid(pod).to_owned());
    let kept = tokio::task::spawn_blocking(move || store.load::<Directories>(KEPT, &uid)).await;
    if let Ok(Some(kept)) = kept {
        return Ok(kept);
    }
    let mut found = Directories::new();
    for (volume, claim) in wanted {
        let failed = |message: String| format!("MountVolume.SetUp failed for volume {volume:?} : {message}");
        let directory = of_claim(context, pod, &volume, &claim).await.map_err(failed)?;
        found.insert(volume, directory);
    }
    context.keeper.keep(KEPT, spec::uid(pod), &found);
    Ok(found)
}

async fn of_claim(context: &Context, pod: &Pod, volume: &str, name: &str) -> Result<Directory, String> {
    let missing = |kind: &str, name: &str, error: &ClientError| match error.is_not_found() {
        true => format!("{kind} {name:?} not found"),
        false => format!("{kind} {name:?}: {error}"),
    };
    let claim = context.client.get::<PersistentVolumeClaim>(spec::namespace(pod), name).await;
    let claim = claim.map_err(|error| missing("persistentvolumeclaim", name, &error))?;
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let is_own = volumes.into_iter().any(|own| own.name == volume && own.ephemeral.is_some());
    let bound = claims::volume_name(pod, &claim, is_own)?;
    let found = context.client.get::<PersistentVolume>("", bound).await;
    let found = found.map_err(|error| missing("persistentvolume", bound, &error))?;
    let labels = node::metadata(&context.config, "").labels.unwrap_or_default();
    claims::directory(&claim, &found, &context.config.node_name, &labels)
}

/// Makes the directory if it is ours to make, and links `place` to it. Blocks.
///
/// # Errors
/// A sentence.
pub fn link(
    place: &Path,
    directory: &Directory,
    kept: &Path,
    memory: &MemoryVolumes,
    allowed: &[PathBuf],
) -> Result<(), String> {
    let target = match directory {
        Directory::InMemory(path) => {
            memory.make(path).map_err(|error| format!("{}: {error}", path.display()))?;
            path.clone()
        }
        Directory::Kept(name) => {
            let path = kept.join(name);
            std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            path
        }
        Directory::OfNode { path, create } => host_paths::open(path, allowed, *create)?,
    };
    let failed = |error: std::io::Error| format!("linking {}: {error}", place.display());
    match std::fs::read_link(place) {
        Ok(before) if before == target => return Ok(()),
        Ok(_) => std::fs::remove_file(place).map_err(failed)?,
        Err(_) => {}
    }
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::os::unix::fs::symlink(&target, place).map_err(failed)
}

/// Why a directory was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRemoved {
    /// It is no name of a volume.
    NoName,
    /// A pod still has it.
    InUse,
    /// What the file system says.
    Failed(String),
}

/// Removes the directory of a volume, which may be gone already. `volumes` is where the pods' own folders are. Blocks.
///
/// # Errors
/// [`NotRemoved`]; ask again later unless it is no name.
pub fn remove(volumes: &Path, kept: &Path, name: &str) -> Result<(), NotRemoved> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(NotRemoved::NoName);
    }
    let path = kept.join(name);
    let folders = std::fs::read_dir(volumes).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut links = folders.filter(|folder| folder != kept).flat_map(std::fs::read_dir).flatten().flatten();
    if links.any(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == path)) {
        return Err(NotRemoved::InUse);
    }
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(NotRemoved::Failed(error.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_while_a_pod_has_it_and_its_data_outlives_the_pod() {
        let place = tempfile::tempdir().expect("a directory");
        let volumes = place.path().join("volumes");
        let kept = volumes.join("persistent");
        let directory = Directory::Kept("pvc-1".to_owned());
        let memory = MemoryVolumes::new(None, place.path());
        for pod in ["one", "two"] {
            let mounted = volumes.join(pod).join("data");
            link(&mounted, &directory, &kept, &memory, &[]).expect("linked");
            link(&mounted, &directory, &kept, &memory, &[]).expect("a second time changes nothing");
            let file = mounted.join("file");
            if pod == "one" {
                std::fs::write(&file, "kept").expect("written");
            }
            assert_eq!(std::fs::read_to_string(&file).expect("read"), "kept");
            assert_eq!(remove(&volumes, &kept, "pvc-1"), Err(NotRemoved::InUse));
            std::fs::remove_dir_all(volumes.join(pod)).expect("the pod goes");
        }
        assert!(kept.join("pvc-1/file").exists());
        assert_eq!(remove(&volumes, &kept, "pvc-1"), Ok(()));
        assert!(!kept.join("pvc-1").exists());
        assert_eq!(remove(&volumes, &kept, "pvc-1"), Ok(()));
        for name in ["", "..", ".", "a/b"] {
            assert_eq!(remove(&volumes, &kept, name), Err(NotRemoved::NoName), "{name}");
        }
    }
}

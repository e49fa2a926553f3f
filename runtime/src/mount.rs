//! Making a pod's volumes: directories of the host that the engine opens for the guest.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::context::Context;
use crate::pod::volumes::{self, Contents};
use crate::pod::{Happening, directory, spec};

/// A directory for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On this machine.
    pub host: PathBuf,
    /// In the guest.
    pub guest: String,
    /// The guest may not write.
    pub is_read_only: bool,
}

/// Makes all volumes, or brings them up to date.
pub async fn mount(context: Arc<Context>, pod: Pod, address: Option<IpAddr>) -> Happening {
    let sources = match context.sources.fetch(&pod).await {
        Ok(sources) => sources,
        Err(message) => return Happening::MountFailed(message),
    };
    let place = context.place(address);
    let root = context.volume_root(spec::uid(&pod));
    let made = tokio::task::spawn_blocking(move || make(&pod, &sources, &place, &root)).await;
    match made {
        Ok(Ok(())) => Happening::Mounted,
        Ok(Err(message)) => Happening::MountFailed(message),
        Err(error) => Happening::MountFailed(error.to_string()),
    }
}

fn make(
    pod: &Pod,
    sources: &crate::pod::references::Sources,
    place: &crate::pod::fields::Place,
    root: &Path,
) -> Result<(), String> {
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let failed = |message: String| format!("MountVolume.SetUp failed for volume {:?} : {message}", volume.name);
        let directory = root.join(&volume.name);
        let made = match volumes::contents(pod, volume, sources, place).map_err(failed)? {
            Contents::Empty => std::fs::create_dir_all(&directory),
            Contents::Files(files) => directory::write(&directory, &files).map(|_| ()),
        };
        made.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// The mounts of one container. Volumes whose source is an object can only be read, as in Kubernetes.
///
/// # Errors
/// A sentence, if a mount names a volume that the pod does not have.
pub fn mounts(pod: &Pod, container: &Container, root: &Path) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let of_mount = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let volume = volumes
            .iter()
            .find(|v| v.name == mount.name)
            .ok_or_else(|| format!("volume {:?} is not defined", mount.name))?;
        let is_object = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        Ok(Mount {
            host: root.join(&mount.name),
            guest: mount.mount_path.clone(),
            is_read_only: is_object || mount.read_only == Some(true),
        })
    };
    container.volume_mounts.iter().flatten().map(of_mount).collect()
}

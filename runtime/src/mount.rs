//! Making a pod's volumes: directories of the host that the engine opens for the guest.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use crate::context::Context;
use crate::persistent::{self, Directories};
use crate::pod::volumes::{self, Contents};
use crate::pod::{Happening, directory, spec};
use crate::{sub_path, tokens};

/// Where a pod keeps copies of single files, beside its volumes: no volume can have this name.
const FILES: &str = ".files";

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
pub async fn mount(context: Arc<Context>, pod: Arc<Pod>, address: Option<IpAddr>) -> Happening {
    let mut sources = match context.sources.fetch(&pod).await {
        Ok(sources) => sources,
        Err(message) => return Happening::MountFailed(message),
    };
    sources.tokens = match context.tokens.fetch(&pod).await {
        Ok(tokens) => tokens,
        Err(message) => return Happening::MountFailed(token_failed(&pod, &message)),
    };
    let renew_at = tokens::renew_at(&sources.tokens, Timestamp::now());
    let directories = match persistent::directories(&context, &pod).await {
        Ok(directories) => directories,
        Err(message) => return Happening::MountFailed(message),
    };
    let place = context.place(&pod, address);
    let root = context.volume_root(spec::uid(&pod));
    let made = tokio::task::spawn_blocking(move || {
        link(&pod, &directories, &context, &root)?;
        make(&pod, &sources, &place, &root)
    });
    let made = made.await;
    match made {
        Ok(Ok(())) => Happening::Mounted { renew_at },
        Ok(Err(message)) => Happening::MountFailed(message),
        Err(error) => Happening::MountFailed(error.to_string()),
    }
}

/// Links the volumes that are elsewhere into the pod's folder.
fn link(pod: &Pod, directories: &Directories, context: &Context, root: &Path) -> Result<(), String> {
    let kept = context.config.kept_volumes();
    for volume in volumes_of(pod) {
        if let Some(directory) = directories.get(&volume.name) {
            let (memory, allowed) = (&context.memory_volumes, &context.config.allow_host_path);
            persistent::link(&root.join(&volume.name), directory, &kept, memory, allowed)
                .map_err(|message| setup_failed(volume, &message))?;
        }
    }
    Ok(())
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// As the kubelet says it: of the volume that wants the token.
fn token_failed(pod: &Pod, message: &str) -> String {
    let wants = |volume: &&Volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.into_iter().any(|source| source.service_account_token.is_some())
    };
    volumes_of(pod).find(wants).map_or_else(|| message.to_owned(), |volume| setup_failed(volume, message))
}

fn setup_failed(volume: &Volume, message: &str) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {message}", volume.name)
}

/// Makes the volumes that are the pod's own.
fn make(
    pod: &Pod,
    sources: &crate::pod::references::Sources,
    place: &crate::pod::fields::Place,
    root: &Path,
) -> Result<(), String> {
    for volume in volumes_of(pod) {
        let failed = |message: String| setup_failed(volume, &message);
        let directory = root.join(&volume.name);
        let made = match volumes::contents(pod, volume, sources, place).map_err(failed)? {
            Contents::Elsewhere => Ok(()),
            Contents::Empty => std::fs::create_dir_all(&directory),
            Contents::Files(files) => directory::write(&directory, &files).map(|_| ()),
        };
        made.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// The mounts of one container, whose variables `subPathExpr` may name. Volumes whose source is an object can only be read, as in
/// Kubernetes, and so can single files.
///
/// # Errors
/// A sentence, if a mount names a volume that the pod does not have, or a part that the volume does not have.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    root: &Path,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    let mut files = sub_path::Files::default();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .iter()
            .find(|v| v.name == mount.name)
            .ok_or_else(|| format!("volume {:?} is not defined", mount.name))?;
        let is_object = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        let failed = |message| format!("failed to mount volume {:?} at {:?}: {message}", mount.name, mount.mount_path);
        let whole = root.join(&mount.name);
        let host = match sub_path::of_mount(mount, variables).map_err(failed)? {
            None => whole,
            Some(part) => sub_path::resolve(&whole, &part, !is_object).map_err(failed)?,
        };
        if host.is_file() {
            files.add(&mount.mount_path, host).map_err(failed)?;
            continue;
        }
        let is_read_only_claim =
            volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true));
        let is_read_only = is_object || is_read_only_claim || mount.read_only == Some(true);
        mounts.push(Mount { host, guest: mount.mount_path.clone(), is_read_only });
    }
    for (guest, host) in files.copy(&root.join(FILES).join(&container.name))? {
        if mounts.iter().any(|mount| mount.guest.trim_end_matches('/') == guest.trim_end_matches('/')) {
            return Err(format!(
                "volumeMounts: a file is mounted in {guest:?}, which is a mount of its own: a file cannot be laid over a directory"
            ));
        }
        mounts.push(Mount { host, guest, is_read_only: true });
    }
    Ok(mounts)
}

//! How much of the disk a pod uses: its volumes' and its logs' files, counted as `du` does.
//!
//! Blocking. A scan is bounded in files a pod: what a pod with more of them uses is told too low, and never delays the others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::last_words;
use crate::limits::DISK_SCAN_FILES;
use crate::pod::spec;
use crate::pod::volumes::{is_in_memory, size_limit};

/// The bytes of one block of `st_blocks`, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// What the files below one directory use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Used {
    /// The two together.
    #[must_use]
    pub fn plus(self, other: Used) -> Used {
        Used { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What one pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Its own volumes by name: emptyDir and those whose files the node wrote.
    pub volumes: BTreeMap<String, Used>,
    /// The logs of its containers, and what they left to say at their end, by the containers' names.
    pub logs: BTreeMap<String, Used>,
}

impl PodDisk {
    /// What counts as the pod's ephemeral storage: its volumes that are on the disk, and its logs.
    pub fn ephemeral(&self, pod: &Pod) -> Used {
        let volumes = volumes(pod).filter(|volume| !is_in_memory(volume));
        let volumes = volumes.filter_map(|volume| self.volumes.get(&volume.name));
        volumes.chain(self.logs.values()).fold(Used::default(), |sum, used| sum.plus(*used))
    }

    /// What its volumes in memory use of that, in bytes.
    pub fn memory(&self, pod: &Pod) -> u64 {
        let volumes = volumes(pod).filter(|volume| is_in_memory(volume));
        volumes.filter_map(|volume| self.volumes.get(&volume.name)).fold(0, |sum, used| sum.saturating_add(used.bytes))
    }
}

/// Whether the pod itself says how much of the disk something of it may use.
pub fn has_limit(pod: &Pod) -> bool {
    let limits = |limits: &BTreeMap<String, Quantity>| limits.contains_key("ephemeral-storage");
    volumes(pod).any(|volume| size_limit(pod, volume).is_some())
        || spec::every_container(pod)
            .any(|container| container.resources.as_ref().and_then(|all| all.limits.as_ref()).is_some_and(limits))
}

/// The volumes of a pod.
pub fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Where the files of one pod are.
pub struct Places {
    /// Its volumes, each a directory of its name.
    pub volumes: PathBuf,
    /// The directory of each container's logs.
    pub logs: BTreeMap<String, PathBuf>,
}

/// Looks at all files of a pod.
pub fn of_pod(pod: &Pod, places: &Places) -> PodDisk {
    let mut left = DISK_SCAN_FILES;
    let is_claim = |volume: &&Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    let own = volumes(pod).filter(|volume| volume.host_path.is_none() && !is_claim(volume));
    PodDisk {
        volumes: own
            .map(|volume| (volume.name.clone(), below(&place_of(volume, &places.volumes), &mut left)))
            .collect(),
        logs: spec::every_container(pod)
            .filter_map(|container| {
                let logs = below(places.logs.get(&container.name)?, &mut left);
                let words = below(&last_words::own_directory(&places.volumes, &container.name), &mut left);
                Some((container.name.clone(), logs.plus(words)))
            })
            .collect(),
    }
}

/// The directory of a volume; to one in memory the pod's folder has a link, of the node's own making.
fn place_of(volume: &Volume, volumes: &Path) -> PathBuf {
    let place = volumes.join(&volume.name);
    if is_in_memory(volume) { fs::canonicalize(&place).unwrap_or(place) } else { place }
}

/// What is below `root`, itself included, looking at no more than `left` files. Links are not followed.
fn below(root: &Path, left: &mut usize) -> Used {
    let mut used = Used::default();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        // What is gone by now uses nothing.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if *left == 0 {
            break;
        }
        *left -= 1;
        used = used.plus(Used { bytes: metadata.blocks().saturating_mul(BLOCK_BYTES), inodes: 1 });
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_below_a_volume_and_in_logs_are_counted_and_links_are_not_followed() {
        let directory = tempfile::tempdir().expect("directory");
        let (volumes, logs) = (directory.path().join("volumes"), directory.path().join("logs"));
        fs::create_dir_all(volumes.join("scratch/deep")).expect("directories");
        fs::create_dir_all(&logs).expect("directories");
        fs::write(volumes.join("scratch/deep/file"), vec![1; 1 << 20]).expect("a file");
        fs::write(directory.path().join("elsewhere"), vec![1; 8 << 20]).expect("a file");
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), volumes.join("scratch/link")).expect("a link");
        fs::write(logs.join("0.log"), vec![b'x'; 1 << 16]).expect("a file");
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory"}}]}}))
        .expect("a pod");
        let disk = of_pod(&pod, &Places { volumes, logs: [("c".to_owned(), logs)].into() });
        let scratch = disk.volumes["scratch"];
        assert!((1 << 20..2 << 20).contains(&scratch.bytes), "{scratch:?}");
        assert_eq!(scratch.inodes, 4);
        assert_eq!(disk.volumes["fast"], Used::default());
        assert!(disk.logs["c"].bytes >= 1 << 16);
        assert_eq!(disk.ephemeral(&pod), scratch.plus(disk.logs["c"]));
    }

    #[test]
    fn a_scan_ends_after_so_many_files() {
        let directory = tempfile::tempdir().expect("directory");
        for number in 0..10 {
            fs::write(directory.path().join(number.to_string()), "x").expect("a file");
        }
        let mut left = 4;
        assert_eq!((below(directory.path(), &mut left).inodes, left), (4, 0));
    }
}

//! Whether a pod uses more of the disk than it may. Pure.

use k8s_openapi::api::core::v1::Pod;
use shoal_api::quantity::Quantity;

use crate::disk_use::{self, PodDisk};
use crate::pod::{resources, spec, volumes};

/// The resource that disk is called by.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// Why the pod must go, in the kubelet's words; `None` if it keeps its limits.
///
/// In the kubelet's order: the `sizeLimit` of each emptyDir, the sum of the containers' limits, the limit of each container.
pub fn excess(pod: &Pod, disk: &PodDisk) -> Option<String> {
    over_size_limit(pod, disk).or_else(|| over_pod_limit(pod, disk)).or_else(|| over_container_limit(pod, disk))
}

fn over_size_limit(pod: &Pod, disk: &PodDisk) -> Option<String> {
    disk_use::volumes(pod).find_map(|volume| {
        let limit = volumes::size_limit(pod, volume)?;
        let used = disk.volumes.get(&volume.name)?;
        is_above(used.bytes, limit)
            .then(|| format!("Usage of EmptyDir volume {:?} exceeds the limit \"{limit}\". ", volume.name))
    })
}

fn over_pod_limit(pod: &Pod, disk: &PodDisk) -> Option<String> {
    let limit = resources::limit(pod, EPHEMERAL_STORAGE)?;
    is_above(disk.ephemeral(pod).bytes, limit)
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn over_container_limit(pod: &Pod, disk: &PodDisk) -> Option<String> {
    spec::all_containers(pod).find_map(|container| {
        let limit = resources::of_container(container, resources::Bound::Limits, EPHEMERAL_STORAGE)?;
        let used = disk.logs.get(&container.name)?;
        let name = &container.name;
        is_above(used.bytes, limit)
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
    })
}

fn is_above(bytes: u64, limit: Quantity) -> bool {
    i64::try_from(bytes).is_ok_and(|bytes| Quantity::from_bytes(bytes) > limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::disk_use::Used;

    fn pod(containers: &Value, volumes: &Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": containers, "volumes": volumes}})).expect("a pod")
    }

    fn disk(volumes: &[(&str, u64)], logs: &[(&str, u64)]) -> PodDisk {
        let used = |list: &[(&str, u64)]| {
            list.iter().map(|(name, bytes)| ((*name).to_owned(), Used { bytes: *bytes, inodes: 1 })).collect()
        };
        PodDisk { volumes: used(volumes), logs: used(logs) }
    }

    fn limited(name: &str, limit: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}})
    }

    #[test]
    fn each_limit_has_the_kubelet_s_words() {
        let scratch = json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]);
        let bare = json!([{"name": "c"}]);
        assert_eq!(
            excess(&pod(&bare, &scratch), &disk(&[("scratch", (1 << 20) + 1)], &[])).as_deref(),
            Some("Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ")
        );
        assert_eq!(excess(&pod(&bare, &scratch), &disk(&[("scratch", 1 << 20)], &[])), None);
        let two = json!([limited("a", "1Mi"), limited("b", "3Mi")]);
        assert_eq!(
            excess(&pod(&two, &json!([])), &disk(&[], &[("a", 2 << 20), ("b", 1 << 20)])).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")
        );
        let plain = json!([{"name": "scratch", "emptyDir": {}}]);
        assert_eq!(
            excess(&pod(&two, &plain), &disk(&[("scratch", 4 << 20)], &[("a", 1)])).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ")
        );
    }

    #[test]
    fn memory_is_no_disk_but_keeps_its_size_limit() {
        let fast = json!([{"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}}]);
        let one = json!([limited("a", "1Mi")]);
        assert_eq!(excess(&pod(&one, &fast), &disk(&[("fast", 2 << 20)], &[])), None);
        assert!(excess(&pod(&one, &fast), &disk(&[("fast", 3 << 20)], &[])).is_some());
    }

    proptest! {
        #[test]
        fn who_uses_more_is_never_better_off(limit in 0_u64..8, size in 0_u64..8, volume in 0_u64..10, log in 0_u64..10, more in 0_u64..4) {
            let pod = pod(&json!([limited("a", &limit.to_string())]), &json!([{"name": "v", "emptyDir": {"sizeLimit": size.to_string()}}]));
            let before = excess(&pod, &disk(&[("v", volume)], &[("a", log)]));
            let after = excess(&pod, &disk(&[("v", volume + more)], &[("a", log + more)]));
            prop_assert!(before.is_none() || after.is_some());
            let keeps = (size == 0 || volume <= size) && log + volume <= limit;
            prop_assert_eq!(before.is_none(), keeps);
        }
    }
}

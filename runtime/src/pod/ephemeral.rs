//! Ephemeral containers as containers: what `kubectl debug` adds to a pod that runs. Pure.
//!
//! One runs once, as a process beside the others. It sees what they see: the mounts of its target, or of all containers where
//! it names none, beside its own. Of what it says of itself only what could not be kept is refused; capabilities, which
//! `kubectl debug` adds by default, have no effect in a sandbox that has none.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, VolumeMount};

use super::spec;

/// The pod's ephemeral containers, in the order in which they were added.
pub fn definitions(pod: &Pod) -> impl Iterator<Item = Container> {
    list(pod).iter().map(|ephemeral| definition(pod, ephemeral))
}

/// The ephemeral container of that name.
pub fn find(pod: &Pod, name: &str) -> Option<Container> {
    list(pod).iter().find(|ephemeral| ephemeral.name == name).map(|ephemeral| definition(pod, ephemeral))
}

/// Whether the name is of an ephemeral container.
pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    list(pod).iter().any(|ephemeral| ephemeral.name == name)
}

/// The field of an ephemeral container that cannot be kept, and why.
pub fn refusal(container: &Container) -> Option<&'static str> {
    let security = container.security_context.as_ref();
    if security.and_then(|security| security.privileged) == Some(true) {
        return Some("securityContext.privileged: a Wasm sandbox has no privileges to give");
    }
    let devices = container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty());
    devices.then_some("volumeDevices: a Wasm module has no block devices")
}

fn list(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

fn definition(pod: &Pod, ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        command: ephemeral.command.clone(),
        args: ephemeral.args.clone(),
        working_dir: ephemeral.working_dir.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: Some(mounts(pod, ephemeral)),
        ..Container::default()
    }
}

/// Its own mounts, then those that it shares: of two at one place the first has it.
fn mounts(pod: &Pod, ephemeral: &EphemeralContainer) -> Vec<VolumeMount> {
    let target = ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty());
    let of_others = spec::all_containers(pod)
        .filter(|container| target.is_none_or(|target| target == container.name))
        .flat_map(|container| container.volume_mounts.iter().flatten())
        // Whose place hangs on variables that this one does not have.
        .filter(|mount| mount.sub_path_expr.is_none());
    let mut mounts: Vec<VolumeMount> = ephemeral.volume_mounts.clone().unwrap_or_default();
    for mount in of_others {
        let place = |mount: &VolumeMount| mount.mount_path.trim_end_matches('/').to_owned();
        if !mounts.iter().any(|known| place(known) == place(mount)) {
            mounts.push(mount.clone());
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ephemeral: &serde_json::Value) -> Pod {
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "volumeMounts": [mount("a", "/a")]}],
            "containers": [
                {"name": "c", "volumeMounts": [mount("b", "/b"), {"name": "x", "mountPath": "/x", "subPathExpr": "$(X)"}]},
                {"name": "d", "volumeMounts": [mount("c", "/b/")]}],
            "ephemeralContainers": [ephemeral]}}))
        .expect("a pod")
    }

    fn mounted(ephemeral: &serde_json::Value) -> Vec<(String, String)> {
        let container = find(&pod(ephemeral), "e").expect("it is there");
        container.volume_mounts.into_iter().flatten().map(|mount| (mount.name, mount.mount_path)).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect()
    }

    #[test]
    fn it_sees_what_its_target_sees_or_what_all_see() {
        assert_eq!(mounted(&json!({"name": "e"})), pairs(&[("a", "/a"), ("b", "/b")]));
        assert_eq!(mounted(&json!({"name": "e", "targetContainerName": "d"})), pairs(&[("c", "/b/")]));
        let own = json!({"name": "e", "volumeMounts": [{"name": "z", "mountPath": "/a"}]});
        assert_eq!(mounted(&own), pairs(&[("z", "/a"), ("b", "/b")]));
    }

    #[test]
    fn what_debug_adds_by_default_is_no_hindrance() {
        let of = |security: &serde_json::Value| {
            let container = find(&pod(&json!({"name": "e", "securityContext": security})), "e").expect("it is there");
            refusal(&container).is_some()
        };
        assert!(!of(&json!({"capabilities": {"add": ["SYS_PTRACE"]}})));
        assert!(of(&json!({"privileged": true})));
    }
}

//! Which pods are refused, and the field that says so. A pod that cannot be honoured is never half-run.

use std::borrow::Cow;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Pod, PodSpec, Volume};

use super::function_settings::FunctionSettings;
use super::observed::Refusal;
use super::{host_paths, host_ports};

/// The reason of a pod that is refused, in its status and in the event.
pub const REASON: &str = "UnsupportedPodSpec";

/// The runtime classes that all mean our engine.
const RUNTIME_CLASSES: [&str; 8] =
    ["wasm", "wasmtime", "wasmedge", "wasmer", "wamr", "spin", "wasmtime-spin", "wasmtime-spin-v2"];

/// What the node lets pods have of its own.
#[derive(Debug, Clone, Copy)]
pub struct Leave<'a> {
    /// Directories below these.
    pub host_paths: &'a [PathBuf],
    /// Its network.
    pub host_network: bool,
    /// Files in its memory.
    pub memory_volumes: bool,
}

/// Why the pod cannot be run, with the path of the field; `None` if it can.
pub fn refusal(pod: &Pod, leave: Leave<'_>) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let (path, why) =
        unsupported(spec, leave).or_else(|| FunctionSettings::of(pod).err().map(|(path, why)| (path, why.into())))?;
    Some(Refusal { reason: REASON.to_owned(), message: format!("{path}: {why}") })
}

type Unsupported = (String, Cow<'static, str>);

fn unsupported(spec: &PodSpec, leave: Leave<'_>) -> Option<Unsupported> {
    let of_volume =
        |volume: &Volume| of_medium(volume, leave.memory_volumes).or_else(|| of_volume(volume, leave.host_paths));
    of_pod(spec, leave.host_network)
        .or_else(|| numbered("spec.volumes", spec.volumes.as_deref().unwrap_or_default(), of_volume))
        .or_else(|| numbered("spec.initContainers", spec.init_containers.as_deref().unwrap_or_default(), of_container))
        .or_else(|| numbered("spec.containers", &spec.containers, of_container))
}

fn numbered<T>(list: &str, items: &[T], check: impl Fn(&T) -> Option<Unsupported>) -> Option<Unsupported> {
    items
        .iter()
        .enumerate()
        .find_map(|(index, item)| check(item).map(|(path, why)| (format!("{list}[{index}].{path}"), why)))
}

fn of_pod(spec: &PodSpec, may_have_network: bool) -> Option<Unsupported> {
    let yes = |field: Option<bool>| field == Some(true);
    let unknown_class = spec.runtime_class_name.as_deref().is_some_and(|class| !RUNTIME_CLASSES.contains(&class));
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let no_network = "this node shares its network with no pod; its worker must be started with --allow-host-network";
    [
        (yes(spec.host_network) && !may_have_network, "spec.hostNetwork", no_network),
        (yes(spec.host_pid), "spec.hostPID", "a Wasm pod has no processes of the host"),
        (yes(spec.host_ipc), "spec.hostIPC", "a Wasm pod has no IPC of the host"),
        (yes(spec.share_process_namespace), "spec.shareProcessNamespace", "Wasm containers have no processes to share"),
        (
            spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()),
            "spec.resourceClaims",
            "this node has no devices to claim",
        ),
        (windows, "spec.os.name", "this node runs Wasm modules only"),
        (unknown_class, "spec.runtimeClassName", "no such runtime on this node"),
    ]
    .into_iter()
    .find_map(|(is_set, path, why)| is_set.then(|| (path.to_owned(), why.into())))
}

fn of_medium(volume: &Volume, has_memory: bool) -> Option<Unsupported> {
    let why = match volume.empty_dir.as_ref()?.medium.as_deref() {
        None | Some("") => return None,
        Some("Memory") if has_memory => return None,
        Some("Memory") => "this node has no file system in memory; start its worker with --memory-dir DIR",
        Some(_) => "a volume is on the disk, or in Memory",
    };
    Some(("emptyDir.medium".to_owned(), why.into()))
}

fn of_volume(volume: &Volume, host_paths: &[PathBuf]) -> Option<Unsupported> {
    if let Some(projected) = &volume.projected {
        let sources = projected.sources.as_deref().unwrap_or_default();
        let plain = |s: &k8s_openapi::api::core::v1::VolumeProjection| {
            s.config_map.is_some()
                || s.secret.is_some()
                || s.downward_api.is_some()
                || s.service_account_token.is_some()
        };
        let index = sources.iter().position(|s| !plain(s))?;
        let field = if sources[index].cluster_trust_bundle.is_some() { ".clusterTrustBundle" } else { "" };
        return Some((format!("projected.sources[{index}]{field}"), "this kind of source is not supported".into()));
    }
    let known = volume.empty_dir.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some();
    if let Some(host) = &volume.host_path {
        return host_paths::refusal(host, host_paths).map(|(field, why)| (field.to_owned(), why.into()));
    }
    if known {
        return None;
    }
    let field = if volume.csi.is_some() {
        "csi"
    } else if volume.nfs.is_some() {
        "nfs"
    } else if volume.image.is_some() {
        "image"
    } else {
        // Kubernetes: a volume without a source is an emptyDir.
        let is_bare = serde_json::to_value(volume).is_ok_and(|v| v.as_object().is_some_and(|fields| fields.len() == 1));
        return (!is_bare).then(|| ("name".to_owned(), "this kind of volume is not supported".into()));
    };
    Some((field.to_owned(), "this kind of volume is not supported".into()))
}

fn of_container(container: &Container) -> Option<Unsupported> {
    let security = container.security_context.as_ref();
    let added = security.and_then(|s| s.capabilities.as_ref()?.add.as_ref()).is_some_and(|list| !list.is_empty());
    if security.and_then(|s| s.privileged) == Some(true) {
        return Some(("securityContext.privileged".to_owned(), "a Wasm sandbox has no privileges to give".into()));
    }
    if added {
        return Some((
            "securityContext.capabilities.add".to_owned(),
            "a Wasm sandbox has no Linux capabilities".into(),
        ));
    }
    if container.volume_devices.as_ref().is_some_and(|list| !list.is_empty()) {
        return Some(("volumeDevices".to_owned(), "a Wasm module has no block devices".into()));
    }
    if let Some((field, why)) = host_ports::refusal(container) {
        return Some((field, why.into()));
    }
    container.lifecycle.as_ref().and_then(of_lifecycle)
}

fn of_lifecycle(lifecycle: &Lifecycle) -> Option<Unsupported> {
    let of_handler = |name: &str, handler: Option<&LifecycleHandler>| {
        handler?.tcp_socket.as_ref()?;
        let why = "Kubernetes does not support it either; use exec, httpGet or sleep";
        Some((format!("lifecycle.{name}.tcpSocket"), why.into()))
    };
    of_handler("postStart", lifecycle.post_start.as_ref())
        .or_else(|| of_handler("preStop", lifecycle.pre_stop.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(spec: &serde_json::Value) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("pod");
        let leave = Leave { host_paths: &[PathBuf::from("/srv")], host_network: false, memory_volumes: true };
        refusal(&pod, leave).map(|r| r.message.split(':').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn the_field_that_cannot_be_honoured_is_named() {
        let with = |mut container: serde_json::Value| {
            container["name"] = json!("c");
            json!({"containers": [container]})
        };
        for (spec, path) in [
            (json!({"shareProcessNamespace": true, "containers": []}), "spec.shareProcessNamespace"),
            (json!({"resourceClaims": [{"name": "gpu"}], "containers": []}), "spec.resourceClaims"),
            (
                json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}]}),
                "spec.volumes[0].emptyDir.medium",
            ),
            (json!({"hostNetwork": true, "containers": []}), "spec.hostNetwork"),
            (json!({"runtimeClassName": "gvisor", "containers": []}), "spec.runtimeClassName"),
            (
                json!({"containers": [], "volumes": [{"name": "a", "emptyDir": {}}, {"name": "v", "hostPath": {"path": "/"}}]}),
                "spec.volumes[1].hostPath.path",
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}}, {"clusterTrustBundle": {"path": "ca", "name": "b"}}]}}]}),
                "spec.volumes[0].projected.sources[1].clusterTrustBundle",
            ),
            (json!({"containers": [], "volumes": [{"name": "v", "csi": {"driver": "d"}}]}), "spec.volumes[0].csi"),
            (
                with(json!({"ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 2, "protocol": "SCTP"}]})),
                "spec.containers[0].ports[1].protocol",
            ),
            (with(json!({"securityContext": {"privileged": true}})), "spec.containers[0].securityContext.privileged"),
            (
                with(json!({"lifecycle": {"postStart": {"tcpSocket": {"port": 80}}}})),
                "spec.containers[0].lifecycle.postStart.tcpSocket",
            ),
        ] {
            assert_eq!(refused(&spec).as_deref(), Some(path), "{spec}");
        }
    }

    #[test]
    fn the_node_s_network_needs_its_leave() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"hostNetwork": true, "containers": []}})).expect("pod");
        let told = |host_network| {
            refusal(&pod, Leave { host_paths: &[], host_network, memory_volumes: false }).map(|refusal| refusal.message)
        };
        assert!(told(false).is_some_and(|message| message.contains("--allow-host-network")));
        assert_eq!(told(true), None);
    }

    #[test]
    fn ordinary_pods_are_taken() {
        for spec in [
            json!({"containers": [{"name": "c", "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}}}]}),
            json!({"runtimeClassName": "wasmtime-spin-v2", "containers": [], "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}]}),
            json!({"containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}], "lifecycle": {"postStart": {"httpGet": {"port": 80}}}}]}),
            json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "h", "hostPath": {"path": "/srv/a"}}]}),
            json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}),
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "::1"}]}]}),
            json!({"containers": [{"name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}, "readinessProbe": {"httpGet": {"port": 80}}}]}),
            json!({"containers": [{"name": "c", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}, "livenessProbe": {"exec": {"command": ["x"]}}, "startupProbe": {"grpc": {"port": 80}}}]}),
        ] {
            assert_eq!(refused(&spec), None, "{spec}");
        }
    }
}

//! Reading a pod's specification: the questions that several decisions ask.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, LifecycleHandler, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ephemeral;

/// The grace period where neither the deletion nor the specification names one.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The longest name of a host (Linux).
const LONGEST_HOSTNAME: usize = 64;

/// What a restartPolicy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// If the exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// The specification; a pod without one has nothing to run.
pub fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// The containers that run side by side.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// The containers that run before them, in their order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// All containers but the ephemeral ones, the init containers first.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(containers(pod))
}

/// All containers, the ephemeral ones last.
pub fn every_container(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    all_containers(pod).map(Cow::Borrowed).chain(ephemeral::definitions(pod).map(Cow::Owned))
}

/// The container of that name, which may be an ephemeral one.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let plain = all_containers(pod).find(|c| c.name == name).map(Cow::Borrowed);
    plain.or_else(|| ephemeral::find(pod, name).map(Cow::Owned))
}

/// Whether this init container is a sidecar: one that goes on running.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the name is of an init container that runs to its end.
pub fn is_plain_init(pod: &Pod, name: &str) -> bool {
    init_containers(pod).iter().any(|c| c.name == name && !is_sidecar(c))
}

/// The container's own restart policy, else its pod's.
fn restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    let of_pod = || pod.spec.as_ref()?.restart_policy.as_deref();
    match container.restart_policy.as_deref().or_else(of_pod) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// Whether a container that ended with `exit_code` starts again: a rule of its own that says so, else its policy
/// (Kubernetes, "Pod Lifecycle", restart policy and rules of a container).
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    // An init container that has succeeded is done, and an ephemeral one runs once.
    if (exit_code == 0 && is_plain_init(pod, &container.name)) || ephemeral::is_ephemeral(pod, &container.name) {
        return false;
    }
    if is_sidecar(container) || has_restart_rule(container, exit_code) {
        return true;
    }
    match restart_policy(pod, container) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether a rule of the container says that it starts again after this exit code; all known rules say so.
fn has_restart_rule(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().filter(|rule| rule.action == "Restart").any(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let is_listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            _ => false,
        }
    })
}

/// How long the pod's containers may take to stop: the deletion's word, else the specification's, else 30 s.
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .filter(|_| pod.metadata.deletion_timestamp.is_some())
        .or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds)
        .unwrap_or(DEFAULT_GRACE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The pod's uid; empty if the server gave none.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A text of the specification; none if it is empty.
fn given(pod: &Pod, field: impl Fn(&PodSpec) -> Option<&String>) -> Option<&str> {
    pod.spec.as_ref().and_then(field).map(String::as_str).filter(|text| !text.is_empty())
}

/// The name of the pod's host; `hostnameOverride` goes before everything else that names it.
pub fn hostname(pod: &Pod) -> &str {
    if let Some(name) = given(pod, |spec| spec.hostname_override.as_ref()) {
        return name;
    }
    let given = given(pod, |spec| spec.hostname.as_ref());
    let whole = given.unwrap_or_else(|| name(pod));
    // As the kubelet cuts it: a label of DNS, without what may not end one.
    whole.get(..63).map_or(whole, |cut| cut.trim_end_matches(['-', '.']))
}

/// The domain of that name, if it has one.
pub fn domain(pod: &Pod) -> Option<String> {
    let subdomain = given(pod, |spec| spec.subdomain.as_ref())?;
    let has_own = given(pod, |spec| spec.hostname_override.as_ref()).is_some();
    (!has_own).then(|| format!("{subdomain}.{}.svc.cluster.local", namespace(pod)))
}

/// What the pod takes for its own host's name: with its domain if `setHostnameAsFQDN` says so.
///
/// # Errors
/// In the kubelet's words, if the name is longer than a host's may be.
pub fn own_name(pod: &Pod) -> Result<String, String> {
    let wants_domain = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    let Some(domain) = domain(pod).filter(|_| wants_domain) else { return Ok(hostname(pod).to_owned()) };
    let name = format!("{}.{domain}", hostname(pod));
    let length = name.len();
    if length > LONGEST_HOSTNAME {
        return Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {name} is too long ({LONGEST_HOSTNAME} characters is the max, {length} characters requested)"
        ));
    }
    Ok(name)
}

/// Whether the pod shares its node's address.
pub fn has_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

/// Whether the pod is asked to go.
pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The annotation that says where a pod came from, for one that the node runs by itself.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The annotation with the hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The annotation of a static pod's mirror in the API: the hash again.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// From this priority on, a pod is critical to the cluster.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// An annotation of the pod.
pub fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the pod is of a manifest on this node, and not of the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE) == Some("file")
}

/// The pod's priority; the two classes that every cluster has are known here too.
pub fn priority(pod: &Pod) -> i32 {
    let Some(spec) = pod.spec.as_ref() else { return 0 };
    let of_class = || match spec.priority_class_name.as_deref() {
        Some("system-node-critical") => CRITICAL_PRIORITY + 1_000,
        Some("system-cluster-critical") => CRITICAL_PRIORITY,
        _ => 0,
    };
    spec.priority.unwrap_or_else(of_class)
}

/// Whether the node keeps the pod whatever it lacks: it is static, or critical by its priority.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || annotation(pod, CONFIG_MIRROR).is_some() || priority(pod) >= CRITICAL_PRIORITY
}

/// What is to be done right after a container's start.
pub fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// The ports that a container names.
pub fn ports(container: &Container) -> &[ContainerPort] {
    container.ports.as_deref().unwrap_or_default()
}

/// The port that an HTTP function listens on: `SPIN_HTTP_LISTEN_ADDR`, else `WASMTIME_HTTP_PROXY_SOCKET_ADDR`, else the
/// port named `http` or `http-app`, else the first, else 8080.
pub fn listen_port(container: &Container, environment: &[(String, String)]) -> u16 {
    let of_variable = |name: &str| {
        let value = &environment.iter().rev().find(|(n, _)| n == name)?.1;
        value.rsplit(':').next()?.parse::<u16>().ok()
    };
    let ports = ports(container);
    let named = |name: &str| ports.iter().find(|p| p.name.as_deref() == Some(name)).or(None);
    of_variable("SPIN_HTTP_LISTEN_ADDR")
        .or_else(|| of_variable("WASMTIME_HTTP_PROXY_SOCKET_ADDR"))
        .or_else(|| {
            let port = named("http").or_else(|| named("http-app")).or_else(|| ports.first())?;
            u16::try_from(port.container_port).ok()
        })
        .unwrap_or(8080)
}

/// A probe's port as a number; a name is looked up among the container's ports.
pub fn port_number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(text) => {
            let named = ports(container).iter().find(|p| p.name.as_deref() == Some(text));
            named.map_or_else(|| text.parse().ok(), |p| u16::try_from(p.container_port).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ported(ports: &[(&str, i32)]) -> Container {
        let ports = ports.iter().map(|(name, port)| ContainerPort {
            name: (!name.is_empty()).then(|| (*name).to_owned()),
            container_port: *port,
            ..ContainerPort::default()
        });
        Container { ports: Some(ports.collect()), ..Container::default() }
    }

    #[test]
    fn a_function_listens_where_its_manifest_says() {
        assert_eq!(listen_port(&Container::default(), &[]), 8080);
        assert_eq!(listen_port(&ported(&[("metrics", 9100), ("http", 80)]), &[]), 80);
        assert_eq!(listen_port(&ported(&[("", 7000), ("other", 81)]), &[]), 7000);
        let environment = [("SPIN_HTTP_LISTEN_ADDR".to_owned(), "0.0.0.0:3000".to_owned())];
        assert_eq!(listen_port(&ported(&[("http", 80)]), &environment), 3000);
    }

    #[test]
    fn a_container_s_rules_go_before_its_policy_and_that_before_the_pod_s() {
        let restarts = |policy: &str, container: serde_json::Value| -> Vec<i32> {
            let pod: Pod = serde_json::from_value(
                serde_json::json!({"spec": {"restartPolicy": policy, "containers": [container]}}),
            )
            .expect("a pod");
            (0..4).filter(|code| restarts_after(&pod, &containers(&pod)[0], *code)).collect()
        };
        let with = |policy: Option<&str>, operator: &str, codes: &[i32]| {
            let rule = serde_json::json!({"action": "Restart", "exitCodes": {"operator": operator, "values": codes}});
            serde_json::json!({"name": "c", "restartPolicy": policy, "restartPolicyRules": [rule]})
        };
        assert_eq!(restarts("Never", serde_json::json!({"name": "c"})), [0; 0]);
        assert_eq!(restarts("Never", with(Some("Never"), "In", &[2, 3])), [2, 3]);
        assert_eq!(restarts("Always", with(Some("Never"), "In", &[2])), [2]);
        assert_eq!(restarts("Always", with(Some("Never"), "NotIn", &[0, 1])), [2, 3]);
        assert_eq!(restarts("Never", with(Some("OnFailure"), "In", &[0])), [0, 1, 2, 3]);
        assert_eq!(restarts("Never", with(Some("Always"), "In", &[9])), [0, 1, 2, 3]);
    }

    #[test]
    fn a_pod_knows_its_host_by_the_name_that_it_asks_for() {
        let named = |spec: serde_json::Value| {
            let mut spec = spec;
            spec["containers"] = serde_json::json!([]);
            let pod = serde_json::json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec});
            own_name(&serde_json::from_value(pod).expect("a pod"))
        };
        assert_eq!(named(serde_json::json!({"subdomain": "web"})).as_deref(), Ok("web-0"));
        let whole = serde_json::json!({"hostname": "db", "subdomain": "web", "setHostnameAsFQDN": true});
        assert_eq!(named(whole).as_deref(), Ok("db.web.shop.svc.cluster.local"));
        assert_eq!(named(serde_json::json!({"setHostnameAsFQDN": true})).as_deref(), Ok("web-0"), "it has no domain");
        let long = serde_json::json!({"hostname": "d".repeat(63), "subdomain": "web", "setHostnameAsFQDN": true});
        assert!(named(long).is_err_and(|message| message.contains("is too long (64 characters")));
        let own = serde_json::json!({"hostname": "db", "subdomain": "web", "hostnameOverride": "db.example.com"});
        assert_eq!(named(own).as_deref(), Ok("db.example.com"));
    }

    #[test]
    fn a_port_is_found_by_number_and_by_name() {
        let container = ported(&[("web", 80)]);
        assert_eq!(port_number(&container, &IntOrString::Int(81)), Some(81));
        assert_eq!(port_number(&container, &IntOrString::String("web".into())), Some(80));
        assert_eq!(port_number(&container, &IntOrString::String("nobody".into())), None);
    }
}

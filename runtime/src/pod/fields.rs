//! `fieldRef` and `resourceFieldRef`: what a pod may read of itself.

use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, ResourceFieldSelector};
use shoal_api::quantity::Quantity;

use super::spec;

/// What the pod cannot know of itself.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The pod's address.
    pub pod_address: String,
    /// The node's address.
    pub host_address: String,
    /// The node's CPU in thousandths of a core, for a limit that is not set.
    pub node_cpu_millis: i64,
    /// The node's memory in bytes, for a limit that is not set.
    pub node_memory_bytes: i64,
}

/// The value of a field of the pod.
///
/// # Errors
/// A sentence, if the path is none that a pod may read.
pub fn field(pod: &Pod, place: &Place, selector: &ObjectFieldSelector) -> Result<String, String> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(values.as_ref().and_then(|v| v.get(key)).cloned().unwrap_or_default());
    }
    let spec_of = |f: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<String>| {
        pod.spec.as_ref().and_then(f).unwrap_or_default()
    };
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec_of(|s| s.node_name.clone()),
        "spec.serviceAccountName" => spec_of(|s| s.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => place.host_address.clone(),
        "status.podIP" | "status.podIPs" => place.pod_address.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The value of a resource request or limit; `container` is the default for the selector's own.
///
/// # Errors
/// A sentence, if the resource or the container is unknown or the divisor no quantity.
pub fn resource(pod: &Pod, place: &Place, container: &str, selector: &ResourceFieldSelector) -> Result<String, String> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(container);
    let container = spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
    let (list, resource) =
        selector.resource.split_once('.').ok_or_else(|| format!("unsupported resource: {}", selector.resource))?;
    // What the container does not say of itself its pod may say of all.
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let mut holders = [container.resources.as_ref(), whole].into_iter().flatten();
    let quantity = match list {
        "limits" => holders.find_map(|resources| resources.limits.as_ref()?.get(resource)),
        "requests" => holders.find_map(|resources| resources.requests.as_ref()?.get(resource)),
        _ => return Err(format!("unsupported resource: {}", selector.resource)),
    };
    let quantity = quantity.map(|quantity| quantity.0.as_str());
    let millis = match (quantity, resource, list) {
        (Some(text), ..) => parse(text)?,
        (None, "cpu", "limits") => i128::from(place.node_cpu_millis),
        (None, "memory", "limits") => i128::from(place.node_memory_bytes) * 1_000,
        (None, ..) => 0,
    };
    let divisor = selector.divisor.as_ref().map(|q| parse(&q.0)).transpose()?.filter(|d| *d > 0).unwrap_or(1_000);
    // The result is rounded up, as the Kubernetes API reference says of `divisor`.
    Ok(((millis + divisor - 1) / divisor).to_string())
}

/// A quantity in thousandths.
fn parse(text: &str) -> Result<i128, String> {
    let quantity: Quantity = text.parse().map_err(|_| format!("{text:?} is no quantity"))?;
    Ok(i128::from(quantity.millis()))
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    Some((map, rest.strip_suffix(']')?.trim_matches(['\'', '"'])))
}

/// A map as the downward API writes it: one `key="value"` a line.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web", "tier": "front"}},
            "spec": {"resources": {"limits": {"memory": "256Mi", "cpu": "2"}}, "containers": [{"name": "c", "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .expect("pod")
    }

    fn place() -> Place {
        Place {
            pod_address: "10.64.0.2".into(),
            host_address: "127.0.1.1".into(),
            node_cpu_millis: 2_000,
            node_memory_bytes: 1 << 30,
        }
    }

    #[test]
    fn a_pod_reads_its_own_fields() {
        let of = |path: &str| {
            field(&pod(), &place(), &ObjectFieldSelector { field_path: path.into(), ..Default::default() })
        };
        assert_eq!(of("metadata.labels['app']"), Ok("web".into()));
        assert_eq!(of("metadata.labels"), Ok("app=\"web\"\ntier=\"front\"".into()));
        assert_eq!(of("metadata.annotations['none']"), Ok(String::new()));
        assert_eq!(of("status.podIP"), Ok("10.64.0.2".into()));
        assert!(of("spec.containers").is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let of = |resource: &str, divisor: Option<&str>| {
            let divisor = divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into()));
            resource_of(resource, divisor)
        };
        fn resource_of(
            name: &str,
            divisor: Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        ) -> Result<String, String> {
            resource(
                &pod(),
                &place(),
                "c",
                &ResourceFieldSelector { resource: name.into(), divisor, container_name: None },
            )
        }
        assert_eq!(of("limits.cpu", None), Ok("1".into()));
        assert_eq!(of("limits.cpu", Some("1m")), Ok("250".into()));
        assert_eq!(of("requests.memory", Some("1Mi")), Ok("64".into()));
        assert_eq!(of("limits.memory", Some("1Mi")), Ok("256".into()), "the pod's as a whole");
        assert_eq!(of("limits.ephemeral-storage", None), Ok("0".into()));
        assert!(of("sizes.cpu", None).is_err());
    }
}

//! What a pod asks for and may use of a resource, as Kubernetes adds it up.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use shoal_api::quantity::Quantity;

use super::spec;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// What it is promised.
    Requests,
    /// What it may use.
    Limits,
}

/// Of one container; what cannot be read counts as not said.
pub fn of_container(container: &Container, bound: Bound, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let read = |list: &Option<BTreeMap<String, Text>>| list.as_ref()?.get(resource)?.0.parse().ok();
    match bound {
        Bound::Limits => read(&resources.limits),
        // Kubernetes: a limit without a request is the request, too.
        Bound::Requests => read(&resources.requests).or_else(|| read(&resources.limits)),
    }
}

/// The limit of the whole pod: the sum of its containers', at least that of the largest init container; `None` if nobody has one.
pub fn limit(pod: &Pod, resource: &str) -> Option<Quantity> {
    total(pod, Bound::Limits, resource)
}

/// The request of the whole pod.
pub fn request(pod: &Pod, resource: &str) -> Quantity {
    total(pod, Bound::Requests, resource).unwrap_or(Quantity::ZERO)
}

fn total(pod: &Pod, bound: Bound, resource: &str) -> Option<Quantity> {
    let together =
        spec::containers(pod).iter().chain(spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c)));
    let together = together.filter_map(|c| of_container(c, bound, resource)).reduce(Quantity::plus);
    let alone = spec::init_containers(pod).iter().filter(|c| !spec::is_sidecar(c));
    alone.filter_map(|c| of_container(c, bound, resource)).chain(together).reduce(Ord::max)
}

/// Whether nothing is promised to any container (the quality of service class BestEffort).
pub fn is_best_effort(pod: &Pod) -> bool {
    spec::all_containers(pod).all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            of_container(container, Bound::Requests, resource).is_none_or(|quantity| quantity.is_zero())
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_the_sum_of_its_containers_or_the_largest_that_runs_before_them() {
        let container = |memory: &str| json!({"name": "c", "resources": {"requests": {"memory": memory}}});
        let pod = |init: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"initContainers": [container(init)], "containers": [container("1Mi"), container("2Mi")]}}))
                .expect("a pod")
        };
        assert_eq!(request(&pod("1Mi"), "memory").to_string(), "3Mi");
        assert_eq!(request(&pod("5Mi"), "memory").to_string(), "5Mi");
        assert_eq!(limit(&pod("5Mi"), "memory"), None);
        assert!(!is_best_effort(&pod("1Mi")));
        assert!(is_best_effort(
            &serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).expect("a pod")
        ));
    }
}

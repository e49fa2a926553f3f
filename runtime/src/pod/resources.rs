//! What a pod asks for and may use of a resource, as Kubernetes adds it up.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
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
    read(container.resources.as_ref()?, bound, resource)
}

/// Of the pod as a whole, where it says so itself (`spec.resources`).
pub fn of_whole(pod: &Pod, bound: Bound, resource: &str) -> Option<Quantity> {
    read(pod.spec.as_ref()?.resources.as_ref()?, bound, resource)
}

fn read(resources: &ResourceRequirements, bound: Bound, resource: &str) -> Option<Quantity> {
    let read = |list: &Option<BTreeMap<String, Text>>| list.as_ref()?.get(resource)?.0.parse().ok();
    match bound {
        Bound::Limits => read(&resources.limits),
        // Kubernetes: a limit without a request is the request, too.
        Bound::Requests => read(&resources.requests).or_else(|| read(&resources.limits)),
    }
}

/// The processor time that a container is promised: what it requests itself, else its part of what the pod requests as a whole and
/// its other containers do not.
pub fn processor_request(pod: &Pod, container: &Container) -> Quantity {
    let own = |container: &Container| of_container(container, Bound::Requests, "cpu");
    if let Some(own) = own(container) {
        return own;
    }
    let Some(whole) = of_whole(pod, Bound::Requests, "cpu") else { return Quantity::ZERO };
    let promised = spec::containers(pod).iter().filter_map(own).fold(Quantity::ZERO, Quantity::plus);
    let others = spec::containers(pod).iter().filter(|container| own(container).is_none()).count();
    let left = whole.millis().saturating_sub(promised.millis()).max(0);
    Quantity::from_millis(left / i64::try_from(others.max(1)).unwrap_or(i64::MAX))
}

/// The limit of the whole pod: its own, else the sum of its containers', at least that of the largest init container; `None` if
/// nobody has one.
pub fn limit(pod: &Pod, resource: &str) -> Option<Quantity> {
    total(pod, Bound::Limits, resource)
}

/// The request of the whole pod.
pub fn request(pod: &Pod, resource: &str) -> Quantity {
    total(pod, Bound::Requests, resource).unwrap_or(Quantity::ZERO)
}

fn total(pod: &Pod, bound: Bound, resource: &str) -> Option<Quantity> {
    if let Some(whole) = of_whole(pod, bound, resource) {
        return Some(whole);
    }
    let together =
        spec::containers(pod).iter().chain(spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c)));
    let together = together.filter_map(|c| of_container(c, bound, resource)).reduce(Quantity::plus);
    let alone = spec::init_containers(pod).iter().filter(|c| !spec::is_sidecar(c));
    alone.filter_map(|c| of_container(c, bound, resource)).chain(together).reduce(Ord::max)
}

/// Whether nothing is promised to the pod or to any container (the quality of service class BestEffort).
pub fn is_best_effort(pod: &Pod) -> bool {
    let is_nothing = |quantity: Option<Quantity>| quantity.is_none_or(|quantity| quantity.is_zero());
    ["cpu", "memory"].iter().all(|resource| {
        is_nothing(of_whole(pod, Bound::Requests, resource))
            && spec::all_containers(pod).all(|c| is_nothing(of_container(c, Bound::Requests, resource)))
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

    #[test]
    fn what_a_pod_says_as_a_whole_goes_before_what_its_containers_say() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"limits": {"memory": "8Mi"}, "requests": {"cpu": "1"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "400m", "memory": "1Mi"}}}, {"name": "b"}, {"name": "c"}]}}))
        .expect("a pod");
        assert_eq!(limit(&pod, "memory").map(|quantity| quantity.to_string()).as_deref(), Some("8Mi"));
        assert_eq!(request(&pod, "memory").to_string(), "8Mi", "a limit without a request");
        assert_eq!(request(&pod, "cpu").to_string(), "1");
        let millis: Vec<i64> =
            spec::containers(&pod).iter().map(|container| processor_request(&pod, container).millis()).collect();
        assert_eq!(millis, [400, 300, 300]);
        let bare = json!({"spec": {"resources": {"requests": {"cpu": "1m"}}, "containers": [{"name": "c"}]}});
        assert!(!is_best_effort(&serde_json::from_value(bare).expect("a pod")));
    }
}

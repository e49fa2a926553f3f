//! Where pods go, as stories and as properties.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::json;
use shoal_scheduler::{Snapshot, place};

fn node(name: &str, cpu: &str, extra: serde_json::Value) -> Arc<Node> {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"zone": name}},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    value["spec"] = extra;
    Arc::new(serde_json::from_value(value).expect("a node"))
}

fn pod(name: &str, cpu: &str) -> Pod {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true}]);
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "ownerReferences": owner},
        "spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]},
    }))
    .expect("a pod")
}

fn placed(pod: &Pod, cluster: &Snapshot) -> String {
    place(pod, cluster).map_or_else(|refusal| refusal.to_string(), |name| name.0)
}

#[test]
fn pods_of_one_owner_spread_over_the_nodes() {
    let mut cluster = Snapshot::new([node("a", "4", json!({})), node("b", "2", json!({}))], []);
    let mut names = Vec::new();
    for index in 0..4 {
        let pod = pod(&format!("p{index}"), "100m");
        let name = placed(&pod, &cluster);
        cluster.add(&Arc::new(pod), &name);
        names.push(name);
    }
    assert_eq!(names, ["a", "b", "a", "b"]);
}

#[test]
fn a_refusal_counts_the_nodes_by_reason() {
    let tainted = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
    let cluster = Snapshot::new([node("a", "100m", json!({})), node("b", "4", tainted)], []);
    let expected = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}.";
    assert_eq!(placed(&pod("p", "1"), &cluster), expected);
    assert_eq!(placed(&pod("p", "1"), &Snapshot::default()), "no nodes available to schedule pods");
}

#[test]
fn what_a_pod_asks_for_as_a_whole_goes_before_its_containers() {
    let cluster = Snapshot::new([node("a", "1", json!({}))], []);
    for (whole, expected) in [("900m", "a"), ("2", "0/1 nodes are available: 1 Insufficient cpu.")] {
        let mut pod = pod("p", "100m");
        let resources = json!({"requests": {"cpu": whole}});
        pod.spec.as_mut().expect("a spec").resources = serde_json::from_value(resources).expect("resources");
        assert_eq!(placed(&pod, &cluster), expected);
    }
}

#[test]
fn a_toleration_lets_a_pod_onto_a_tainted_node() {
    let tainted = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
    let cluster = Snapshot::new([node("b", "4", tainted)], []);
    let mut pod = pod("p", "1");
    let toleration = json!([{"key": "gpu", "operator": "Exists"}]);
    pod.spec.as_mut().expect("it has one").tolerations = serde_json::from_value(toleration).expect("tolerations");
    assert_eq!(placed(&pod, &cluster), "b");
}

#[test]
fn a_node_selector_and_a_cordon_are_obeyed() {
    let cluster = Snapshot::new([node("a", "4", json!({})), node("b", "4", json!({"unschedulable": true}))], []);
    let mut pod = pod("p", "1");
    pod.spec.as_mut().expect("it has one").node_selector = Some([("zone".to_owned(), "b".to_owned())].into());
    let expected =
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable.";
    assert_eq!(placed(&pod, &cluster), expected);
}

#[test]
fn a_host_port_is_had_once_on_a_node() {
    let mut cluster = Snapshot::new([node("a", "4", json!({})), node("b", "4", json!({}))], []);
    let mut ported = |name: &str, ip: &str, protocol: &str| {
        let mut pod = pod(name, "100m");
        let ports = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}]);
        pod.spec.as_mut().expect("it has one").containers[0].ports = serde_json::from_value(ports).expect("ports");
        let name = placed(&pod, &cluster);
        cluster.add(&Arc::new(pod), &name);
        name
    };
    let full = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(ported("p1", "", "TCP"), "a");
    assert_eq!(ported("p2", "192.0.2.1", "TCP"), "b");
    assert_eq!(ported("p3", "0.0.0.0", "TCP"), full);
    assert_eq!(ported("p4", "192.0.2.1", "TCP"), full);
    assert_eq!(ported("p5", "192.0.2.2", "TCP"), "b");
    assert_eq!(ported("p6", "", "UDP"), "a");
}

proptest! {
    /// A pod that fits somewhere is placed, and never where it does not fit.
    #[test]
    fn what_fits_is_placed_and_nothing_is_overfilled(
        nodes in prop::collection::vec(1_u32..2000, 0..5),
        pods in prop::collection::vec(1_u32..1000, 0..20),
    ) {
        let mut left = nodes.clone();
        let built = nodes.iter().enumerate().map(|(index, cpu)| node(&format!("n{index}"), &format!("{cpu}m"), json!({})));
        let mut cluster = Snapshot::new(built, []);
        let mut count = vec![0; nodes.len()];
        for (index, cpu) in pods.iter().enumerate() {
            let pod = pod(&format!("p{index}"), &format!("{cpu}m"));
            let fits = left.iter().zip(&count).any(|(left, count)| left >= cpu && *count < 10);
            match place(&pod, &cluster) {
                Ok(name) => {
                    let index: usize = name.0[1..].parse().expect("our name");
                    prop_assert!(left[index] >= *cpu);
                    left[index] -= cpu;
                    count[index] += 1;
                    cluster.add(&Arc::new(pod), &name.0);
                }
                Err(_) => prop_assert!(!fits),
            }
        }
    }
}

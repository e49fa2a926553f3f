//! The controllers that need no rollout: ownership, namespaces, nodes, endpoints.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use shoal_controllers::node::{self, Heard, Patience};
use shoal_controllers::{Action, Thing, endpoints, garbage, namespace};

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("it is of its kind")
}

fn pod(name: &str, extra: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1", "labels": {"app": "web"}},
        "spec": {"nodeName": "a", "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": "10.64.0.7", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    for (name, value) in extra.as_object().expect("an object") {
        for (field, value) in value.as_object().expect("an object") {
            pod[name][field] = value.clone();
        }
    }
    read(pod)
}

fn words(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Create { target, .. } => Some(format!("create {} {}", target.kind, target.name)),
        Action::Replace { target, subresource, .. } => {
            Some(format!("replace {} {}/{subresource}", target.kind, target.name))
        }
        Action::Patch { target, .. } => Some(format!("patch {} {}", target.kind, target.name)),
        Action::Delete { target, .. } => Some(format!("delete {} {}", target.kind, target.name)),
        Action::DeleteOrphan { target, .. } => Some(format!("delete orphan {} {}", target.kind, target.name)),
        Action::DeleteAll { target } => Some(format!("delete all {}", target.kind)),
        Action::RemoveDirectory { volume, .. } => Some(format!("remove the directory of {volume}")),
        Action::Event { .. } | Action::LookAgain { .. } => None,
    };
    actions.iter().filter_map(word).collect()
}

fn owned(name: &str, extra: &Value) -> Thing {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "blockOwnerDeletion": true}]);
    let mut metadata = json!({"ownerReferences": owner});
    for (field, value) in extra.as_object().expect("an object") {
        metadata[field] = value.clone();
    }
    Thing::of(&pod(name, &json!({"metadata": metadata})))
}

fn owner(finalizer: Option<&str>) -> Thing {
    let set = json!({"metadata": {
        "name": "web", "namespace": "default", "uid": "web", "resourceVersion": "1",
        "deletionTimestamp": finalizer.map(|_| "2026-01-01T00:00:00Z"), "finalizers": finalizer.map(|finalizer| vec![finalizer]),
    }});
    Thing::of(&read::<k8s_openapi::api::apps::v1::ReplicaSet>(set))
}

fn kinds() -> Vec<(String, String, String)> {
    [("apps/v1", "ReplicaSet", "replicasets"), ("v1", "Pod", "pods")]
        .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
        .to_vec()
}

#[test]
fn what_has_lost_its_owner_goes() {
    let pod = owned("p", &json!({}));
    assert_eq!(words(&garbage::reconcile(std::slice::from_ref(&pod), &kinds())), ["delete orphan Pod p"]);
    assert_eq!(garbage::reconcile(std::slice::from_ref(&pod), &[]), []);
    assert_eq!(garbage::reconcile(&[pod, owner(None)], &kinds()), []);
}

#[test]
fn in_the_foreground_the_owner_waits_for_what_it_owns() {
    let set = owner(Some("foregroundDeletion"));
    assert_eq!(words(&garbage::reconcile(&[set.clone(), owned("p", &json!({}))], &kinds())), ["delete Pod p"]);
    let going = owned("p", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
    assert_eq!(words(&garbage::reconcile(&[set.clone(), going], &kinds())), Vec::<String>::new());
    assert_eq!(words(&garbage::reconcile(&[set], &kinds())), ["patch ReplicaSet web"]);
}

#[test]
fn orphans_lose_their_owner_before_it_goes() {
    let set = owner(Some("orphan"));
    assert_eq!(words(&garbage::reconcile(&[set.clone(), owned("p", &json!({}))], &kinds())), ["patch Pod p"]);
    assert_eq!(words(&garbage::reconcile(&[set], &kinds())), ["patch ReplicaSet web"]);
}

#[test]
fn a_namespace_is_emptied_pods_first() {
    let going: Namespace = read(
        json!({"metadata": {"name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}}),
    );
    let config: k8s_openapi::api::core::v1::ConfigMap =
        read(json!({"metadata": {"name": "c", "namespace": "default", "uid": "c"}}));
    let (pod, set, config) = (Thing::of(&pod("p", &json!({}))), owner(None), Thing::of(&config));
    let first = namespace::reconcile(&going, &[&pod, &set, &config]);
    assert_eq!(words(&first), ["delete ReplicaSet web", "delete Pod p"]);
    assert_eq!(words(&namespace::reconcile(&going, &[&config])), ["delete ConfigMap c"]);
    assert_eq!(words(&namespace::reconcile(&going, &[])), ["delete all Event", "replace Namespace default/finalize"]);
}

fn node(ready: &str, extra: &Value) -> Node {
    read(json!({
        "metadata": {"name": "a", "uid": "a", "resourceVersion": "1"},
        "spec": extra,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
}

/// A node that may be silent while others are heard.
fn alone(last: Timestamp) -> Heard {
    Heard { last, nobody_at: None }
}

#[test]
fn pods_stay_where_they_are_while_no_node_at_all_is_to_be_heard() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let silent = node("Unknown", &json!({}));
    let deleted = pod("d", &json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:01Z"}}));
    let pods = [pod("p", &json!({})), deleted];
    let look = |node: &Node, now| {
        let heard = Heard { last: at(990), nobody_at: Some(at(1_000)) };
        node::reconcile(node, heard, &[&pods[0], &pods[1]], Patience::LAN, now)
    };
    // They are heard again from 1000 on; this one may still come.
    assert_eq!(words(&look(&silent, at(1_003))), ["replace Node a/"]);
    assert!(look(&silent, at(1_003)).contains(&Action::LookAgain { at: at(1_004) }));
    // One that is heard, but has not said yet how it is, keeps its pods as well.
    let heard = Heard { last: at(1_002), nobody_at: Some(at(1_000)) };
    let soon = node::reconcile(&silent, heard, &[&pods[0]], Patience::LAN, at(1_002));
    assert_eq!(words(&soon), ["replace Node a/"]);
    assert!(soon.contains(&Action::LookAgain { at: at(1_003) }));
    let strict = json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]});
    let Some(Action::Replace { object, .. }) =
        look(&node("Unknown", &strict), at(1_003)).into_iter().find(|action| matches!(action, Action::Replace { .. }))
    else {
        panic!("its taints change")
    };
    assert_eq!(object["spec"]["taints"].as_array().map(Vec::len), Some(1));
    assert_eq!(object["spec"]["taints"][0]["effect"], "NoSchedule");
    assert_eq!(words(&look(&silent, at(1_004))), ["replace Node a/", "delete Pod p", "delete Pod d"]);
}

#[test]
fn nobody_is_heard_when_none_that_is_ready_was_heard_of_lately() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let (ready, unknown) = (node("True", &json!({})), node("Unknown", &json!({})));
    let is_nobody = |nodes: &[(&Node, i64)]| {
        let nodes = nodes.iter().map(|(node, last)| (*node, at(*last)));
        node::is_nobody_heard(nodes, Patience::LAN, at(1_000))
    };
    assert!(!is_nobody(&[]), "without nodes nobody is missed");
    assert!(!is_nobody(&[(&ready, 999), (&unknown, 990)]));
    assert!(is_nobody(&[(&ready, 997), (&unknown, 990)]));
    assert!(is_nobody(&[(&unknown, 1_000)]));
}

#[test]
fn a_silent_node_is_unknown_then_tainted_and_its_pods_leave() {
    let now = Timestamp::from_second(1_000).expect("a time");
    let heard = now - SignedDuration::from_secs(5);
    let pod = pod("p", &json!({}));
    let look = |node: &Node, last| node::reconcile(node, alone(last), &[&pod], Patience::LAN, now);
    let spec = json!({});
    assert_eq!(words(&look(&node("True", &spec), heard)), ["replace Node a/status"]);
    assert_eq!(words(&look(&node("Unknown", &spec), heard)), ["replace Node a/", "delete Pod p"]);
    let again = look(&node("True", &spec), now);
    assert_eq!(again, [Action::LookAgain { at: now + SignedDuration::from_secs(4) }]);
}

#[test]
fn a_node_s_pressure_is_a_taint_for_as_long_as_it_lasts() {
    let now = Timestamp::from_second(1_000).expect("a time");
    let look = |pressure: &str, taints: &Value| {
        let conditions = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": pressure}]);
        let node: Node = read(json!({
            "metadata": {"name": "a", "uid": "a", "resourceVersion": "1"},
            "spec": {"taints": taints},
            "status": {"conditions": conditions},
        }));
        let actions = node::reconcile(&node, alone(now), &[], Patience::LAN, now);
        actions.into_iter().find_map(|action| match action {
            Action::Replace { object, .. } => Some(object["spec"]["taints"].clone()),
            _ => None,
        })
    };
    let own = json!({"key": "mine", "effect": "NoSchedule"});
    let pressure = json!({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"});
    assert_eq!(look("True", &json!([own])), Some(json!([own, pressure])));
    assert_eq!(look("True", &json!([own, pressure])), None);
    assert_eq!(look("False", &json!([own, pressure])), Some(json!([own])));
}

#[test]
fn a_pod_that_says_how_long_it_stays_stays_so_long() {
    let now = Timestamp::from_second(1_000).expect("a time");
    let tolerations = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 60}]);
    let pod = pod("p", &json!({"spec": {"tolerations": tolerations}}));
    let taint =
        json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "1970-01-01T00:16:00Z"});
    let other = json!({"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"});
    let gone = node("Unknown", &json!({"taints": [other, taint]}));
    let look = |now| node::reconcile(&gone, alone(Timestamp::MIN), &[&pod], Patience::LAN, now);
    assert_eq!(look(now), [Action::LookAgain { at: now + SignedDuration::from_secs(20) }]);
    assert_eq!(words(&look(now + SignedDuration::from_secs(20))), ["delete Pod p"]);
}

#[test]
fn endpoints_follow_ready_pods_and_named_ports() {
    let service: Service = read(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]},
    }));
    let ready = pod("a", &json!({}));
    let unready = pod("b", &json!({"status": {"conditions": []}}));
    let going = pod("c", &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let pods = [&going, &unready, &ready];
    let made = endpoints::reconcile(&service, &pods, &[], None);
    let [Action::Create { object: slice, .. }, Action::Create { object: old, .. }] = &made[..] else {
        panic!("{made:#?}")
    };
    let (slice, old): (EndpointSlice, Endpoints) = (read(slice.clone()), read(old.clone()));
    let states: Vec<_> = slice.endpoints.iter().filter_map(|endpoint| endpoint.conditions.clone()).collect();
    let states: Vec<_> = states.iter().map(|state| (state.ready, state.serving, state.terminating)).collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(states, [(yes, yes, no), (no, no, no), (no, yes, yes)]);
    assert_eq!(slice.ports.as_ref().and_then(|ports| ports[0].port), Some(8080));
    let subset = &old.subsets.as_ref().expect("some")[0];
    let count = |addresses: &Option<Vec<_>>| addresses.as_ref().map_or(0, Vec::len);
    assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (1, 1));
    assert_eq!(endpoints::reconcile(&service, &pods, &[&slice], Some(&old)), []);
}

#[test]
fn a_pod_has_a_name_within_the_service_that_its_subdomain_names() {
    let service = |name: &str| -> Service {
        read(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]},
        }))
    };
    let named = pod("a", &json!({"spec": {"hostname": "db-0", "subdomain": "db"}}));
    for (name, wanted) in [("db", Some("db-0")), ("web", None)] {
        let made = endpoints::reconcile(&service(name), &[&named], &[], None);
        let [Action::Create { object: slice, .. }, Action::Create { object: old, .. }] = &made[..] else {
            panic!("{made:#?}")
        };
        let (slice, old): (EndpointSlice, Endpoints) = (read(slice.clone()), read(old.clone()));
        assert_eq!(slice.endpoints[0].hostname.as_deref(), wanted);
        let addresses = old.subsets.as_ref().and_then(|subsets| subsets[0].addresses.as_ref()).expect("an address");
        assert_eq!(addresses[0].hostname.as_deref(), wanted);
    }
}

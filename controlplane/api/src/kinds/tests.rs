//! Properties that every row has, and the cases by which users know a kind.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::resource::{Resource, find, resources};
use crate::table::{IncludeObject, table};

fn row(plural: &str) -> &'static Resource {
    resources().iter().find(|row| row.plural == plural).unwrap()
}

fn born(plural: &str, mut object: Value) -> Value {
    let strategy = row(plural).strategy;
    strategy.prepare_create(&mut object);
    strategy.default(&mut object);
    object
}

fn wrong(plural: &str, object: &Value) -> Vec<String> {
    row(plural).strategy.validate_create(object).iter().map(ToString::to_string).collect()
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "hello:1", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1000m", "memory": "0.5Gi"}}}]})
}

fn workload(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web", "namespace": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}}})
}

fn minimal(plural: &str) -> Value {
    let named = |rest: Value| {
        let mut object = json!({"metadata": {"name": "web", "namespace": "d"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    match plural {
        "pods" => named(json!({"spec": pod_spec()})),
        "deployments" => workload("Deployment"),
        "replicasets" => workload("ReplicaSet"),
        "services" => named(json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})),
        "secrets" => named(json!({"stringData": {"k": "v"}})),
        "endpointslices" => {
            named(json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}))
        }
        "events" => named(json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"}})),
        "rolebindings" | "clusterrolebindings" => named(
            json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]}),
        ),
        _ => named(json!({})),
    }
}

#[test]
fn minimal_manifests_are_valid_once_completed_and_stay_as_they_are() {
    for row in resources().iter().filter(|row| !row.is_virtual()) {
        let object = born(row.plural, minimal(row.plural));
        assert_eq!(wrong(row.plural, &object), Vec::<String>::new(), "{}", row.plural);
        let mut again = object.clone();
        row.strategy.default(&mut again);
        assert_eq!(again, object, "{}", row.plural);
        row.strategy.prepare_update(&mut again, &object);
        row.strategy.default(&mut again);
        assert_eq!(again, object, "{}", row.plural);
        assert!(row.strategy.validate_update(&again, &object).is_empty(), "{}", row.plural);
    }
}

#[test]
fn rows_are_told_apart_by_name_and_have_what_clients_need() {
    for row in resources() {
        // Names rather than addresses: the compiler may lay a constant down in more than one place.
        let found = find(row.group, row.version, row.plural).unwrap();
        let same = resources()
            .iter()
            .filter(|other| (other.group, other.version, other.plural) == (row.group, row.version, row.plural));
        assert_eq!((found.kind, found.schema, same.count()), (row.kind, row.schema, 1), "{}", row.plural);
        assert!(!row.singular.is_empty() && !row.schema.is_empty());
        assert!(row.is_virtual() || !row.verbs.is_empty());
    }
}

#[test]
fn a_pod_is_completed_as_in_kubernetes() {
    let pod = born("pods", minimal("pods"));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "1", "memory": "512Mi"}})
    );
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod["spec"]["enableServiceLinks"], true);
}

#[test]
fn a_deployment_is_completed_as_in_kubernetes() {
    let deployment = born("deployments", minimal("deployments"));
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert!(deployment["spec"]["template"]["spec"]["enableServiceLinks"].is_null());
    assert!(deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].is_null());
}

#[test]
fn a_selector_matches_its_template_and_never_changes() {
    let old = born("deployments", minimal("deployments"));
    let mut new = old.clone();
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"});
    assert_eq!(
        wrong("deployments", &new),
        ["spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`"]
    );
    new["spec"]["selector"] = json!({"matchLabels": {"app": "db"}});
    let texts: Vec<String> =
        row("deployments").strategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]);
}

#[test]
fn only_the_image_of_a_pod_changes() {
    let old = born("pods", minimal("pods"));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "hello:2".into();
    assert!(row("pods").strategy.validate_update(&new, &old).is_empty());
    new["spec"]["containers"][0]["args"] = json!(["x"]);
    let problems = row("pods").strategy.validate_update(&new, &old);
    assert!(
        problems[0]
            .to_string()
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,")
    );
}

#[test]
fn a_bad_pod_is_explained() {
    let pod = born(
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "C", "ports": [{"containerPort": 70_000}], "volumeMounts": [{"name": "v", "mountPath": "/x"}], "resources": {"limits": {"cpu": "x"}}}]}}),
    );
    let texts = wrong("pods", &pod);
    for part in [
        "spec.containers[0].name: Invalid value: \"C\"",
        "spec.containers[0].image: Required value",
        "must be between 1 and 65535, inclusive",
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        "quantities must match the regular expression",
    ] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part} in {texts:?}");
    }
}

#[test]
fn secrets_keep_text_as_bytes_and_may_be_immutable() {
    let mut secret = born("secrets", minimal("secrets"));
    assert_eq!(
        (&secret["data"]["k"], &secret["type"], &secret["stringData"]),
        (&json!("dg=="), &json!("Opaque"), &Value::Null)
    );
    secret["immutable"] = true.into();
    let mut new = secret.clone();
    new["data"]["k"] = "eA==".into();
    let texts: Vec<String> =
        row("secrets").strategy.validate_update(&new, &secret).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["data: Forbidden: field is immutable when `immutable` is set"]);
}

#[test]
fn a_role_binding_is_bound_once() {
    let old = born("rolebindings", minimal("rolebindings"));
    let mut new = old.clone();
    new["roleRef"]["name"] = "edit".into();
    let problems = row("rolebindings").strategy.validate_update(&new, &old);
    assert!(problems[0].to_string().ends_with("cannot change roleRef"));
}

#[test]
fn pods_show_what_they_are_doing() {
    let cell = |pod: &Value| {
        table(row("pods"), &[pod], IncludeObject::None, Timestamp::UNIX_EPOCH)["rows"][0]["cells"].clone()
    };
    let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"containers": [{}]},
        "status": {"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    assert_eq!(cell(&pod), json!(["p", "1/1", "Running", "0", "0s", "<none>", "<none>", "<none>", "<none>"]));
    pod["status"]["containerStatuses"][0] = json!({"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "1969-12-31T23:59:50Z"}}});
    assert_eq!((&cell(&pod)[2], &cell(&pod)[3]), (&json!("CrashLoopBackOff"), &json!("2 (10s ago)")));
    pod["status"]["initContainerStatuses"] = json!([{"state": {"running": {}}}]);
    pod["spec"]["initContainers"] = json!([{}]);
    assert_eq!(cell(&pod)[2], "Init:0/1");
    pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    assert_eq!(cell(&pod)[2], "Terminating");
}

fn any_value() -> impl Strategy<Value = Value> {
    let keys = "(metadata|spec|status|containers|containerStatuses|conditions|ports|name|labels|type|state|template|data|rules|subsets|endpoints|roleRef|subjects|volumes|resources|limits)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/:. -]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics_whatever_the_object(metadata in any_value(), spec in any_value(), status in any_value(), data in any_value()) {
        for row in resources() {
            let mut object = json!({"metadata": metadata, "spec": spec, "status": status, "data": data, "template": spec, "ports": data, "subsets": data, "rules": data});
            let _ = table(row, &[&object], IncludeObject::Metadata, Timestamp::UNIX_EPOCH);
            row.strategy.default(&mut object);
            let once = object.clone();
            row.strategy.default(&mut object);
            prop_assert_eq!(&once, &object);
            let _ = row.strategy.validate_create(&object);
            let _ = row.strategy.validate_update(&once, &object);
            row.strategy.prepare_update(&mut object, &once);
            row.strategy.prepare_status_update(&mut object, &once);
            row.strategy.prepare_create(&mut object);
        }
    }
}

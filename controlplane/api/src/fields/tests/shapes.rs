//! Lists by key, sets, maps, atomic values and nulls.

use super::*;
use crate::fields::collect::fields_of;

#[test]
fn the_fields_of_a_deployment_are_its_leaves_entries_and_items() {
    let mut object = with_containers(json!([
        {"name": "main", "image": "a", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}],
         "args": ["x", "y"]},
    ]));
    object["metadata"] =
        json!({"name": "web", "labels": {"app": "web"}, "finalizers": ["a.example/f"], "annotations": {}});
    object["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    assert_eq!(
        fields_of(&object, deployments()).encode(),
        json!({
            "f:apiVersion": {}, "f:kind": {},
            "f:metadata": {"f:name": {}, "f:labels": {"f:app": {}}, "f:annotations": {},
                           "f:finalizers": {"v:\"a.example/f\"": {}}},
            "f:spec": {"f:selector": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
            }}}}},
        })
    );
}

#[test]
fn containers_of_two_managers_live_in_one_list() {
    let first = applied(&absent(), &with_containers(json!([{"name": "main", "image": "a"}])), deployments(), by("one"));
    let sidecar = with_containers(json!([{"name": "proxy", "image": "p"}]));
    let both = applied(&first, &sidecar, deployments(), by("two"));
    let names = |object: &Value| -> Vec<String> {
        let list = object.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned();
        list.unwrap_or_default().iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&both), ["main", "proxy"]);
    let without = applied(&both, &with_containers(json!([])), deployments(), by("two"));
    assert_eq!(names(&without), ["main"]);
    assert_eq!(managers(&without).len(), 1);
}

#[test]
fn a_port_without_protocol_is_the_one_of_tcp() {
    let stored = with_containers(json!([{"name": "main", "ports": [
        {"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]));
    let live = applied(&absent(), &stored, deployments(), by("one"));
    let named = with_containers(json!([{"name": "main", "ports": [{"containerPort": 53, "name": "dns"}]}]));
    let live = applied(&live, &named, deployments(), by("two"));
    let ports = live.pointer("/spec/template/spec/containers/0/ports").unwrap();
    assert_eq!(
        ports,
        &json!([{"containerPort": 53, "protocol": "TCP", "name": "dns"}, {"containerPort": 53, "protocol": "UDP"}])
    );
}

#[test]
fn an_environment_keeps_what_another_manager_set() {
    let one =
        with_containers(json!([{"name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]));
    let live = applied(&absent(), &one, deployments(), by("one"));
    let two = with_containers(json!([{"name": "main", "env": [{"name": "C", "value": "3"}]}]));
    let live = applied(&live, &two, deployments(), by("two"));
    let fewer = with_containers(json!([{"name": "main", "env": [{"name": "B", "value": "9"}]}]));
    let live = applied(&live, &fewer, deployments(), by("one"));
    assert_eq!(
        live.pointer("/spec/template/spec/containers/0/env").unwrap(),
        &json!([{"name": "B", "value": "9"}, {"name": "C", "value": "3"}])
    );
}

#[test]
fn a_struct_that_is_no_longer_named_goes_with_its_defaults() {
    let probe = json!({"httpGet": {"port": 80}});
    let mut live = applied(
        &absent(),
        &with_containers(json!([{"name": "main", "livenessProbe": probe}])),
        deployments(),
        by("one"),
    );
    live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = 10.into();
    let live = applied(&live, &with_containers(json!([{"name": "main"}])), deployments(), by("one"));
    assert_eq!(live.pointer("/spec/template/spec/containers/0"), Some(&json!({"name": "main"})));
}

#[test]
fn finalizers_are_a_set() {
    let with = |finalizers: &[&str]| {
        let metadata = json!({"name": "a", "finalizers": finalizers});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    };
    let live = applied(&with(&[]), &with(&["a.example/x"]), config_maps(), by("one"));
    let live = applied(&live, &with(&["a.example/y"]), config_maps(), by("two"));
    assert_eq!(live["metadata"]["finalizers"], json!(["a.example/x", "a.example/y"]));
    let live = applied(&live, &with(&[]), config_maps(), by("one"));
    assert_eq!(live["metadata"]["finalizers"], json!(["a.example/y"]));
}

#[test]
fn ports_of_a_service_are_keyed_by_port_and_protocol() {
    let schema = of_kind("", "v1", "Service").unwrap();
    let service = |ports: Value| {
        let spec = json!({"ports": ports});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec})
    };
    let live = applied(&service(json!([])), &service(json!([{"port": 80, "name": "web"}])), schema, by("one"));
    let live = applied(&live, &service(json!([{"port": 443, "name": "tls"}])), schema, by("two"));
    assert_eq!(live["spec"]["ports"], json!([{"port": 80, "name": "web"}, {"port": 443, "name": "tls"}]));
    let twice = refused(&live, &service(json!([{"port": 80}, {"port": 80, "protocol": "TCP"}])), schema, by("one"));
    assert_eq!(
        twice,
        "failed to create typed patch object (/a; v1, Kind=Service): .spec.ports: duplicate entries for key \
         [port=80,protocol=\"TCP\"]"
    );
}

#[test]
fn entries_of_config_maps_are_owned_one_by_one() {
    let with = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let live = applied(&with(json!({})), &with(json!({"a": "1", "b": "2"})), config_maps(), by("one"));
    let live = applied(&live, &with(json!({"b": "2", "c": "3"})), config_maps(), by("two"));
    let live = applied(&live, &with(json!({})), config_maps(), by("one"));
    assert_eq!(live["data"], json!({"b": "2", "c": "3"}));
}

#[test]
fn an_atomic_list_belongs_to_one_manager() {
    let live = applied(&absent(), &with_containers(json!([{"name": "main", "args": ["a"]}])), deployments(), by("one"));
    let other = with_containers(json!([{"name": "main", "args": ["a", "b"]}]));
    assert_eq!(
        refused(&live, &other, deployments(), by("two")),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.template.spec.containers[name=\"main\"].args"
    );
    let live = forced(&live, &other, deployments(), by("two"));
    assert_eq!(live.pointer("/spec/template/spec/containers/0/args"), Some(&json!(["a", "b"])));
    let ones = owned(&live, "one", Operation::Apply);
    assert_eq!(ones.pointer("/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"main\"}/f:args"), None);
}

#[test]
fn a_null_unsets_a_field_and_keeps_what_lists_hold() {
    let object =
        deployment(json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "main", "image": "a"}]}}}));
    let live = applied(&absent(), &object, deployments(), by("helm"));
    let nulls = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "creationTimestamp": null, "labels": null},
        "spec": {"replicas": null, "template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": [
            {"name": "main", "image": "a", "resources": null, "env": null}]}}}});
    let live = applied(&live, &nulls, deployments(), by("helm"));
    assert_eq!(live.pointer("/spec/replicas"), None);
    assert_eq!(live.pointer("/spec/template/spec/containers/0"), Some(&json!({"name": "main", "image": "a"})));
    assert_eq!(owned(&live, "helm", Operation::Apply)["f:spec"]["f:replicas"], json!({}));
    let again = applied(&live, &nulls, deployments(), Writer { now: LATER, ..by("helm") });
    assert_eq!(again, live);
}

#[test]
fn the_order_of_a_list_is_that_of_the_configuration() {
    let env = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        with_containers(json!([{"name": "main", "env": items}]))
    };
    let names = |object: &Value| -> Vec<String> {
        let list = object.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array).cloned();
        list.unwrap_or_default().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let live = applied(&absent(), &env(&["a", "x", "b", "y"]), deployments(), by("one"));
    let live = applied(&live, &env(&["b", "n", "a"]), deployments(), by("two"));
    assert_eq!(names(&live), ["x", "b", "y", "n", "a"]);
}

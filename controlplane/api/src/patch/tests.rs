//! Patches as kubectl writes them, directive by directive, and what must be refused.
#![expect(clippy::needless_pass_by_value, reason = "patches are written in place")]

use serde_json::{Value, json};

use super::*;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn deployment(containers: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "replicas": 2, "template": { "spec": { "containers": containers } } },
    })
}

fn patched(current: &Value, patch: Value) -> Value {
    strategic_merge(current, &patch, DEPLOYMENT).unwrap()
}

fn containers_after(current: Value, patch: Value) -> Value {
    let object = patched(&deployment(current), json!({ "spec": { "template": { "spec": patch } } }));
    object["spec"]["template"]["spec"]["containers"].clone()
}

/// The volumes of a pod after a patch of them.
fn volumes_after(current: Value, patch: Value) -> Value {
    let pod = json!({ "spec": { "volumes": current } });
    strategic_merge(&pod, &json!({ "spec": patch }), "io.k8s.api.core.v1.Pod").unwrap()["spec"]["volumes"].clone()
}

#[test]
fn set_image_changes_one_container_and_keeps_the_order() {
    let after = containers_after(
        json!([{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b:1", "args": ["x"] }]),
        json!({ "$setElementOrder/containers": [{ "name": "a" }, { "name": "b" }], "containers": [{ "name": "b", "image": "b:2" }] }),
    );
    assert_eq!(after, json!([{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b:2", "args": ["x"] }]));
}

#[test]
fn apply_removes_a_variable_and_adds_another() {
    let after = containers_after(
        json!([{ "name": "a", "env": [{ "name": "X", "value": "1" }, { "name": "Y", "value": "2" }] }]),
        json!({
            "$setElementOrder/containers": [{ "name": "a" }],
            "containers": [{
                "name": "a",
                "$setElementOrder/env": [{ "name": "Z" }, { "name": "Y" }],
                "env": [{ "name": "Z", "value": "3" }, { "name": "X", "$patch": "delete" }],
            }],
        }),
    );
    assert_eq!(after, json!([{ "name": "a", "env": [{ "name": "Z", "value": "3" }, { "name": "Y", "value": "2" }] }]));
}

#[test]
fn rollout_restart_adds_an_annotation() {
    let now = "2026-01-01T00:00:00Z";
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "kubectl.kubernetes.io/restartedAt": now } } } } });
    let after = patched(&deployment(json!([{ "name": "a" }])), patch);
    assert_eq!(after["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"], now);
    assert_eq!(after["spec"]["template"]["spec"]["containers"], json!([{ "name": "a" }]));
}

#[test]
fn a_new_item_goes_before_the_ones_that_the_patch_does_not_name() {
    let after = containers_after(json!([{ "name": "a" }, { "name": "b" }]), json!({ "containers": [{ "name": "c" }] }));
    assert_eq!(after, json!([{ "name": "c" }, { "name": "a" }, { "name": "b" }]));
}

#[test]
fn an_order_alone_reorders() {
    let after = containers_after(
        json!([{ "name": "a" }, { "name": "b" }]),
        json!({ "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }] }),
    );
    assert_eq!(after, json!([{ "name": "b" }, { "name": "a" }]));
}

#[test]
fn atomic_lists_and_scalars_are_replaced_and_null_removes() {
    let after = containers_after(
        json!([{ "name": "a", "args": ["x", "y"], "image": "a:1", "tty": true }]),
        json!({ "containers": [{ "name": "a", "args": ["z"], "tty": null }] }),
    );
    assert_eq!(after, json!([{ "name": "a", "args": ["z"], "image": "a:1" }]));
}

#[test]
fn a_list_is_replaced_when_the_patch_says_so() {
    let after = containers_after(
        json!([{ "name": "a" }, { "name": "b" }]),
        json!({ "containers": [{ "name": "c" }, { "$patch": "replace" }] }),
    );
    assert_eq!(after, json!([{ "name": "c" }]));
}

#[test]
fn a_struct_is_replaced_or_emptied_when_the_patch_says_so() {
    let current = json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } });
    let replaced = patched(&current, json!({ "spec": { "strategy": { "$patch": "replace", "type": "Recreate" } } }));
    assert_eq!(replaced, json!({ "spec": { "strategy": { "type": "Recreate" } } }));
    let emptied = patched(&current, json!({ "spec": { "strategy": { "$patch": "delete" } } }));
    assert_eq!(emptied, json!({ "spec": { "strategy": {} } }));
}

#[test]
fn keys_that_are_not_retained_go() {
    let current = json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } });
    let patch = json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } });
    assert_eq!(patched(&current, patch), json!({ "spec": { "strategy": { "type": "Recreate" } } }));
    let after = volumes_after(
        json!([{ "name": "v", "emptyDir": {} }]),
        json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "configMap"], "configMap": { "name": "c" } }] }),
    );
    assert_eq!(after, json!([{ "name": "v", "configMap": { "name": "c" } }]));
}

#[test]
fn values_are_added_to_and_deleted_from_sets() {
    let current = json!({ "metadata": { "finalizers": ["a", "b"] } });
    let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"] } });
    assert_eq!(patched(&current, patch), json!({ "metadata": { "finalizers": ["c", "b"] } }));
    let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a", "b"] } });
    assert_eq!(patched(&current, patch), json!({ "metadata": { "finalizers": [] } }));
}

#[test]
fn a_selector_is_replaced_where_its_strategy_says_so() {
    let current = json!({ "spec": { "selector": { "matchLabels": { "a": "1" } } } });
    let patch = json!({ "spec": { "selector": { "matchLabels": { "b": "2" } } } });
    let budget = strategic_merge(&current, &patch, "io.k8s.api.policy.v1.PodDisruptionBudget").unwrap();
    assert_eq!(budget, patch);
    assert_eq!(patched(&current, patch), json!({ "spec": { "selector": { "matchLabels": { "a": "1", "b": "2" } } } }));
}

#[test]
fn directives_and_nulls_never_end_up_in_an_object() {
    let patch = json!({ "spec": { "template": { "spec": {
        "$setElementOrder/containers": [{ "name": "a" }],
        "containers": [{ "name": "a", "image": null, "env": [{ "name": "X", "$patch": "delete" }] }],
    } } } });
    let after = patched(&json!({}), patch);
    assert_eq!(after, json!({ "spec": { "template": { "spec": { "containers": [{ "name": "a", "env": [] }] } } } }));
}

#[test]
fn wrong_patches_are_refused() {
    let refused = |patch: Value| {
        strategic_merge(&deployment(json!([{ "name": "a" }])), &patch, DEPLOYMENT).unwrap_err().to_string()
    };
    let spec = |patch: Value| json!({ "spec": { "template": { "spec": patch } } });
    assert!(refused(spec(json!({ "containers": [{ "image": "x" }] }))).contains("declared merge key: name"));
    assert!(refused(spec(json!({ "$patch": "explode" }))).contains("unknown patch type"));
    assert!(
        refused(spec(json!({ "containers": [{ "name": "a", "$patch": "explode" }] }))).contains("unknown patch type")
    );
    let misordered = json!({ "$setElementOrder/containers": [{ "name": "b" }], "containers": [{ "name": "a" }] });
    assert!(refused(spec(misordered)).contains("$setElementOrder"));
    assert!(refused(json!([])).contains("must be JSON objects"));
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({ "x": deep });
    }
    assert!(refused(deep).contains("deeper"));
}

#[test]
fn json_patches_apply_whole_or_not_at_all() {
    let mut object = json!({ "spec": { "replicas": 1 } });
    let patch = json!([
        { "op": "replace", "path": "/spec/replicas", "value": 2 },
        { "op": "test", "path": "/spec/replicas", "value": 3 },
    ]);
    let error = json_patch(&mut object, &patch).unwrap_err();
    assert_eq!((error.to_status().code, &object), (422, &json!({ "spec": { "replicas": 1 } })));
    json_patch(&mut object, &json!([{ "op": "add", "path": "/spec/paused", "value": true }])).unwrap();
    assert_eq!(object, json!({ "spec": { "replicas": 1, "paused": true } }));
    assert_eq!(json_patch(&mut object, &json!({ "op": "add" })).unwrap_err().to_status().code, 400);
    let many = Value::Array(vec![json!({ "op": "test", "path": "", "value": 1 }); MAX_OPERATIONS + 1]);
    assert_eq!(json_patch(&mut object, &many).unwrap_err().to_status().code, 413);
}

#[test]
fn merge_patches_replace_lists_and_remove_nulls() {
    let mut object = deployment(json!([{ "name": "a" }]));
    merge_patch(
        &mut object,
        &json!({ "metadata": { "labels": { "app": null, "tier": "x" } }, "spec": { "replicas": 5 } }),
    );
    assert_eq!((&object["metadata"]["labels"], &object["spec"]["replicas"]), (&json!({ "tier": "x" }), &json!(5)));
}

mod properties;

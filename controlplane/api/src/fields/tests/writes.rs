//! Ordinary writes, conflicts, and how managers come and go.

use super::*;
use crate::fields::only_times_differ;

fn replicas(number: i64) -> Value {
    deployment(json!({ "replicas": number }))
}

#[test]
fn who_creates_owns_everything_but_what_is_the_servers() {
    let mut object = with_containers(json!([{"name": "main", "image": "a"}]));
    object["metadata"]["labels"] = json!({"app": "web"});
    object["metadata"]["generation"] = 1.into();
    let created = posted(&object, deployments(), by("kubectl-create"));
    let containers = json!({".": {}, "k:{\"name\":\"main\"}": {".": {}, "f:image": {}, "f:name": {}}});
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOON,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:template": {"f:spec": {"f:containers": containers}}},
            },
        }])
    );
}

#[test]
fn who_changes_a_field_takes_it() {
    let live = posted(&replicas(1), deployments(), by("kubectl-create"));
    let mut new = live.clone();
    new["spec"]["replicas"] = 2.into();
    let live = put(&live, &new, deployments(), Writer { now: LATER, ..by("kubectl-edit") });
    assert_eq!(owned(&live, "kubectl-edit", Operation::Update), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned(&live, "kubectl-create", Operation::Update), Value::Null);
}

#[test]
fn a_write_that_changes_nothing_leaves_the_managers_alone() {
    let live = posted(&replicas(1), deployments(), by("kubectl-create"));
    assert_eq!(put(&live, &live, deployments(), Writer { now: LATER, ..by("other") }), live);
    let mut without = live.clone();
    without["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(put(&live, &without, deployments(), Writer { now: LATER, ..by("other") }), live);
}

#[test]
fn what_nobody_has_owned_is_not_tracked_until_it_is_applied_to() {
    let mut old = replicas(1);
    old["metadata"]["uid"] = "1".into();
    let mut new = old.clone();
    new["spec"]["replicas"] = 2.into();
    new["status"] = json!({"replicas": 2});
    let live = put(&old, &new, deployments(), by("kubectl-edit"));
    assert_eq!(live, new);
    assert_eq!(
        refused(&live, &replicas(5), deployments(), by("kubectl")),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let live = applied(&live, &replicas(2), deployments(), by("kubectl"));
    assert_eq!(owned(&live, "before-first-apply", Operation::Update), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned(&live, "kubectl", Operation::Apply), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn clients_may_strip_and_set_managed_fields() {
    let live = posted(&replicas(1), deployments(), by("a"));
    for reset in [json!([{}]), json!([])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        new["spec"]["replicas"] = 4.into();
        assert_eq!(put(&live, &new, deployments(), by("b"))["metadata"].get("managedFields"), None);
    }
    let mut migrated = live.clone();
    migrated["metadata"]["managedFields"][0]["operation"] = "Apply".into();
    assert_eq!(put(&live, &migrated, deployments(), by("b")), migrated);
    let mut malformed = live.clone();
    malformed["metadata"]["managedFields"][0]["operation"] = "Guess".into();
    assert_eq!(put(&live, &malformed, deployments(), by("b")), live);
}

#[test]
fn conflicts_are_told_as_kubectl_users_know_them() {
    let live = posted(&replicas(1), deployments(), by("kubectl-client-side-apply"));
    assert_eq!(
        refused(&live, &replicas(2), deployments(), by("helm")),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let mut both = replicas(2);
    both["spec"]["paused"] = true.into();
    let mut new = live.clone();
    new["spec"]["paused"] = false.into();
    let live = put(&live, &new, deployments(), by("kubectl-edit"));
    let error = apply(&live, Configuration { object: &both, force: false }, deployments(), by("helm")).unwrap_err();
    let status = serde_json::to_value(error.to_status()).unwrap();
    assert_eq!(
        status["message"],
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n\
         conflicts with \"kubectl-edit\" using apps/v1:\n- .spec.paused"
    );
    assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Conflict")));
    assert_eq!(
        status["details"]["causes"],
        json!([
            {"reason": "FieldManagerConflict", "field": ".spec.replicas",
             "message": "conflict with \"kubectl-client-side-apply\" using apps/v1"},
            {"reason": "FieldManagerConflict", "field": ".spec.paused",
             "message": "conflict with \"kubectl-edit\" using apps/v1"},
        ])
    );
}

#[test]
fn equal_wishes_are_owned_together_and_force_takes() {
    let live = applied(&absent(), &replicas(2), deployments(), by("one"));
    let live = applied(&live, &replicas(2), deployments(), by("two"));
    assert_eq!(managers(&live).len(), 2);
    let live = forced(&live, &replicas(3), deployments(), by("two"));
    assert_eq!(live["spec"]["replicas"], 3);
    assert_eq!(owned(&live, "one", Operation::Apply), Value::Null);
}

#[test]
fn a_scale_and_an_apply_conflict() {
    let live = applied(&absent(), &replicas(2), deployments(), by("kubectl"));
    let mut new = live.clone();
    new["spec"]["replicas"] = 5.into();
    let live = put(&live, &new, deployments(), Writer { subresource: "scale", ..by("hpa") });
    assert_eq!(owned(&live, "kubectl", Operation::Apply), Value::Null);
    assert_eq!(
        refused(&live, &replicas(2), deployments(), by("kubectl")),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let live = applied(&live, &deployment(json!({"paused": true})), deployments(), by("kubectl"));
    assert_eq!(live["spec"]["replicas"], 5);
}

#[test]
fn a_client_side_apply_becomes_a_server_side_one() {
    let mut object = replicas(1);
    object["spec"]["paused"] = true.into();
    let note = object.to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": note});
    let live = posted(&object, deployments(), by("kubectl-client-side-apply"));
    let mut new = live.clone();
    new["spec"]["paused"] = false.into();
    let live = put(&live, &new, deployments(), by("kubectl-edit"));

    // What the annotation says and is so is taken; what somebody else made otherwise is not.
    let mut wanted = replicas(2);
    wanted["spec"]["paused"] = true.into();
    assert_eq!(
        refused(&live, &wanted, deployments(), by("kubectl")),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.paused"
    );
    assert!(refused(&live, &replicas(2), deployments(), by("other")).contains(".spec.replicas"));
    let after = applied(&live, &replicas(2), deployments(), by("kubectl"));
    assert_eq!(after["spec"]["replicas"], 2);
    let note = after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(note).unwrap(), replicas(2));
    assert_eq!(applied(&after, &replicas(2), deployments(), Writer { now: LATER, ..by("kubectl") }), after);
}

#[test]
fn the_oldest_of_too_many_updaters_share_an_entry() {
    let mut live = posted(&replicas(0), deployments(), by("first"));
    for number in 0..15 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{number:02}")] = "x".into();
        let (name, now) = (format!("m{number:02}"), format!("2026-01-01T12:{number:02}:30Z"));
        live = put(&live, &new, deployments(), Writer { now: &now, ..by(&name) });
    }
    let names: Vec<String> = managers(&live).into_iter().map(|manager| manager.name).collect();
    assert_eq!(names, ["ancient-changes", "m06", "m07", "m08", "m09", "m10", "m11", "m12", "m13", "m14"]);
    let ancient = owned(&live, "ancient-changes", Operation::Update);
    assert_eq!(ancient["f:spec"]["f:replicas"], json!({}));
    assert_eq!(ancient["f:metadata"]["f:labels"]["f:l05"], json!({}));
}

#[test]
fn applied_managed_fields_are_refused() {
    let mut wanted = replicas(1);
    wanted["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(&absent(), &wanted, deployments(), by("a")), "metadata.managedFields must be nil");
}

#[test]
fn only_another_time_is_no_difference() {
    let live = posted(&replicas(1), deployments(), by("a"));
    let mut later = live.clone();
    later["metadata"]["managedFields"][0]["time"] = LATER.into();
    assert!(only_times_differ(&later, &live));
    later["spec"]["replicas"] = 2.into();
    assert!(!only_times_differ(&later, &live));
}

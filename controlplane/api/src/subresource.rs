//! Subresources as pure functions between an object and what its subresource speaks: scale, binding, ephemeral containers.

use serde_json::{Map, Value, json};

use crate::kinds::{ephemeral_containers, pod_gates};
use crate::metadata::{self, member_mut};
use crate::resource;
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::validation::FieldError;

/// The `autoscaling/v1` Scale of a Deployment or ReplicaSet.
pub fn scale_of(object: &Value) -> Value {
    let meta = object.get("metadata").and_then(Value::as_object);
    let copied = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), meta?.get(field)?.clone())));
    let metadata: Map<String, Value> = copied.collect();
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    let current = object.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {}, "status": {"replicas": current}});
    if replicas != 0 {
        scale["spec"]["replicas"] = replicas.into();
    }
    if let Ok(selector) = LabelSelector::from_value(object.pointer("/spec/selector")) {
        scale["status"]["selector"] = selector.to_string().into();
    }
    scale
}

/// Puts a Scale's wish into the Deployment or ReplicaSet that it scales. Whether it has seen the present version is for
/// the caller to compare.
///
/// # Errors
/// 422 when the number is below zero.
pub fn apply_scale(object: &mut Value, scale: &Value) -> Result<(), Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let problem = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", metadata::name(scale).unwrap_or_default(), vec![problem]));
    }
    member_mut(object, "spec").insert("replicas".to_owned(), replicas.into());
    Ok(())
}

/// Binds a pod to the node that a Binding names, and notes it as scheduled at `now`. Labels and annotations of the
/// binding become the pod's.
///
/// # Errors
/// 400 or 422 for a bad target, 409 when the pod is bound or being deleted.
pub fn bind(pod: &mut Value, binding: &Value, now: &str) -> Result<(), Status> {
    let name = metadata::name(pod).unwrap_or_default().to_owned();
    let target = |field: &str| {
        binding.pointer("/target").and_then(|target| target.get(field)).and_then(Value::as_str).unwrap_or_default()
    };
    let node = target("name");
    let mut problems = Vec::new();
    if !matches!(target("kind"), "" | "Node") {
        problems.push(FieldError::not_supported("target.kind", target("kind"), &["Node", "<empty>"]));
    }
    if node.is_empty() {
        problems.push(FieldError::required("target.name", ""));
    }
    if !problems.is_empty() {
        return Err(Status::invalid("", "Binding", &name, problems));
    }
    if metadata::deletion_timestamp(pod).is_some() {
        return Err(Status::conflict(
            "",
            "pods/binding",
            &name,
            format_args!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    if let Some(bound) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|bound| !bound.is_empty()) {
        return Err(Status::conflict(
            "",
            "pods/binding",
            &name,
            format_args!("pod {name} is already assigned to node {bound:?}"),
        ));
    }
    if pod_gates::is_gated(pod) {
        let message = format_args!("pod {name} has non-empty .spec.schedulingGates");
        return Err(Status::conflict("", "pods/binding", &name, message));
    }
    let node = node.to_owned();
    member_mut(pod, "spec").insert("nodeName".to_owned(), node.into());
    for field in ["labels", "annotations"] {
        for (key, value) in
            binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).into_iter().flatten()
        {
            let map = metadata::metadata_mut(pod).entry(field).or_insert_with(|| json!({}));
            map[key.as_str()] = value.clone();
        }
    }
    set_condition(
        pod,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
    Ok(())
}

/// Leaves of a changed pod what its subresource `ephemeralcontainers` may change.
pub fn take_ephemeral_containers(new: &mut Value, old: &Value) {
    let wanted = new.pointer_mut("/spec/ephemeralContainers").map(Value::take);
    let metadata = new.get("metadata").cloned();
    *new = old.clone();
    if let (Some(map), Some(metadata)) = (new.as_object_mut(), metadata) {
        map.insert("metadata".to_owned(), metadata);
    }
    for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
        match old.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(kept) => metadata::metadata_mut(new).insert(field.to_owned(), kept.clone()),
            None => metadata::metadata_mut(new).remove(field),
        };
    }
    let spec = member_mut(new, "spec");
    match wanted.filter(|wanted| !wanted.is_null()) {
        Some(wanted) => spec.insert("ephemeralContainers".to_owned(), wanted),
        None => spec.remove("ephemeralContainers"),
    };
}

/// What is wrong with a pod whose ephemeral containers were changed.
pub fn ephemeral_container_problems(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut problems = Vec::new();
    if let Some(pods) = resource::find("", "v1", "pods") {
        pods.strategy.check(new, &mut problems);
    }
    ephemeral_containers::check_change(new, old, &mut problems);
    problems
}

fn set_condition(pod: &mut Value, condition: Value) {
    let conditions = member_mut(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|other| other.get("type") != condition.get("type"));
    conditions.push(condition);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_goes_there_and_back() {
        let mut deployment = json!({"metadata": {"name": "w", "namespace": "d", "resourceVersion": "5", "labels": {}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 2}});
        let mut scale = scale_of(&deployment);
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
        assert_eq!(scale["metadata"], json!({"name": "w", "namespace": "d", "resourceVersion": "5"}));
        scale["spec"]["replicas"] = 7.into();
        apply_scale(&mut deployment, &scale).unwrap();
        assert_eq!(deployment["spec"]["replicas"], 7);
        scale["spec"]["replicas"] = (-1).into();
        assert_eq!(apply_scale(&mut deployment, &scale).unwrap_err().code, 422);
    }

    #[test]
    fn ephemeral_containers_only_come() {
        let container = |name: &str, more: &Value| {
            let mut container = json!({"name": name, "image": "toolbox:1", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"});
            for (field, value) in more.as_object().into_iter().flatten() {
                container[field] = value.clone();
            }
            container
        };
        let pod = |ephemeral: &[Value]| {
            json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "containers": [container("main", &json!({}))], "ephemeralContainers": ephemeral}})
        };
        let plain = json!({});
        let old = pod(&[container("one", &plain)]);
        let problems = |ephemeral: &[Value]| -> Vec<String> {
            let mut new = pod(ephemeral);
            new["spec"]["nodeName"] = "elsewhere".into();
            new["metadata"]["labels"] = json!({});
            take_ephemeral_containers(&mut new, &old);
            assert_eq!((&new["spec"]["nodeName"], &new["metadata"]["labels"]["a"]), (&Value::Null, &json!("b")));
            ephemeral_container_problems(&new, &old).iter().map(ToString::to_string).collect()
        };
        let one = || container("one", &plain);
        assert_eq!(problems(&[one(), container("two", &json!({"targetContainerName": "main", "tty": true}))]), [""; 0]);
        for (ephemeral, what) in [
            (vec![], "may not be removed"),
            (vec![container("one", &json!({"tty": true}))], "may not be changed"),
            (vec![one(), container("main", &plain)], "spec.ephemeralContainers[1].name: Duplicate value"),
            (
                vec![one(), container("two", &json!({"targetContainerName": "no"}))],
                "spec.ephemeralContainers[1].targetContainerName: Not found",
            ),
            (
                vec![one(), container("two", &json!({"ports": [{"containerPort": 1, "protocol": "TCP"}]}))],
                "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                vec![one(), container("two", &json!({"restartPolicy": "Always"}))],
                "spec.ephemeralContainers[1].restartPolicy: Forbidden",
            ),
        ] {
            let told = problems(&ephemeral);
            assert!(told.len() == 1 && told[0].contains(what), "{what}: {told:?}");
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let binding = json!({"target": {"kind": "Node", "name": "n1"}});
        bind(&mut pod, &binding, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        assert_eq!(bind(&mut pod, &binding, "").unwrap_err().code, 409);
        assert_eq!(bind(&mut json!({}), &json!({}), "").unwrap_err().code, 422);
        let mut gated =
            json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "example.com/quota"}]}});
        assert_eq!(bind(&mut gated, &binding, "").unwrap_err().code, 409);
    }
}

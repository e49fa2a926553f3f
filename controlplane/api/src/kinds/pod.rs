//! Pod: its life (what it is born with, the little that may change) and its row; its columns are in `pod_columns`.

use serde_json::{Value, json};

use super::{pod_columns, pod_gates, pod_resources, pod_spec, pod_spec_checks, proxy, status};
use crate::resource::{Resource, SelectableField, Strategy, Subresource};
use crate::table::cells::{list, text};
use crate::validation::{self, FieldError};

pub(super) const ROW: Resource = Resource {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        stream("attach", "PodAttachOptions"),
        Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &["create"] },
        Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
        Subresource {
            name: "ephemeralcontainers",
            group: "",
            version: "v1",
            kind: "Pod",
            verbs: &["get", "patch", "update"],
        },
        stream("exec", "PodExecOptions"),
        Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
        stream("portforward", "PodPortForwardOptions"),
        proxy("PodProxyOptions"),
        status("", "Pod"),
    ],
    schema: "io.k8s.api.core.v1.Pod",
    storage: "core/pods",
    has_generation: true,
    columns: pod_columns::COLUMNS,
    selectable_fields: &[
        SelectableField { name: "spec.nodeName", value: |pod| text(pod, "/spec/nodeName").to_owned() },
        SelectableField { name: "spec.restartPolicy", value: |pod| text(pod, "/spec/restartPolicy").to_owned() },
        SelectableField { name: "spec.schedulerName", value: |pod| text(pod, "/spec/schedulerName").to_owned() },
        SelectableField {
            name: "spec.serviceAccountName",
            value: |pod| text(pod, "/spec/serviceAccountName").to_owned(),
        },
        SelectableField {
            name: "spec.hostNetwork",
            value: |pod| pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false).to_string(),
        },
        SelectableField { name: "status.phase", value: |pod| text(pod, "/status/phase").to_owned() },
        SelectableField { name: "status.podIP", value: |pod| text(pod, "/status/podIP").to_owned() },
        SelectableField { name: "status.podIPs", value: |pod| text(pod, "/status/podIP").to_owned() },
        SelectableField {
            name: "status.nominatedNodeName",
            value: |pod| text(pod, "/status/nominatedNodeName").to_owned(),
        },
    ],
    strategy: &Pod,
    ..Resource::BASE
};

/// A subresource that changes the connection's protocol.
const fn stream(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs: &["create", "get"] }
}

struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        let spec = crate::metadata::member_mut(object, "spec");
        pod_spec::default(spec);
        pod_spec::request_what_is_limited(spec);
        pod_resources::request(spec);
        pod_spec::take_ports_of_the_node(spec);
        spec.entry("enableServiceLinks").or_insert_with(|| true.into());
    }

    fn prepare_create(&self, object: &mut Value) {
        let mut whole = object.clone();
        self.default(&mut whole);
        object["status"] = json!({"phase": "Pending", "qosClass": pod_resources::qos_class(&whole)});
        if pod_gates::is_gated(&whole) {
            object["status"]["conditions"] = json!([pod_gates::condition()]);
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        pod_spec_checks::check(spec, "spec", &["Always", "OnFailure", "Never"], problems);
        pod_spec_checks::check_host_network(spec, "spec", true, problems);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut problems = validation::object_metadata(object, self.names());
        self.check(object, &mut problems);
        pod_gates::check_new(object, &mut problems);
        if !list(object, "/spec/ephemeralContainers").is_empty() {
            problems.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        problems
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        pod_gates::check_change(new, old, problems);
        let changed = without_what_may_change(new, old);
        if changed != without_what_may_change(old, old) {
            problems.push(FieldError::forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
            ));
        }
    }
}

/// The spec without images, deadline, gates, and tolerations where the old ones are all still there; and where the pod waits for
/// its gates, without what leaves it fewer nodes.
fn without_what_may_change(pod: &Value, old: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for field in ["containers", "initContainers"] {
        for container in
            spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            container.remove("image");
        }
    }
    let kept =
        list(old, "/spec/tolerations").iter().all(|toleration| list(pod, "/spec/tolerations").contains(toleration));
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("activeDeadlineSeconds");
        if kept {
            spec.remove("tolerations");
        }
    }
    pod_gates::remove_what_may_change(&mut spec, pod, old);
    spec
}

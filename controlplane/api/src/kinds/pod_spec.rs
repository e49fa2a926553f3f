//! The defaults of a pod spec, wherever it stands: in a Pod or in the template of what makes Pods.

use serde_json::{Map, Value, json};

use super::storage;
use crate::quantity::Quantity;

/// Fills in what Kubernetes fills in; twice is the same as once.
pub(super) fn default(spec: &mut Map<String, Value>) {
    put(spec, "restartPolicy", "Always");
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "schedulerName", "default-scheduler");
    spec.entry("terminationGracePeriodSeconds").or_insert_with(|| 30.into());
    spec.entry("securityContext").or_insert_with(|| json!({}));
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|field| spec.get(*field).filter(|name| name.as_str() != Some("")).cloned());
    if let Some(account) = account {
        spec.insert("serviceAccount".to_owned(), account.clone());
        spec.insert("serviceAccountName".to_owned(), account);
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in objects(spec.get_mut(field)) {
            default_container(container);
        }
    }
    for volume in objects(spec.get_mut("volumes")) {
        default_volume(volume);
    }
    if let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) {
        for field in ["limits", "requests"] {
            canonical_quantities(resources.get_mut(field));
        }
    }
}

/// In a Pod itself (not in a template), what is limited and not requested is requested.
pub(super) fn request_what_is_limited(spec: &mut Map<String, Value>) {
    for field in ["containers", "initContainers"] {
        for container in objects(spec.get_mut(field)) {
            let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { continue };
            let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { continue };
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            for (name, limit) in limits {
                if let Some(requests) = requests.as_object_mut() {
                    requests.entry(name).or_insert(limit);
                }
            }
        }
    }
}

/// In a Pod itself (not in a template), the ports of one that has its node's network are the node's.
pub(super) fn take_ports_of_the_node(spec: &mut Map<String, Value>) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for field in ["containers", "initContainers"] {
        for container in objects(spec.get_mut(field)) {
            for port in objects(container.get_mut("ports")) {
                let is_given = port.get("hostPort").and_then(Value::as_i64).is_some_and(|port| port != 0);
                if let Some(own) = port.get("containerPort").cloned().filter(|_| !is_given) {
                    port.insert("hostPort".to_owned(), own);
                }
            }
        }
    }
}

fn objects(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets a text that is missing or empty.
fn put(map: &mut Map<String, Value>, field: &str, text: &str) {
    if map.get(field).is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
        map.insert(field.to_owned(), text.into());
    }
}

fn default_container(container: &mut Map<String, Value>) {
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    put(container, "imagePullPolicy", policy);
    if let Some(resources) = container.entry("resources").or_insert_with(|| json!({})).as_object_mut() {
        for field in ["limits", "requests"] {
            canonical_quantities(resources.get_mut(field));
        }
    }
    for port in objects(container.get_mut("ports")) {
        put(port, "protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container
            .get_mut("lifecycle")
            .and_then(|lifecycle| lifecycle.get_mut(hook)?.get_mut("httpGet")?.as_object_mut())
        {
            default_http(get);
        }
    }
    for variable in objects(container.get_mut("env")) {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")?.as_object_mut()) {
            put(field, "apiVersion", "v1");
        }
    }
}

/// Whether an image is named without a tag or digest, or with the tag `latest`.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn canonical_quantities(map: Option<&mut Value>) {
    for value in map.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Ok(quantity) = Quantity::from_value(value) {
            *value = quantity.to_string().into();
        }
    }
}

fn default_probe(probe: &mut Map<String, Value>) {
    for (field, number) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(field.to_owned(), number.into());
        }
    }
    if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        default_http(get);
    }
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        grpc.entry("service").or_insert_with(|| "".into());
    }
}

fn default_http(get: &mut Map<String, Value>) {
    put(get, "path", "/");
    put(get, "scheme", "HTTP");
}

fn default_volume(volume: &mut Map<String, Value>) {
    if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            source.entry("defaultMode").or_insert_with(|| 420.into());
        }
    }
    if let Some(size) = volume.get_mut("emptyDir").and_then(|source| source.get_mut("sizeLimit"))
        && let Ok(quantity) = Quantity::from_value(size)
    {
        *size = quantity.to_string().into();
    }
    if let Some(host) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        host.entry("type").or_insert_with(|| "".into());
    }
    if let Some(spec) = volume
        .get_mut("ephemeral")
        .and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate")?.get_mut("spec")?.as_object_mut())
    {
        storage::default_spec(spec);
    }
    default_downward_items(volume.get_mut("downwardAPI"));
    for source in objects(volume.get_mut("projected").and_then(|projected| projected.get_mut("sources"))) {
        default_downward_items(source.get_mut("downwardAPI"));
        if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
            token.entry("expirationSeconds").or_insert_with(|| 3600.into());
        }
    }
}

fn default_downward_items(source: Option<&mut Value>) {
    for item in objects(source.and_then(|source| source.get_mut("items"))) {
        if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            put(field, "apiVersion", "v1");
        }
    }
}

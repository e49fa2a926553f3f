//! What is wrong with a pod spec, wherever it stands.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ephemeral_containers, persistent_volume, persistent_volume_claim, pod_gates, pod_names, pod_resources};
use crate::table::cells::{list, text};
use crate::validation::{FieldError, at_least, invalid, names, non_negative, one_of, port, port_or_name, quantity};

/// The restart rules that a container may have, as in Kubernetes.
const MOST_RESTART_RULES: usize = 20;
/// The exit codes that one of them may name, as in Kubernetes.
const MOST_EXIT_CODES: usize = 255;

/// Appends what is wrong with the spec at `path`. `restart_policies` are those that the holder allows.
pub(super) fn check(spec: &Value, path: &str, restart_policies: &[&str], problems: &mut Vec<FieldError>) {
    let volumes = check_volumes(spec, path, problems);
    if list(spec, "/containers").is_empty() {
        problems.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    check_host_ports(spec, path, problems);
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let name = text(container, "/name");
            if !name.is_empty() && !seen.insert(name) {
                problems.push(FieldError::duplicate(format!("{path}.name"), name));
            }
            check_container(container, &path, &volumes, problems);
            check_restarts(container, &path, problems);
        }
    }
    ephemeral_containers::check(spec, path, &volumes, problems);
    one_of(problems, &format!("{path}.restartPolicy"), text(spec, "/restartPolicy"), restart_policies);
    non_negative(problems, &format!("{path}.terminationGracePeriodSeconds"), spec.get("terminationGracePeriodSeconds"));
    at_least(problems, &format!("{path}.activeDeadlineSeconds"), spec.get("activeDeadlineSeconds"), 1);
    pod_names::check(spec, path, problems);
    crate::validation::label_map(
        problems,
        &format!("{path}.nodeSelector"),
        spec.get("nodeSelector").and_then(Value::as_object),
    );
    check_tolerations(spec, path, problems);
    pod_gates::check(spec, path, problems);
    pod_resources::check(spec, path, problems);
}

fn required_label(problems: &mut Vec<FieldError>, field: &str, name: &str) {
    if name.is_empty() {
        problems.push(FieldError::required(field, ""));
    } else {
        invalid(problems, field, name, names::dns_label(name));
    }
}

fn check_volumes<'a>(spec: &'a Value, path: &str, problems: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let name = text(volume, "/name");
        required_label(problems, &format!("{path}.name"), name);
        if !name.is_empty() && !seen.insert(name) {
            problems.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if volume.as_object().map_or(0, serde_json::Map::len) > 2 {
            problems.push(FieldError::forbidden(path.as_str(), "may not specify more than 1 volume type"));
        }
        if volume.get("secret").is_some() && text(volume, "/secret/secretName").is_empty() {
            problems.push(FieldError::required(format!("{path}.secret.secretName"), ""));
        }
        if volume.get("configMap").is_some() && text(volume, "/configMap/name").is_empty() {
            problems.push(FieldError::required(format!("{path}.configMap.name"), ""));
        }
        check_storage(volume, &path, problems);
        for (index, source) in list(volume, "/projected/sources").iter().enumerate() {
            if let Some(token) = source.get("serviceAccountToken") {
                let path = format!("{path}.projected.sources[{index}].serviceAccountToken");
                check_token(token, &path, problems);
            }
        }
        if let Some(size) = volume.pointer("/emptyDir/sizeLimit") {
            quantity(problems, &format!("{path}.emptyDir.sizeLimit"), size);
        }
    }
    seen
}

fn check_token(token: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let seconds = token.get("expirationSeconds").and_then(Value::as_i64);
    let wrong = match seconds {
        Some(seconds) if seconds < 600 => Some("may not specify a duration less than 10 minutes"),
        Some(seconds) if seconds > 1 << 32 => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        problems.push(FieldError::invalid(format!("{path}.expirationSeconds"), seconds, wrong));
    }
    if text(token, "/path").is_empty() {
        problems.push(FieldError::required(format!("{path}.path"), ""));
    }
}

/// Volumes that outlive the pod, or are the node's.
fn check_storage(volume: &Value, path: &str, problems: &mut Vec<FieldError>) {
    if let Some(host) = volume.get("hostPath") {
        persistent_volume::check_path(host, &format!("{path}.hostPath"), problems);
    }
    if volume.get("persistentVolumeClaim").is_some() && text(volume, "/persistentVolumeClaim/claimName").is_empty() {
        problems.push(FieldError::required(format!("{path}.persistentVolumeClaim.claimName"), ""));
    }
    let Some(ephemeral) = volume.get("ephemeral") else { return };
    let field = format!("{path}.ephemeral.volumeClaimTemplate");
    match ephemeral.pointer("/volumeClaimTemplate/spec") {
        None => problems.push(FieldError::required(field, "")),
        Some(spec) => persistent_volume_claim::check_spec(spec, &format!("{field}.spec"), problems),
    }
}

pub(super) fn check_container(container: &Value, path: &str, volumes: &BTreeSet<&str>, problems: &mut Vec<FieldError>) {
    required_label(problems, &format!("{path}.name"), text(container, "/name"));
    let image = text(container, "/image");
    if image.is_empty() {
        problems.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        problems.push(FieldError::invalid(
            format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        problems,
        &format!("{path}.imagePullPolicy"),
        text(container, "/imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    one_of(
        problems,
        &format!("{path}.terminationMessagePolicy"),
        text(container, "/terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    check_ports(container, path, problems);
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let field = format!("{path}.env[{index}].name");
        match text(variable, "/name") {
            "" => problems.push(FieldError::required(field, "")),
            name => invalid(problems, &field, name, names::environment_variable(name)),
        }
        if !text(variable, "/value").is_empty() && variable.get("valueFrom").is_some() {
            problems.push(FieldError::invalid(
                format!("{path}.env[{index}].valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            ));
        }
    }
    check_mounts(container, path, volumes, problems);
    check_resources(container, path, problems);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe) {
            check_probe(value, &format!("{path}.{probe}"), probe, problems);
        }
    }
}

/// What a container says of its restarts (Kubernetes: `validateContainerRestartPolicy`).
fn check_restarts(container: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let policy = container.get("restartPolicy").and_then(Value::as_str);
    if let Some(policy) = policy {
        one_of(problems, &format!("{path}.restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
    let rules = list(container, "/restartPolicyRules");
    if !rules.is_empty() && policy.is_none() {
        let message = "must specify restartPolicy when restart rules are used";
        problems.push(FieldError::required(format!("{path}.restartPolicy"), message));
    }
    if rules.len() > MOST_RESTART_RULES {
        let message = format!("must have at most {MOST_RESTART_RULES} items");
        problems.push(FieldError::invalid(format!("{path}.restartPolicyRules"), rules.len(), message));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{path}.restartPolicyRules[{index}]");
        one_of(problems, &format!("{path}.action"), text(rule, "/action"), &["Restart"]);
        if rule.get("exitCodes").is_none_or(Value::is_null) {
            problems.push(FieldError::required(format!("{path}.exitCodes"), "must be specified"));
            continue;
        }
        one_of(problems, &format!("{path}.exitCodes.operator"), text(rule, "/exitCodes/operator"), &["In", "NotIn"]);
        let field = format!("{path}.exitCodes.values");
        match list(rule, "/exitCodes/values").len() {
            0 => problems.push(FieldError::required(field, "must specify at least one value")),
            1..=MOST_EXIT_CODES => {}
            count => {
                let message = format!("must have at most {MOST_EXIT_CODES} items");
                problems.push(FieldError::invalid(field, count, message));
            }
        }
    }
}

/// One pod cannot have a port of its node twice.
fn check_host_ports(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, container) in list(spec, "/containers").iter().enumerate() {
        for (number, port) in list(container, "/ports").iter().enumerate() {
            let Some(host_port) = port.get("hostPort").and_then(Value::as_i64).filter(|port| *port != 0) else {
                continue;
            };
            let place = format!("{}/{}/{host_port}", text(port, "/protocol"), text(port, "/hostIP"));
            if !seen.insert(place.clone()) {
                problems.push(FieldError::duplicate(
                    format!("{path}.containers[{index}].ports[{number}].hostPort"),
                    place.as_str(),
                ));
            }
        }
    }
}

/// A pod that has its node's network has the node's ports; in a template they may be left to the defaults of the Pod.
pub(super) fn check_host_network(spec: &Value, path: &str, is_pod: bool, problems: &mut Vec<FieldError>) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    let number = |port: &Value, field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
    for (index, container) in list(spec, "/containers").iter().enumerate() {
        for (at, port) in list(container, "/ports").iter().enumerate() {
            let (of_node, own) = (number(port, "hostPort"), number(port, "containerPort"));
            if (is_pod || of_node != 0) && of_node != own {
                let field = format!("{path}.containers[{index}].ports[{at}].hostPort");
                let message = "must match `containerPort` when `hostNetwork` is true";
                problems.push(FieldError::invalid(field, of_node, message));
            }
        }
    }
}

fn check_ports(container: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, item) in list(container, "/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(name) = item.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            invalid(problems, &format!("{path}.name"), name, names::port_name(name));
            if !seen.insert(name) {
                problems.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        if item.get("containerPort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            problems.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            port(problems, &format!("{path}.containerPort"), item.get("containerPort"));
        }
        port(problems, &format!("{path}.hostPort"), item.get("hostPort").filter(|port| port.as_i64() != Some(0)));
        one_of(problems, &format!("{path}.protocol"), text(item, "/protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn check_mounts(container: &Value, path: &str, volumes: &BTreeSet<&str>, problems: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        match text(mount, "/name") {
            "" => problems.push(FieldError::required(format!("{path}.name"), "")),
            name if !volumes.contains(name) => problems.push(FieldError::not_found(format!("{path}.name"), name)),
            _ => {}
        }
        match text(mount, "/mountPath") {
            "" => problems.push(FieldError::required(format!("{path}.mountPath"), "")),
            target if !paths.insert(target) => {
                problems.push(FieldError::invalid(format!("{path}.mountPath"), target, "must be unique"))
            }
            _ => {}
        }
        if text(mount, "/subPath").split('/').any(|part| part == "..") {
            problems.push(FieldError::invalid(
                format!("{path}.subPath"),
                text(mount, "/subPath"),
                "must not contain '..'",
            ));
        }
        check_propagation(mount, &path, container, problems);
    }
}

/// Mounts come back from a container only where it has the machine's privileges, as in Kubernetes.
fn check_propagation(mount: &Value, path: &str, container: &Value, problems: &mut Vec<FieldError>) {
    let field = format!("{path}.mountPropagation");
    let propagation = text(mount, "/mountPropagation");
    if !propagation.is_empty() {
        one_of(problems, &field, propagation, &["Bidirectional", "HostToContainer", "None"]);
    }
    let is_privileged = container.pointer("/securityContext/privileged") == Some(&Value::Bool(true));
    if propagation == "Bidirectional" && !is_privileged {
        problems.push(FieldError::forbidden(
            field,
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
    let recursive = text(mount, "/recursiveReadOnly");
    if !recursive.is_empty() {
        let field = format!("{path}.recursiveReadOnly");
        one_of(problems, &field, recursive, &["Disabled", "Enabled", "IfPossible"]);
        if recursive != "Disabled" && mount.get("readOnly") != Some(&Value::Bool(true)) {
            problems.push(FieldError::forbidden(field, "may only be specified when readOnly is true"));
        }
    }
}

/// Of a container, or of a pod as a whole.
pub(super) fn check_resources(container: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let of =
        |field: &str| container.get("resources").and_then(|resources| resources.get(field)).and_then(Value::as_object);
    for field in ["limits", "requests"] {
        for (name, value) in of(field).into_iter().flatten() {
            let field = format!("{path}.resources.{field}[{name}]");
            invalid(problems, &field, name.as_str(), names::qualified_name(name));
            let limit = of("limits")
                .and_then(|limits| limits.get(name))
                .and_then(|limit| crate::quantity::Quantity::from_value(limit).ok());
            if let (Some(value), Some(limit)) = (quantity(problems, &field, value), limit)
                && value > limit
            {
                let message = format!("must be less than or equal to {name} limit of {limit}");
                problems.push(FieldError::invalid(format!("{path}.resources.requests"), value.to_string(), message));
            }
        }
    }
}

fn check_probe(probe: &Value, path: &str, kind: &str, problems: &mut Vec<FieldError>) {
    let ways = ["exec", "httpGet", "tcpSocket", "grpc"];
    match ways.iter().filter(|way| probe.get(**way).is_some()).count() {
        0 => problems.push(FieldError::required(path, "must specify a handler type")),
        1 => {}
        _ => problems.push(FieldError::forbidden(path, "may not specify more than 1 handler type")),
    }
    for way in ["httpGet", "tcpSocket"] {
        if let Some(target) = probe.get(way) {
            let field = format!("{path}.{way}.port");
            match target.get("port") {
                None | Some(Value::Null) => problems.push(FieldError::required(field, "")),
                value => port_or_name(problems, &field, value),
            }
        }
    }
    if probe.get("httpGet").is_some() {
        one_of(problems, &format!("{path}.httpGet.scheme"), text(probe, "/httpGet/scheme"), &["HTTP", "HTTPS"]);
    }
    non_negative(problems, &format!("{path}.initialDelaySeconds"), probe.get("initialDelaySeconds"));
    for field in ["timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        at_least(problems, &format!("{path}.{field}"), probe.get(field), 1);
    }
    if kind != "readinessProbe"
        && let Some(threshold) =
            probe.get("successThreshold").and_then(Value::as_i64).filter(|threshold| *threshold > 1)
    {
        problems.push(FieldError::invalid(format!("{path}.successThreshold"), threshold, "must be 1"));
    }
}

fn check_tolerations(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    for (index, toleration) in list(spec, "/tolerations").iter().enumerate() {
        let path = format!("{path}.tolerations[{index}]");
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if !key.is_empty() {
            invalid(problems, &format!("{path}.key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            problems.push(FieldError::invalid(
                format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if !matches!(operator, "" | "Equal" | "Exists") {
            problems.push(FieldError::not_supported(format!("{path}.operator"), operator, &["Equal", "Exists"]));
        }
        if operator == "Exists" && !text(toleration, "/value").is_empty() {
            problems.push(FieldError::invalid(
                format!("{path}.operator"),
                toleration.clone(),
                "value must be empty when `operator` is 'Exists'",
            ));
        }
        if !matches!(text(toleration, "/effect"), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            problems.push(FieldError::not_supported(
                format!("{path}.effect"),
                text(toleration, "/effect"),
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            ));
        }
    }
}

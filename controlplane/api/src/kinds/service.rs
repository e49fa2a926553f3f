//! Service: a name and an address for the pods that a selector means.
//!
//! Cluster addresses and node ports are given by the API server, which sees what is taken.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{proxy, status};
use crate::metadata::member_mut;
use crate::resource::{Resource, SelectableField, Strategy, keep};
use crate::table::cells::{AGE, NAME, column, integer, labels, list, or_none, text, wide};
use crate::validation::{FieldError, NameRule, invalid, label_map, names, one_of, port, port_or_name};

pub(super) const ROW: Resource = Resource {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[proxy("ServiceProxyOptions"), status("", "Service")],
    schema: "io.k8s.api.core.v1.Service",
    storage: "core/services",
    create_on_update: true,
    columns: &[
        NAME,
        column("Type", "How it is reached.", |object, _| text(object, "/spec/type").into()),
        column("Cluster-IP", "Its address in the cluster.", |object, _| {
            or_none(text(object, "/spec/clusterIP")).into()
        }),
        column("External-IP", "Its address outside.", |object, _| external(object).into()),
        column("Port(s)", "Its ports, with those on the nodes.", |object, _| ports(object).into()),
        AGE,
        wide("Selector", "Which pods answer.", |object, _| labels(object.pointer("/spec/selector")).into()),
    ],
    selectable_fields: &[
        SelectableField { name: "spec.clusterIP", value: |object| text(object, "/spec/clusterIP").to_owned() },
        SelectableField { name: "spec.type", value: |object| text(object, "/spec/type").to_owned() },
    ],
    strategy: &Service,
    ..Resource::BASE
};

fn external(object: &Value) -> String {
    let given: Vec<&str> = list(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    let balanced = list(object, "/status/loadBalancer/ingress").iter().map(|ingress| match text(ingress, "/ip") {
        "" => text(ingress, "/hostname"),
        address => address,
    });
    match text(object, "/spec/type") {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let all: Vec<&str> = balanced.chain(given).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => or_none(&given.join(",")).to_owned(),
    }
}

fn ports(object: &Value) -> String {
    let texts = list(object, "/spec/ports").iter().map(|item| match integer(item, "/nodePort") {
        0 => format!("{}/{}", integer(item, "/port"), text(item, "/protocol")),
        node => format!("{}:{node}/{}", integer(item, "/port"), text(item, "/protocol")),
    });
    or_none(&texts.collect::<Vec<_>>().join(",")).to_owned()
}

struct Service;

impl Strategy for Service {
    fn names(&self) -> NameRule {
        NameRule::Label1035
    }

    fn default(&self, object: &mut Value) {
        let spec = member_mut(object, "spec");
        for (field, value) in [("type", "ClusterIP"), ("sessionAffinity", "None")] {
            if spec.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                spec.insert(field.to_owned(), value.into());
            }
        }
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
            spec.entry("sessionAffinityConfig").or_insert_with(|| json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            spec.entry("externalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        if kind == "LoadBalancer" {
            spec.entry("allocateLoadBalancerNodePorts").or_insert_with(|| true.into());
        }
        if kind != "ExternalName" {
            spec.entry("internalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        for item in
            spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            item.entry("protocol").or_insert_with(|| "TCP".into());
            let missing = item
                .get("targetPort")
                .is_none_or(|target| target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some(""));
            if let Some(port) = item.get("port").cloned().filter(|_| missing) {
                item.insert("targetPort".to_owned(), port);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    /// A client that does not say the address keeps the one that it was given; a change of type drops what was the old
    /// type's.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let (kind, old_kind) = (text(new, "/spec/type").to_owned(), text(old, "/spec/type"));
        let spec = member_mut(new, "spec");
        if kind != "ExternalName" && old_kind != "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if let Some(value) = old
                    .pointer(&format!("/spec/{field}"))
                    .filter(|_| spec.get(field).is_none_or(|value| value.as_str() == Some("")))
                {
                    spec.insert(field.to_owned(), value.clone());
                }
            }
        }
        if matches!(kind.as_str(), "ClusterIP" | "ExternalName" | "") && matches!(old_kind, "NodePort" | "LoadBalancer")
        {
            for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"] {
                spec.remove(field);
            }
        }
    }

    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let kind = text(spec, "/type");
        one_of(problems, "spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
        one_of(problems, "spec.sessionAffinity", text(spec, "/sessionAffinity"), &["ClientIP", "None"]);
        label_map(problems, "spec.selector", spec.get("selector").and_then(Value::as_object));
        let headless = text(spec, "/clusterIP") == "None";
        if kind == "ExternalName" {
            let name = text(spec, "/externalName");
            if name.is_empty() {
                problems.push(FieldError::required("spec.externalName", ""));
            } else {
                invalid(problems, "spec.externalName", name, names::dns_subdomain(name.trim_end_matches('.')));
            }
        } else if list(spec, "/ports").is_empty() && !headless {
            problems.push(FieldError::required("spec.ports", ""));
        }
        if headless && matches!(kind, "NodePort" | "LoadBalancer") {
            problems.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        check_ports(list(spec, "/ports"), problems);
    }

    fn check_change(&self, new: &Value, old: &Value, problems: &mut Vec<FieldError>) {
        let address = |object: &Value| text(object, "/spec/clusterIP").to_owned();
        let named = [new, old].iter().any(|object| text(object, "/spec/type") == "ExternalName");
        if !named && !address(old).is_empty() && address(new) != address(old) {
            problems.push(FieldError::invalid("spec.clusterIPs[0]", address(new), "may not change once set"));
        }
    }
}

fn check_ports(ports: &[Value], problems: &mut Vec<FieldError>) {
    let (mut seen_names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, item) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        match text(item, "/name") {
            "" if ports.len() > 1 => problems.push(FieldError::required(format!("{path}.name"), "")),
            "" => {}
            name => {
                invalid(problems, &format!("{path}.name"), name, names::dns_label(name));
                if !seen_names.insert(name) {
                    problems.push(FieldError::duplicate(format!("{path}.name"), name));
                }
            }
        }
        port(problems, &format!("{path}.port"), Some(item.get("port").unwrap_or(&json!(0))));
        port_or_name(problems, &format!("{path}.targetPort"), item.get("targetPort"));
        one_of(problems, &format!("{path}.protocol"), text(item, "/protocol"), &["SCTP", "TCP", "UDP"]);
        if !seen.insert((integer(item, "/port"), text(item, "/protocol"))) {
            problems.push(FieldError::duplicate(path, json!({"port": item["port"], "protocol": item["protocol"]})));
        }
    }
}

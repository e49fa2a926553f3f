//! What a pod as a whole asks for and may use (`spec.resources`), beside what its containers do.

use serde_json::{Map, Value, json};

use super::pod_spec_checks;
use crate::quantity::Quantity;
use crate::table::cells::{list, text};
use crate::validation::FieldError;

/// The resources that a pod as a whole can name.
const SUPPORTED: [&str; 2] = ["cpu", "memory"];

/// In a Pod itself (not in a template), what it does not request is what its containers request together, else what it is limited to.
pub(super) fn request(spec: &mut Map<String, Value>) {
    if !spec.get("resources").is_some_and(Value::is_object) {
        return;
    }
    let whole = Value::Object(spec.clone());
    let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) else { return };
    for name in SUPPORTED {
        let requested = together(&whole, name).map(|quantity| quantity.to_string().into());
        let limited = || whole.pointer(&format!("/resources/limits/{name}")).cloned();
        if let Some(amount) = requested.or_else(limited)
            && let Some(requests) = resources.entry("requests").or_insert_with(|| json!({})).as_object_mut()
        {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// Appends what is wrong with the resources of the pod spec at `path`.
pub(super) fn check(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    if spec.get("resources").is_none_or(Value::is_null) {
        return;
    }
    pod_spec_checks::check_resources(spec, path, problems);
    if !list(spec, "/resources/claims").is_empty() {
        let message = "a pod as a whole has no claims; they are its containers'";
        problems.push(FieldError::forbidden(format!("{path}.resources.claims"), message));
    }
    for bound in ["limits", "requests"] {
        let names = spec.pointer(&format!("/resources/{bound}")).and_then(Value::as_object);
        for name in names.into_iter().flat_map(Map::keys).filter(|name| !SUPPORTED.contains(&name.as_str())) {
            let field = format!("{path}.resources.{bound}[{name}]");
            problems.push(FieldError::not_supported(field, name.as_str(), &SUPPORTED));
        }
    }
    for name in SUPPORTED {
        check_sum(spec, path, name, problems);
        check_containers(spec, path, name, problems);
    }
}

/// Its request is at least what its containers request.
fn check_sum(spec: &Value, path: &str, name: &str, problems: &mut Vec<FieldError>) {
    let own = amount(spec, "requests", name).or_else(|| amount(spec, "limits", name));
    if let (Some(own), Some(sum)) = (own, together(spec, name))
        && own < sum
    {
        let message = format!("must be greater than or equal to aggregate container requests of {sum}");
        problems.push(FieldError::invalid(format!("{path}.resources.requests[{name}]"), own.to_string(), message));
    }
}

/// No container may use more than the pod.
fn check_containers(spec: &Value, path: &str, name: &str, problems: &mut Vec<FieldError>) {
    let Some(most) = amount(spec, "limits", name) else { return };
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            if let Some(limit) = amount(container, "limits", name).filter(|limit| *limit > most) {
                let field = format!("{path}.{field}[{index}].resources.limits[{name}]");
                let message = format!("must be less than or equal to pod limits of {most}");
                problems.push(FieldError::invalid(field, limit.to_string(), message));
            }
        }
    }
}

/// How firmly its resources are promised.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let has_own =
        ["limits", "requests"].iter().any(|bound| SUPPORTED.iter().any(|name| amount(spec, bound, name).is_some()));
    let all: Vec<&Value> = match has_own {
        true => vec![spec],
        false => list(spec, "/containers").iter().chain(list(spec, "/initContainers")).collect(),
    };
    let (mut any, mut guaranteed) = (false, true);
    for one in all {
        for name in SUPPORTED {
            let (limit, request) = (amount(one, "limits", name), amount(one, "requests", name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What stands in the `resources` of a container or of a pod spec; what cannot be read is told elsewhere.
fn amount(holder: &Value, bound: &str, name: &str) -> Option<Quantity> {
    Quantity::from_value(holder.get("resources")?.get(bound)?.get(name)?).ok()
}

/// What the containers request that run at the same time, at least what a container requests that runs before them.
fn together(spec: &Value, name: &str) -> Option<Quantity> {
    let requested =
        |container: &Value| amount(container, "requests", name).or_else(|| amount(container, "limits", name));
    let is_sidecar = |container: &&Value| text(container, "/restartPolicy") == "Always";
    let (sidecars, first): (Vec<&Value>, Vec<&Value>) = list(spec, "/initContainers").iter().partition(is_sidecar);
    let running = list(spec, "/containers").iter().chain(sidecars);
    let running = running.filter_map(requested).reduce(Quantity::plus);
    first.into_iter().filter_map(requested).chain(running).reduce(Ord::max)
}

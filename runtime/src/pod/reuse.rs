//! Whether a function's instances answer more than one request: two annotations of the pod.

use k8s_openapi::api::core::v1::Pod;
use shoal_engine::Reuse;

/// How many instances wait for requests: it allows the reuse.
const INSTANCES: &str = "shoal.dev/reuse-instances";
/// How many requests one instance answers.
const REQUESTS: &str = "shoal.dev/reuse-requests";

/// The most instances of one function.
const MOST_INSTANCES: usize = 256;
/// How many requests an instance answers when the pod does not say.
const DEFAULT_REQUESTS: u32 = 1_000;

/// What the annotations allow.
///
/// # Errors
/// The field that is wrong, and what it may be.
pub fn of(pod: &Pod) -> Result<Option<Reuse>, (String, &'static str)> {
    let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name).map(String::as_str);
    let wrong = |name: &str, why| Err((format!("metadata.annotations[{name}]"), why));
    let requests = match annotation(REQUESTS).map(str::parse::<u32>) {
        None => DEFAULT_REQUESTS,
        Some(Ok(requests @ 1..)) => requests,
        Some(_) => return wrong(REQUESTS, "must be a number from 1 up"),
    };
    match annotation(INSTANCES).map(str::parse::<usize>) {
        None if annotation(REQUESTS).is_some() => wrong(REQUESTS, "needs shoal.dev/reuse-instances beside it"),
        None => Ok(None),
        Some(Ok(instances @ 1..=MOST_INSTANCES)) => Ok(Some(Reuse { instances, requests })),
        Some(_) => wrong(INSTANCES, "must be a number from 1 to 256"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reuse(annotations: &serde_json::Value) -> Result<Option<Reuse>, (String, &'static str)> {
        let pod = serde_json::from_value(json!({"metadata": {"annotations": annotations}})).expect("a pod");
        of(&pod)
    }

    #[test]
    fn without_the_annotation_each_request_has_its_own_instance() {
        assert_eq!(reuse(&json!({})), Ok(None));
    }

    #[test]
    fn the_annotations_say_how_many_and_how_often() {
        let allowed = reuse(&json!({INSTANCES: "8", REQUESTS: "50"}));
        assert_eq!(allowed, Ok(Some(Reuse { instances: 8, requests: 50 })));
        let allowed = reuse(&json!({INSTANCES: "1"}));
        assert_eq!(allowed, Ok(Some(Reuse { instances: 1, requests: DEFAULT_REQUESTS })));
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (annotations, field) in [
            (json!({INSTANCES: "many"}), INSTANCES),
            (json!({INSTANCES: "0"}), INSTANCES),
            (json!({INSTANCES: "257"}), INSTANCES),
            (json!({INSTANCES: "8", REQUESTS: "0"}), REQUESTS),
            (json!({REQUESTS: "5"}), REQUESTS),
        ] {
            let refused = reuse(&annotations).map_err(|(named, _)| named);
            assert_eq!(refused, Err(format!("metadata.annotations[{field}]")));
        }
    }
}

//! How a function works, where its pod's annotations say so: how many requests at once, for how long, and whether an instance
//! answers more than one. Pure.

use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shoal_engine::Reuse;

/// How many instances wait for requests: it allows the reuse.
const INSTANCES: &str = "shoal.dev/reuse-instances";
/// How many requests one instance answers.
const REQUESTS: &str = "shoal.dev/reuse-requests";
/// How many of them one works on at once, where it can.
pub const REUSE_CONCURRENCY: &str = "shoal.dev/reuse-concurrency";
/// How many requests the function works on at once; as many again wait.
const CONCURRENCY: &str = "shoal.dev/concurrency";
/// How long it may work on one, as `30s` or `1m30s`.
const REQUEST_TIMEOUT: &str = "shoal.dev/request-timeout";

/// The most instances that wait for one function.
const MOST_INSTANCES: usize = 256;
/// The most requests at once in one instance.
const MOST_REUSE_CONCURRENCY: usize = 1_000;
/// How many requests an instance answers when the pod does not say.
const DEFAULT_REQUESTS: u32 = 1_000;
/// The most requests that a function works on at once.
const MOST_CONCURRENCY: usize = 10_000;
/// The longest time for a request.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// How a function works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Whether its instances are reused.
    pub reuse: Option<Reuse>,
    /// How many requests it works on at once.
    pub concurrency: usize,
    /// How long it may work on one.
    pub request_timeout: Duration,
}

impl Default for FunctionSettings {
    fn default() -> Self {
        Self { reuse: None, concurrency: 128, request_timeout: Duration::from_secs(60) }
    }
}

/// A field that is wrong, and what it may be.
type Wrong = (String, &'static str);

impl FunctionSettings {
    /// What the annotations say.
    ///
    /// # Errors
    /// The field that is wrong, and what it may be.
    pub fn of(pod: &Pod) -> Result<FunctionSettings, Wrong> {
        let default = FunctionSettings::default();
        let concurrency =
            number(pod, CONCURRENCY, |n| (1..=MOST_CONCURRENCY).contains(n), "must be a number from 1 to 10000")?;
        let timeout = annotation(pod, REQUEST_TIMEOUT).map(duration);
        let request_timeout = match timeout {
            None => default.request_timeout,
            Some(Some(timeout)) if !timeout.is_zero() && timeout <= LONGEST_TIMEOUT => timeout,
            Some(_) => return Err(wrong(REQUEST_TIMEOUT, "must be a duration such as 30s or 1m30s, of 24h at most")),
        };
        Ok(FunctionSettings {
            reuse: reuse(pod)?,
            concurrency: concurrency.unwrap_or(default.concurrency),
            request_timeout,
        })
    }
}

fn reuse(pod: &Pod) -> Result<Option<Reuse>, Wrong> {
    let requests = number(pod, REQUESTS, |requests| *requests > 0, "must be a number from 1 up")?;
    let within = |most| move |number: &usize| (1..=most).contains(number);
    let concurrency =
        number(pod, REUSE_CONCURRENCY, within(MOST_REUSE_CONCURRENCY), "must be a number from 1 to 1000")?;
    let instances = number(pod, INSTANCES, within(MOST_INSTANCES), "must be a number from 1 to 256")?;
    let needs_instances = |name| Err(wrong(name, "needs shoal.dev/reuse-instances beside it"));
    match instances {
        None if requests.is_some() => needs_instances(REQUESTS),
        None if concurrency.is_some() => needs_instances(REUSE_CONCURRENCY),
        None => Ok(None),
        Some(instances) => Ok(Some(Reuse {
            instances,
            requests: requests.unwrap_or(DEFAULT_REQUESTS),
            concurrency: concurrency.unwrap_or(1),
        })),
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The number that an annotation holds, if it is there.
fn number<T: FromStr>(
    pod: &Pod,
    name: &str,
    is_allowed: impl Fn(&T) -> bool,
    why: &'static str,
) -> Result<Option<T>, Wrong> {
    match annotation(pod, name).map(str::parse::<T>) {
        None => Ok(None),
        Some(Ok(number)) if is_allowed(&number) => Ok(Some(number)),
        Some(_) => Err(wrong(name, why)),
    }
}

fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

fn wrong(name: &str, why: &'static str) -> Wrong {
    (format!("metadata.annotations[{name}]"), why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(annotations: &serde_json::Value) -> Result<FunctionSettings, Wrong> {
        let pod = serde_json::from_value(json!({"metadata": {"annotations": annotations}})).expect("a pod");
        FunctionSettings::of(&pod)
    }

    #[test]
    fn without_an_annotation_each_request_has_its_own_instance() {
        assert_eq!(settings(&json!({})), Ok(FunctionSettings::default()));
    }

    #[test]
    fn the_annotations_say_how_many_how_often_and_how_long() {
        let reuse = |annotations| settings(&annotations).map(|settings| settings.reuse);
        let allowed = reuse(json!({INSTANCES: "8", REQUESTS: "50", REUSE_CONCURRENCY: "4"}));
        assert_eq!(allowed, Ok(Some(Reuse { instances: 8, requests: 50, concurrency: 4 })));
        let allowed = reuse(json!({INSTANCES: "1"}));
        assert_eq!(allowed, Ok(Some(Reuse { instances: 1, requests: DEFAULT_REQUESTS, concurrency: 1 })));
        let asked = settings(&json!({CONCURRENCY: "1", REQUEST_TIMEOUT: "1m30s"}));
        let expected = FunctionSettings { concurrency: 1, request_timeout: Duration::from_secs(90), reuse: None };
        assert_eq!(asked, Ok(expected));
        assert!(settings(&json!({REQUEST_TIMEOUT: "250ms"})).is_ok());
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (annotations, field) in [
            (json!({INSTANCES: "many"}), INSTANCES),
            (json!({INSTANCES: "0"}), INSTANCES),
            (json!({INSTANCES: "257"}), INSTANCES),
            (json!({INSTANCES: "8", REQUESTS: "0"}), REQUESTS),
            (json!({REQUESTS: "5"}), REQUESTS),
            (json!({INSTANCES: "8", REUSE_CONCURRENCY: "0"}), REUSE_CONCURRENCY),
            (json!({INSTANCES: "8", REUSE_CONCURRENCY: "1001"}), REUSE_CONCURRENCY),
            (json!({INSTANCES: "8", REUSE_CONCURRENCY: "all"}), REUSE_CONCURRENCY),
            (json!({REUSE_CONCURRENCY: "5"}), REUSE_CONCURRENCY),
            (json!({CONCURRENCY: "0"}), CONCURRENCY),
            (json!({CONCURRENCY: "10001"}), CONCURRENCY),
            (json!({REQUEST_TIMEOUT: "soon"}), REQUEST_TIMEOUT),
            (json!({REQUEST_TIMEOUT: "0s"}), REQUEST_TIMEOUT),
            (json!({REQUEST_TIMEOUT: "-1s"}), REQUEST_TIMEOUT),
            (json!({REQUEST_TIMEOUT: "25h"}), REQUEST_TIMEOUT),
        ] {
            let refused = settings(&annotations).map_err(|(named, _)| named);
            assert_eq!(refused, Err(format!("metadata.annotations[{field}]")));
        }
    }
}

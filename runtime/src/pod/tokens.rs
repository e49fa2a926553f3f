//! The service account tokens that a pod's volumes want, and when they are renewed. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use serde::{Deserialize, Serialize};

/// How long a token lasts for which nothing says so (Kubernetes: `expirationSeconds`).
const DEFAULT_SECONDS: i64 = 3_600;
/// A token is renewed after this part of its life, in hundredths, as the kubelet does.
const RENEWED_AFTER: i64 = 80;
/// At the latest after this time, however long it lasts.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wanted {
    /// Whom the token is shown to; empty for the API.
    pub audience: String,
    /// How long it lasts.
    pub seconds: i64,
}

impl Wanted {
    /// What a projection asks for.
    pub fn of(source: &ServiceAccountTokenProjection) -> Wanted {
        Wanted {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
        }
    }
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it was asked for as.
    pub wanted: Wanted,
    /// The token itself.
    pub text: String,
    /// From when it is good.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Token {
    /// When it is to be renewed.
    pub fn renew_at(&self) -> Timestamp {
        let part = SignedDuration::from_secs(self.until.duration_since(self.from).as_secs() * RENEWED_AFTER / 100);
        self.from.saturating_add(part.min(OLDEST)).unwrap_or(self.until)
    }
}

/// The tokens that the pod's volumes want.
pub fn wanted(pod: &Pod) -> BTreeSet<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.flat_map(|volume| volume.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    sources.filter_map(|source| source.service_account_token.as_ref()).map(Wanted::of).collect()
}

/// The account that the pod runs as.
pub fn account(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_renewed_before_it_ends_and_once_a_day() {
        let from = Timestamp::from_second(1_800_000_000).expect("a time");
        let after = |seconds: i64| {
            let wanted = Wanted { audience: String::new(), seconds };
            let token = Token { wanted, text: "t".into(), from, until: from + SignedDuration::from_secs(seconds) };
            token.renew_at().duration_since(from).as_secs()
        };
        assert_eq!(after(600), 480);
        assert_eq!(after(3_600), 2_880);
        assert_eq!(after(1 << 32), 86_400);
    }

    #[test]
    fn equal_wishes_share_a_token() {
        let token = |path: &str, audience: &str| json!({"serviceAccountToken": {"path": path, "audience": audience}});
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "serviceAccountName": "cart", "volumes": [
            {"name": "a", "projected": {"sources": [token("t", ""), token("u", "vault")]}},
            {"name": "b", "projected": {"sources": [token("v", "vault")]}}]}}))
            .expect("a pod");
        let audiences: Vec<String> = wanted(&pod).into_iter().map(|wanted| wanted.audience).collect();
        assert_eq!(audiences, ["", "vault"]);
        assert_eq!(account(&pod), "cart");
        assert_eq!(account(&Pod::default()), "default");
    }
}

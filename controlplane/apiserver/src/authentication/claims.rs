//! The claims of a service-account token, made and checked.
//!
//! A token is good while its time lasts *and* its service account (and the pod that it is bound to, if any) still
//! exists with the uid that the token names: deleting either revokes it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_api::metadata;
use shoal_store::View;

use super::user::User;
use crate::{keys, stored};

/// The issuer and the default audience of our tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    pub uid: String,
}

/// Why a token is not accepted; for the log and for `TokenReview`, never with the token in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the token is not one of this cluster's")]
    Foreign,
    #[error("service account token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token is for another audience")]
    Audience,
    #[error("the object that the token is bound to is gone")]
    Unbound,
}

impl Claims {
    /// Checks time, issuer and audience; `audiences` empty means the API server's own.
    pub(crate) fn check(&self, now: Timestamp, audiences: &[String]) -> Result<(), Refused> {
        if self.iss != ISSUER {
            return Err(Refused::Foreign);
        }
        if now.as_second() >= self.exp {
            return Err(Refused::Expired);
        }
        if now.as_second() < self.nbf {
            return Err(Refused::Early);
        }
        let wanted =
            |audience: &String| if audiences.is_empty() { audience == ISSUER } else { audiences.contains(audience) };
        if self.aud.iter().any(wanted) { Ok(()) } else { Err(Refused::Audience) }
    }

    /// Checks that what the token is bound to lives, in this view of the store.
    pub(crate) fn check_bound(&self, view: &View) -> Result<(), Refused> {
        let account = &self.kubernetes.serviceaccount;
        let namespace = &self.kubernetes.namespace;
        if !lives(view, &keys::object("core/serviceaccounts", Some(namespace), &account.name), &account.uid) {
            return Err(Refused::Unbound);
        }
        match &self.kubernetes.pod {
            Some(pod) if !lives(view, &keys::object("core/pods", Some(namespace), &pod.name), &pod.uid) => {
                Err(Refused::Unbound)
            }
            _ => Ok(()),
        }
    }

    /// The user that the token stands for.
    pub(crate) fn user(&self) -> User {
        let mut user = User::service_account(&self.kubernetes.namespace, &self.kubernetes.serviceaccount.name);
        user.uid.clone_from(&self.kubernetes.serviceaccount.uid);
        let mut extra =
            |key: &str, value: String| user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        extra("credential-id", format!("JTI={}", self.jti));
        if let Some(pod) = &self.kubernetes.pod {
            extra("pod-name", pod.name.clone());
            extra("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &self.kubernetes.node {
            extra("node-name", node.name.clone());
            extra("node-uid", node.uid.clone());
        }
        user
    }
}

fn lives(view: &View, key: &str, uid: &str) -> bool {
    view.get(key)
        .and_then(|entry| stored::decode(&entry.value, entry.modified).ok())
        .is_some_and(|object| metadata::uid(&object) == Some(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let account = Reference { name: "default".to_owned(), uid: "1".to_owned() };
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: 200,
            iat: 100,
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            kubernetes: Bound { namespace: "web".to_owned(), serviceaccount: account, pod: None, node: None },
            nbf: 100,
            sub: "system:serviceaccount:web:default".to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number")
    }

    #[test]
    fn a_token_is_good_for_its_time_and_audience_only() {
        assert_eq!(claims().check(at(150), &[]), Ok(()));
        assert_eq!(claims().check(at(200), &[]), Err(Refused::Expired));
        assert_eq!(claims().check(at(99), &[]), Err(Refused::Early));
        assert_eq!(claims().check(at(150), &["vault".to_owned()]), Err(Refused::Audience));
    }
}

//! The service account tokens of this node's pods: asked for with the API's TokenRequest, bound to the pod, kept on disk for a
//! start without a control plane.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use shoal_client::Client;

use crate::keeper::Keeper;
use crate::limits::TOKEN_RETRY;
use crate::local_store::LocalStore;
use crate::pod::spec;
use crate::pod::tokens::{Token, Wanted, account, wanted};

/// The collection of the local store that holds the tokens of each pod, by uid.
const COLLECTION: &str = "tokens";

/// All tokens of this node.
pub struct TokenHub {
    client: Client,
    store: LocalStore,
    keeper: Arc<Keeper>,
    known: Mutex<BTreeMap<String, Vec<Token>>>,
}

impl TokenHub {
    /// Nothing is known yet.
    pub fn new(client: Client, store: LocalStore, keeper: Arc<Keeper>) -> TokenHub {
        TokenHub { client, store, keeper, known: Mutex::default() }
    }

    /// The tokens that the pod's volumes want: those that are known while they are fresh, else new ones; an old one where no
    /// new one is to be had, as long as it is good.
    ///
    /// # Errors
    /// A sentence: the API gives no token.
    pub async fn fetch(&self, pod: &Pod) -> Result<Vec<Token>, String> {
        let wishes = wanted(pod);
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.known(spec::uid(pod)).await;
        let mut tokens = Vec::new();
        for wish in wishes {
            let now = Timestamp::now();
            let old = before.iter().find(|token| token.wanted == wish && now < token.until);
            tokens.push(match old.filter(|token| now < token.renew_at()) {
                Some(fresh) => fresh.clone(),
                None => match self.request(pod, wish).await {
                    Ok(token) => token,
                    Err(error) => old.cloned().ok_or_else(|| format!("failed to fetch token: {error}"))?,
                },
            });
        }
        if tokens != before {
            self.keeper.keep(COLLECTION, spec::uid(pod), &tokens);
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(spec::uid(pod).to_owned(), tokens.clone());
        }
        Ok(tokens)
    }

    async fn known(&self, uid: &str) -> Vec<Token> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        if let Some(known) = known {
            return known;
        }
        let (store, uid) = (self.store.clone(), uid.to_owned());
        let kept = tokio::task::spawn_blocking(move || store.load(COLLECTION, &uid)).await;
        kept.ok().flatten().unwrap_or_default()
    }

    async fn request(&self, pod: &Pod, wish: Wanted) -> Result<Token, String> {
        let from = Timestamp::now();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Some(wish.audience.clone()).filter(|audience| !audience.is_empty()).into_iter().collect(),
                expiration_seconds: Some(wish.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(spec::name(pod).to_owned()),
                    uid: Some(spec::uid(pod).to_owned()),
                }),
            },
            ..TokenRequest::default()
        };
        let (namespace, account) = (spec::namespace(pod), account(pod));
        let issued =
            self.client.post_subresource::<ServiceAccount, _, TokenRequest>(namespace, account, "token", &request);
        let issued = issued.await.map_err(|error| error.to_string())?;
        let status = issued.status.ok_or("the API issued none")?;
        Ok(Token { wanted: wish, text: status.token, from, until: status.expiration_timestamp.0 })
    }

    /// The pod needs none any more.
    pub fn forget(&self, pod: &Pod) {
        if !wanted(pod).is_empty() {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(spec::uid(pod));
            self.keeper.forget(COLLECTION, spec::uid(pod));
        }
    }
}

/// When the first of the tokens is to be renewed; one that should have been, and could not, is tried again soon.
pub fn renew_at(tokens: &[Token], now: Timestamp) -> Option<Timestamp> {
    let soon = now.saturating_add(SignedDuration::try_from(TOKEN_RETRY).unwrap_or_default()).unwrap_or(now);
    tokens.iter().map(|token| if token.renew_at() > now { token.renew_at() } else { soon }).min()
}

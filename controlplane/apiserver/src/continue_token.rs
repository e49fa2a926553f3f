//! The opaque token that a limited list returns: the revision of the first page and the last key of this one.
//!
//! `{"v":1,"rv":17,"after":"web/front"}` in URL-safe base64. A token without a revision continues "inconsistently": at
//! whatever is current, which is what a client gets along with the 410 for a token that is too old.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use shoal_api::Status;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContinueToken {
    v: u8,
    /// The revision of the first page; none means the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rv: Option<u64>,
    /// The key behind the list's prefix after which this page begins.
    pub after: String,
}

impl ContinueToken {
    pub(crate) fn new(rv: Option<u64>, after: String) -> Self {
        Self { v: 1, rv, after }
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a struct of plain fields is JSON"))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// 400 when it was not made here.
    pub(crate) fn decode(text: &str) -> Result<Self, Status> {
        let invalid = || Status::bad_request("continue key is not valid".to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        if token.v == 1 { Ok(token) } else { Err(invalid()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_rubbish_does_not() {
        let token = ContinueToken::new(Some(17), "web/front".to_owned());
        assert_eq!(ContinueToken::decode(&token.encode()).expect("is ours"), token);
        assert!(ContinueToken::decode("!!").is_err());
        assert!(ContinueToken::decode("e30").is_err());
    }
}

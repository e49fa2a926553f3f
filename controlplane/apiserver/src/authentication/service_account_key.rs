//! The cluster's key for service-account tokens: ES256 JSON web tokens, signed and verified.
//!
//! A token is `base64url(header).base64url(claims).base64url(signature)`; the header names the algorithm and the key,
//! and a token whose header says anything else is refused before its signature is looked at. Claims are in `claims.rs`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A P-256 key that signs service-account tokens. Every server of a cluster must hold the same one.
pub struct ServiceAccountKey {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

/// A service-account key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness.
    #[error("generate a service-account key")]
    Generate,
    /// The text is no PKCS #8 PEM, or the key in it is not P-256.
    #[error("read a service-account key: it is not a P-256 key in PKCS #8 PEM form")]
    Malformed,
}

impl ServiceAccountKey {
    /// Makes a new key and returns it as PKCS #8 PEM text, to be kept (mode 0600) and read with [`Self::from_pem`].
    ///
    /// # Errors
    /// [`KeyError::Generate`] when the system gives no randomness.
    pub fn generate_pem() -> Result<String, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Generate)?;
        let encoded = STANDARD.encode(document.as_ref());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// Reads a key from PKCS #8 PEM text.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the text holds no P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Malformed)?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|_| KeyError::Malformed)?;
        let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(key.public_key().as_ref())[..]);
        Ok(Self { key, id, random })
    }

    /// Signs claims as a compact token; `None` when the system gives no randomness.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let claims = serde_json::to_vec(claims).ok()?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&self.random, token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Some(token)
    }

    /// The claims of a token that this key has signed; `None` for any other text.
    pub(crate) fn verify<C: DeserializeOwned>(&self, token: &str) -> Option<C> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header["alg"] != "ES256" || header["kid"] != self.id.as_str() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// The public key as a JSON web key set, for `/openid/v1/jwks`.
    pub(crate) fn key_set(&self) -> Value {
        // An uncompressed point: 0x04, then 32 bytes of x, then 32 bytes of y.
        let point = self.key.public_key().as_ref();
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]})
    }
}

impl std::fmt::Debug for ServiceAccountKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ServiceAccountKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ServiceAccountKey {
        ServiceAccountKey::from_pem(&ServiceAccountKey::generate_pem().expect("randomness")).expect("just made")
    }

    #[test]
    fn only_the_key_that_signed_a_token_accepts_it() {
        let (ours, foreign) = (key(), key());
        let token = ours.sign(&json!({"sub": "a"})).expect("randomness");
        assert_eq!(ours.verify::<Value>(&token), Some(json!({"sub": "a"})));
        assert_eq!(foreign.verify::<Value>(&token), None);
    }

    #[test]
    fn changed_claims_and_other_algorithms_are_refused() {
        let ours = key();
        let token = ours.sign(&json!({"sub": "a"})).expect("randomness");
        let parts: Vec<&str> = token.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
        assert_eq!(ours.verify::<Value>(&format!("{}.{other}.{}", parts[0], parts[2])), None);
        let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, ours.id));
        assert_eq!(ours.verify::<Value>(&format!("{none}.{}.", parts[1])), None);
        assert_eq!(ours.verify::<Value>("rubbish"), None);
    }
}

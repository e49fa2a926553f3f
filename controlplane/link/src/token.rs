//! Join tokens: a secret for the newcomer to show, and the CA's fingerprint for it to insist on.
//!
//! Worked example: `shoal1.w.5f6c…(64 digits).k3n2ab.9d0e…` says: a worker; the CA's certificate has this sha256; the token's
//! id is `k3n2ab`; the rest is its secret. The cluster keeps only a hash of the secret.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// What the holder of a token may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinRole {
    /// A control-plane server.
    Server,
    /// A worker.
    Worker,
}

/// A token as it is handed to a person.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What it lets its holder become. The cluster decides by its own record, not by this letter.
    pub role: JoinRole,
    /// The sha256 of the CA's certificate in DER, as lower-case hexadecimal digits.
    pub ca_fingerprint: String,
    /// Names the token in lists and logs; no secret.
    pub id: String,
    /// The secret.
    pub secret: String,
}

/// A text that is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: it must look like shoal1.w.<fingerprint>.<id>.<secret>")]
pub struct BadToken;

impl JoinToken {
    /// A new token for a cluster with this CA.
    pub fn create(role: JoinRole, ca: &CertificateDer<'_>) -> Self {
        Self { role, ca_fingerprint: fingerprint(ca), id: random(6), secret: random(32) }
    }

    /// What the cluster keeps of the secret.
    pub fn secret_hash(&self) -> String {
        secret_hash(&self.secret)
    }

    /// Whether `hash`, which the cluster kept, is of this token's secret. How long the comparison takes tells about hashes only.
    pub fn matches(&self, hash: &str) -> bool {
        self.secret_hash() == hash
    }
}

/// What the cluster keeps of a secret.
pub fn secret_hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// The fingerprint by which tokens pin a CA.
pub fn fingerprint(ca: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(ca.as_ref()))
}

fn random(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            JoinRole::Server => 's',
            JoinRole::Worker => 'w',
        };
        write!(formatter, "shoal1.{role}.{}.{}.{}", self.ca_fingerprint, self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JoinToken({}, {:?})", self.id, self.role)
    }
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["shoal1", role, ca_fingerprint, id, secret] = parts.as_slice() else { return Err(BadToken) };
        let role = match *role {
            "s" => JoinRole::Server,
            "w" => JoinRole::Worker,
            _ => return Err(BadToken),
        };
        let is_hex =
            ca_fingerprint.len() == 64 && ca_fingerprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_word =
            |word: &str| !word.is_empty() && word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_hex || !is_word(id) || !is_word(secret) {
            return Err(BadToken);
        }
        Ok(Self {
            role,
            ca_fingerprint: (*ca_fingerprint).to_string(),
            id: (*id).to_string(),
            secret: (*secret).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_hides_its_secret() {
        let token = JoinToken::create(JoinRole::Worker, &CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token.clone()));
        assert!(token.matches(&token.secret_hash()));
        let other = JoinToken::create(JoinRole::Worker, &CertificateDer::from(vec![1, 2, 3]));
        assert!(!other.matches(&token.secret_hash()));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "shoal1", "shoal1.w.abc.id.secret", "shoal2.w.a.b.c", "shoal1.x.a.b.c"] {
            assert_eq!(text.parse::<JoinToken>(), Err(BadToken), "{text}");
        }
    }
}

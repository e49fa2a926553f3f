//! Signatures of images by public keys, in both forms that cosign makes. Transparency logs and certificates are not looked at.
//!
//! `simple_signing` and `bundle` read one form each and are pure; `search` finds them in a registry and says whether one counts; `key`
//! verifies. What counts is a signature over the digest by which the image was resolved: the manifest's, or the index's.

pub(crate) mod bundle;
mod flaw;
mod key;
mod listing;
mod search;
pub(crate) mod simple_signing;

pub(crate) use flaw::Flaw;
pub use key::{Algorithm, PublicKey};
pub use listing::{Signature, listed, signature_tag};
pub(crate) use search::{Search, SearchError};

#[cfg(test)]
fn public(signer: &shoal_tests::signing::Signer) -> PublicKey {
    let algorithm = match signer {
        shoal_tests::signing::Signer::P256(_) => Algorithm::EcdsaP256,
        shoal_tests::signing::Signer::Ed25519(_) => Algorithm::Ed25519,
    };
    PublicKey::new(algorithm, signer.public_bytes().to_vec())
}

/// The key of `keys` by which `signature` is of `message`.
fn signer<'a>(keys: &'a [PublicKey], message: &[u8], signature: &[u8]) -> Option<&'a PublicKey> {
    keys.iter().find(|key| key.verify(message, signature))
}

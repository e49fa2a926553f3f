//! Public keys, and what each verifies.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::blobs::Digest;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, the signature in DER.
    EcdsaP256,
    /// ECDSA on P-384, with SHA-384 or, as cosign long did, SHA-256.
    EcdsaP384,
    /// Ed25519, not prehashed.
    Ed25519,
    /// RSA of 2048 bits or more with PKCS #1 v1.5 and SHA-256.
    Rsa,
}

impl Algorithm {
    fn verifiers(self) -> Vec<&'static dyn VerificationAlgorithm> {
        match self {
            Self::EcdsaP256 => vec![&signature::ECDSA_P256_SHA256_ASN1],
            Self::EcdsaP384 => vec![&signature::ECDSA_P384_SHA384_ASN1, &signature::ECDSA_P384_SHA256_ASN1],
            Self::Ed25519 => vec![&signature::ED25519],
            Self::Rsa => vec![&signature::RSA_PKCS1_2048_8192_SHA256],
        }
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// A key; `bytes` is an uncompressed point, the 32 bytes of Ed25519, or the `RSAPublicKey` of PKCS #1. Others verify nothing.
    pub fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Self {
        Self { algorithm, bytes }
    }

    /// A fingerprint by which it is known again.
    pub fn fingerprint(&self) -> String {
        Digest::of(&[format!("{:?}:", self.algorithm).as_bytes(), &self.bytes].concat()).to_string()
    }

    /// Whether `signature` is this key's, of `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let is_by = |verifier| UnparsedPublicKey::new(verifier, &self.bytes).verify(message, signature).is_ok();
        self.algorithm.verifiers().iter().any(|verifier| is_by(*verifier))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Keys and their signatures of `a message`, made with OpenSSL.
    const MADE: [(Algorithm, &str, &[&str]); 4] = [
        (
            Algorithm::EcdsaP256,
            "044afdc0350feb2ad1224abff29f2a5f07dccfe62243b4b5089f1e8cd4e0a63ca113aed55a9ce5e1de01893d3ea60017a96f2b35b4901da0aa77598542a6c3ba5d",
            &["MEYCIQDuhwwkVtBpzyrhC4gLxH82jxnjlFml4xT4i6LTxS9YGwIhAIfPbs1fwgkAwpteLd5UPuRK7UjX3Y+lXnKyfn1b4nMq"],
        ),
        (
            Algorithm::EcdsaP384,
            "04a213f292970f277a7fd920141e4cbef37c715c3d6172c8fb2b11112f2db28f4b0a3b380f3841d735f19868a3625c1e44c6e741a5422144c972a161bfc4058da1c866c5c40e5805fecf2b2945fe2e4857b0d8b90839458b99ced652a288ffe817",
            &[
                "MGQCMCa5g7skJIIYDuvo/hokD19bn7JQRffzYve+u4QpIoFO1aGCAaFiX8tYAVpzxPuJKAIwZ5x/u7pnCNcxtfdRVQeJCBthV4T7kYETecoNVf7/PPUsWRQswJXxmMYTBa88HeVo",
                "MGQCMCVe1OtxBBl2hGlhFS4eg8/qrQHmeg2IqByPRwHh9RD9++Webgcj9bKJLO1UWiAX3wIwEyIcGYmt42PU8jpDypszEmuhrSrWMFSqDExfqWfyatCfoNr0/u3mCAo2tNRXmhKH",
            ],
        ),
        (
            Algorithm::Ed25519,
            "5e5b0e9b051000c7b871c6512cd689d32dc44c870879dd16b23126c30afa998b",
            &["lO+cWrxo8sMAOM/4EHDrDtU9NOzLTiHSmBN9sWtnIkrL7FXYjH2ipeTQGxU126UpBE0sfnxfp6tJ/+u0CaUQBQ=="],
        ),
        (
            Algorithm::Rsa,
            "3082010a0282010100ba9f166db2cf42d456fede68c68a97ba7f47be3ee7917a3c51699f94d46f802998d206f1059fadb007fa5aa18083866d9010119c61d876d01b265863934ba56e4ac9eb49d1b70af972aa888cf550e735c7c49fc10cbd3b94b8a7a17fc6f73302f6c50e29c615c3e39e0b4e792e33b9cce0293a592330aa57ab5a683f89851749bf43006bdc3d0749ac82132197d4acbd1dd46eb8aa16839059e01b75af023a5933c4620761ba1f2500ccf4f5a320379f7f27d4d0200b61600e6e4ca94e5cfeecd0715f895b3814ee34f45ca821e95327fb63aa48376df40a06a3d839de8aefea29e0b65d564c3ca514dc6a69c4ba23c2c4a352738ec43173c219f4afbdf109e50203010001",
            &[
                "TqNd2p1tFqePqDYCT+F3YYUxZ8OH3QUJhn+Ub8S59o/Z0JMOl2I09n33JdRmR+aDpIxz5mq2mrHQelXKZzABRXZ4DsWH5mydokix6lFYuDddMehCO79C1rcakx/XTd9LNbEpo/sTvavL+8G32nlpip1wfrBp8o/Coq+pbSCmzYK5XpGxTLfASi+0krvoe0V4gkYUEPxtbG//p7FLxKwlHGTfjkTyGj6VG6gjqA1Q6lmOs81GVhnCUota6TPkg1IdKCNTkU1OwnziZ2Y+6Ofov8he2wlhoXz4ZxOtCZXtpSra6JRlvHdbElsUd30/4/eA2CcSa8JJ0i9/vzMqWFiF2g==",
            ],
        ),
    ];

    #[test]
    fn signatures_that_openssl_made_are_verified_by_their_own_key_alone() {
        let keys = MADE.map(|(algorithm, key, _)| PublicKey::new(algorithm, hex::decode(key).expect("a key")));
        for (place, (_, _, signatures)) in MADE.iter().enumerate() {
            for signature in *signatures {
                let signature = STANDARD.decode(signature).expect("a signature");
                for (other, key) in keys.iter().enumerate() {
                    assert_eq!(key.verify(b"a message", &signature), place == other, "{key:?}");
                    assert!(!key.verify(b"a messagf", &signature), "{key:?}");
                }
                assert!(!keys[place].verify(b"a message", &signature[1..]), "{:?}", keys[place]);
            }
        }
        let fingerprints: std::collections::BTreeSet<String> = keys.iter().map(PublicKey::fingerprint).collect();
        assert_eq!(fingerprints.len(), keys.len());
    }

    #[test]
    fn bytes_that_are_no_key_verify_nothing() {
        for (algorithm, _, signatures) in MADE {
            let signature = STANDARD.decode(signatures[0]).expect("a signature");
            for bytes in [Vec::new(), vec![4; 65], vec![0; 32]] {
                assert!(!PublicKey::new(algorithm, bytes).verify(b"a message", &signature));
            }
        }
    }
}

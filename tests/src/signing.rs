//! What `cosign sign --key` pushes, in both of its forms, made by hand so that the tests need no cosign and what verifies is not what signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// The type of the manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a payload says that it is.
pub const PAYLOAD_TYPE: &str = "cosign container image signature";

/// What a statement says by which an image is signed.
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What an envelope holds.
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

/// The type of a bundle.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What stands before the point of a P-256 key in an X.509 document.
const P256_HEAD: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// What stands before an Ed25519 key.
const ED25519_HEAD: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Someone who signs, with a key that nobody had before.
pub enum Signer {
    /// With cosign's own kind of key.
    P256(EcdsaKeyPair),
    /// With another.
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// A new key of cosign's own kind.
    pub fn p256() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self::P256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key"))
    }

    /// A new Ed25519 key.
    pub fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    /// The public key alone: a point, or 32 bytes.
    pub fn public_bytes(&self) -> &[u8] {
        match self {
            Self::P256(key) => key.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    /// The public key as `cosign.pub` has it.
    pub fn public_pem(&self) -> String {
        let head = if matches!(self, Self::P256(_)) { P256_HEAD } else { ED25519_HEAD };
        let text = STANDARD.encode([head, self.public_bytes()].concat());
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// The digest of some bytes, `sha256:…`.
pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The payload of a simple signature of the image with this digest.
pub fn payload(image: &str, kind: &str) -> Vec<u8> {
    let critical = json!({
        "identity": {"docker-reference": "example.com/hello"},
        "image": {"docker-manifest-digest": image},
        "type": kind,
    });
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

/// The configuration of the manifests made here, a blob that must be pushed with them.
pub const CONFIG: &[u8] = b"{}";

/// The manifest of simple signatures, each a payload, a blob of its own, with its signature.
pub fn simple_manifest(signatures: &[(&[u8], &[u8])]) -> Vec<u8> {
    let layer = |(payload, signature): &(&[u8], &[u8])| {
        let annotations = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
        json!({"mediaType": kind, "digest": digest(payload), "size": payload.len(), "annotations": annotations})
    };
    let layers: Vec<Value> = signatures.iter().map(layer).collect();
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = json!({"mediaType": kind, "digest": digest(CONFIG), "size": CONFIG.len()});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string().into_bytes()
}

/// The tag of the manifest of simple signatures of the image with this digest.
pub fn simple_tag(image: &str) -> String {
    format!("{}.sig", image.replace(':', "-"))
}

/// A statement about the image with this digest.
pub fn statement(image: &str, predicate_type: &str) -> Vec<u8> {
    let subject = json!([{"digest": {"sha256": image.trim_start_matches("sha256:")}}]);
    let kind = "https://in-toto.io/Statement/v1";
    json!({"_type": kind, "subject": subject, "predicateType": predicate_type, "predicate": {}})
        .to_string()
        .into_bytes()
}

/// A bundle with a payload of this type in an envelope.
pub fn envelope_bundle(signer: &Signer, payload_type: &str, payload: &[u8]) -> Value {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    let signatures = json!([{"sig": STANDARD.encode(signer.sign(&[head.as_bytes(), payload].concat()))}]);
    let envelope = json!({"payload": STANDARD.encode(payload), "payloadType": payload_type, "signatures": signatures});
    json!({"mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "x"}}, "dsseEnvelope": envelope})
}

/// A bundle with a signature of the manifest itself.
pub fn message_bundle(signer: &Signer, manifest: &[u8]) -> Value {
    let hash = ring::digest::digest(&ring::digest::SHA256, manifest);
    let message_digest = json!({"algorithm": "SHA2_256", "digest": STANDARD.encode(hash.as_ref())});
    let signature = json!({"messageDigest": message_digest, "signature": STANDARD.encode(signer.sign(manifest))});
    json!({"mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "x"}}, "messageSignature": signature})
}

/// The manifest that holds a bundle and refers to the image with this manifest. The bundle is a blob of its own.
pub fn bundle_manifest(image: &[u8], bundle: &[u8]) -> Vec<u8> {
    let config =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(CONFIG), "size": CONFIG.len()});
    let layers = json!([{"mediaType": BUNDLE, "digest": digest(bundle), "size": bundle.len()}]);
    let subject = json!({"mediaType": MANIFEST, "digest": digest(image), "size": image.len()});
    let annotations =
        json!({"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": SIGN_PREDICATE});
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": config, "layers": layers,
        "subject": subject, "annotations": annotations,
    })
    .to_string()
    .into_bytes()
}

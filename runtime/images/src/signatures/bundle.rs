//! The form that cosign makes since version 3: a bundle, which is the one layer of a manifest that refers to the image.
//!
//! A bundle holds either an envelope (DSSE) around a statement (in-toto) whose subject is the image, which is what `cosign sign` makes, or a
//! plain signature of the manifest's own bytes. Statements of other types, such as attestations of what is in an image or
//! what was found in it, are about the image too, but nobody says by them that it may be used. See
//! <https://github.com/sigstore/protobuf-specs> and <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Flaw, PublicKey, signer};
use crate::blobs::Digest;
use crate::manifest::Descriptor;
use crate::media;

/// What an envelope holds.
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// What a statement is.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// What a statement says by which an image is signed.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// What signs an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// The digests of the manifests in a list of referrers that hold bundles.
pub(crate) fn referrers(index: &[u8]) -> Result<Vec<Digest>, Flaw> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Referrer>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Referrer {
        digest: String,
        artifact_type: Option<String>,
    }
    let index: Index =
        serde_json::from_slice(index).map_err(|error| Flaw::unreadable("the list of referrers", error))?;
    let bundles = index.manifests.iter().filter(|one| one.artifact_type.as_deref() == Some(media::BUNDLE));
    Ok(bundles.filter_map(|one| Digest::parse(&one.digest).ok()).collect())
}

/// The bundle's blob in a manifest that refers to an image.
pub(crate) fn layer(manifest: &[u8]) -> Result<Descriptor, Flaw> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        layers: Vec<Descriptor>,
    }
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| Flaw::unreadable("a manifest with a bundle", error))?;
    let found = manifest.layers.into_iter().find(|layer| layer.media_type == media::BUNDLE);
    found.ok_or_else(|| Flaw::Unreadable("a manifest that should have a bundle has none".to_string()))
}

/// Reads a bundle.
pub(crate) fn read(bundle: &[u8]) -> Result<Bundle, Flaw> {
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|error| Flaw::unreadable("the bundle", error))?;
    if bundle.media_type != media::BUNDLE {
        return Err(Flaw::other_type(&bundle.media_type));
    }
    Ok(bundle)
}

impl Bundle {
    /// Whether the image's own manifest is what is signed.
    pub(crate) fn signs_manifest(&self) -> bool {
        self.dsse_envelope.is_none() && self.message_signature.is_some()
    }

    /// The key by which the bundle signs `image`. `manifest` is the image's own; it is only looked at where
    /// [`Bundle::signs_manifest`].
    pub(crate) fn check<'a>(
        &self,
        manifest: &[u8],
        image: &Digest,
        keys: &'a [PublicKey],
    ) -> Result<&'a PublicKey, Flaw> {
        match (&self.dsse_envelope, &self.message_signature) {
            (Some(envelope), None) => envelope.check(image, keys),
            (None, Some(message)) => {
                let found = Digest::of(manifest);
                if found != *image {
                    return Err(Flaw::OtherImage(found.to_string()));
                }
                signer(keys, manifest, &decode("the signature", &message.signature)?).ok_or(Flaw::OtherKey)
            }
            _ => Err(Flaw::Unreadable("the bundle holds not exactly one of an envelope and a signature".to_string())),
        }
    }
}

impl Envelope {
    fn check<'a>(&self, image: &Digest, keys: &'a [PublicKey]) -> Result<&'a PublicKey, Flaw> {
        if self.payload_type != IN_TOTO {
            return Err(Flaw::other_type(&self.payload_type));
        }
        let payload = decode("the envelope's payload", &self.payload)?;
        let statement: Statement =
            serde_json::from_slice(&payload).map_err(|error| Flaw::unreadable("the statement", error))?;
        if statement.kind != STATEMENT {
            return Err(Flaw::other_type(&statement.kind));
        }
        if statement.predicate_type != SIGNED {
            return Err(Flaw::other_type(&statement.predicate_type));
        }
        let digests: Vec<&String> =
            statement.subject.iter().filter_map(|subject| subject.digest.get("sha256")).collect();
        if !digests.iter().any(|digest| *digest == image.hex()) {
            let first = digests.first().map_or_else(String::new, |digest| format!("sha256:{digest}"));
            return Err(Flaw::other_image(&first));
        }
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        for signature in &self.signatures {
            if let Some(key) = signer(keys, &message, &decode("the envelope's signature", &signature.sig)?) {
                return Ok(key);
            }
        }
        Err(Flaw::OtherKey)
    }
}

/// What is signed of an envelope, so that neither its type nor its payload can be taken for another.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, Flaw> {
    STANDARD.decode(text).map_err(|error| Flaw::unreadable(what, error))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shoal_tests::signing::{self, Signer, envelope_bundle, message_bundle};

    use super::super::public;
    use super::*;

    const MANIFEST: &[u8] = b"a manifest";

    /// Bundles that Sigstore's library for Node made about [`MANIFEST`], and the key that signed them. The second called itself 0.2.
    const MADE: [&str; 2] = [
        r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"me"},"timestampVerificationData":{}},"dsseEnvelope":{"payload":"eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJzdWJqZWN0IjpbeyJkaWdlc3QiOnsic2hhMjU2IjoiZTU5NjI1YTgyMjQ5N2MxNjRkNjA3MDVlYjNmZDY5NzVjMzc1Y2EyMTNiODE0MDEzN2E4MjZhNzc3OTA5ODZhOSJ9LCJhbm5vdGF0aW9ucyI6e319XSwicHJlZGljYXRlVHlwZSI6Imh0dHBzOi8vc2lnc3RvcmUuZGV2L2Nvc2lnbi9zaWduL3YxIiwicHJlZGljYXRlIjp7fX0=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEUCIQCkdwAAZN2FEDYOueAvMbA5ZBGisWyvZQmUz7A0HKdC2QIgeqOlQm8z6Ju7hQ7gSd053LQnPHUmKbyVZEQAJhRn4mA=","keyid":"me"}]}}"#,
        r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"me"},"timestampVerificationData":{}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"5ZYlqCJJfBZNYHBes/1pdcN1yiE7gUATeoJqd3kJhqk="},"signature":"MEQCIAXvOAl/TZgsHd45gO17Jge3uWAo1TwjsumGz/zbuvX3AiB1Ij/jUAS3QJw12Opb2yl1KVxJksoDxFijvvj0pLtygQ=="}}"#,
    ];
    const MADE_BY: &str = "044afdc0350feb2ad1224abff29f2a5f07dccfe62243b4b5089f1e8cd4e0a63ca113aed55a9ce5e1de01893d3ea60017a96f2b35b4901da0aa77598542a6c3ba5d";

    fn image() -> Digest {
        Digest::of(MANIFEST)
    }

    fn statement(image: &Digest, predicate_type: &str) -> Vec<u8> {
        signing::statement(&image.to_string(), predicate_type)
    }

    fn check(bundle: &Value, keys: &[PublicKey]) -> Result<String, Flaw> {
        read(bundle.to_string().as_bytes())?.check(MANIFEST, &image(), keys).map(PublicKey::fingerprint)
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn bundles_that_sigstore_s_own_library_made_count() {
        let key = PublicKey::new(super::super::Algorithm::EcdsaP256, hex::decode(MADE_BY).expect("a key"));
        for made in MADE {
            let bundle = read(made.as_bytes()).expect("a bundle");
            assert_eq!(bundle.check(MANIFEST, &image(), std::slice::from_ref(&key)), Ok(&key));
            assert_eq!(bundle.check(MANIFEST, &image(), &[public(&Signer::p256())]), Err(Flaw::OtherKey));
        }
    }

    #[test]
    fn a_statement_about_the_image_counts_by_any_one_of_the_keys() {
        let (mine, other) = (Signer::ed25519(), Signer::p256());
        let bundle = envelope_bundle(&mine, IN_TOTO, &statement(&image(), SIGNED));
        assert_eq!(check(&bundle, &[public(&other), public(&mine)]), Ok(public(&mine).fingerprint()));
        assert_eq!(check(&bundle, &[public(&other)]), Err(Flaw::OtherKey));
        let mut twice = bundle.clone();
        let own = bundle["dsseEnvelope"]["signatures"][0].clone();
        twice["dsseEnvelope"]["signatures"] = json!([{"sig": "AAAA"}, own]);
        assert_eq!(check(&twice, &[public(&mine)]), Ok(public(&mine).fingerprint()));
    }

    #[test]
    fn what_is_about_something_else_or_was_changed_does_not_count() {
        let mine = Signer::p256();
        let keys = [public(&mine)];
        let good = envelope_bundle(&mine, IN_TOTO, &statement(&image(), SIGNED));
        let other = Digest::of(b"other");
        let found = check(&envelope_bundle(&mine, IN_TOTO, &statement(&other, SIGNED)), &keys);
        assert_eq!(found, Err(Flaw::OtherImage(other.to_string())));
        let attested = "https://slsa.dev/provenance/v1";
        let found = check(&envelope_bundle(&mine, IN_TOTO, &statement(&image(), attested)), &keys);
        assert_eq!(found, Err(Flaw::OtherType(attested.to_string())));
        let found = check(&envelope_bundle(&mine, "text/plain", &statement(&image(), SIGNED)), &keys);
        assert_eq!(found, Err(Flaw::OtherType("text/plain".to_string())));
        // The signature of one statement under another about the same image, and a signature of the payload without its type.
        let mut changed = good.clone();
        let longer = [statement(&image(), SIGNED).as_slice(), b" "].concat();
        changed["dsseEnvelope"]["payload"] = STANDARD.encode(longer).into();
        assert_eq!(check(&changed, &keys), Err(Flaw::OtherKey));
        let mut bare = good.clone();
        bare["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode(mine.sign(&statement(&image(), SIGNED))).into();
        assert_eq!(check(&bare, &keys), Err(Flaw::OtherKey));
        let mut older = good.clone();
        older["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into();
        assert!(matches!(check(&older, &keys), Err(Flaw::OtherType(_))));
        let mut nothing = good;
        nothing["dsseEnvelope"] = Value::Null;
        assert!(matches!(check(&nothing, &keys), Err(Flaw::Unreadable(_))));
        assert!(matches!(read(b"{}"), Err(Flaw::Unreadable(_))));
    }

    #[test]
    fn a_signature_of_the_manifest_itself_counts() {
        let mine = Signer::p256();
        let bundle = message_bundle(&mine, MANIFEST);
        assert_eq!(check(&bundle, &[public(&mine)]), Ok(public(&mine).fingerprint()));
        assert_eq!(check(&bundle, &[public(&Signer::p256())]), Err(Flaw::OtherKey));
        let read = read(bundle.to_string().as_bytes()).expect("a bundle");
        assert!(read.signs_manifest());
        let keys = [public(&mine)];
        let found = read.check(b"another manifest", &image(), &keys);
        assert_eq!(found, Err(Flaw::OtherImage(Digest::of(b"another manifest").to_string())));
    }

    #[test]
    fn of_the_referrers_only_bundles_are_looked_at() {
        let row = |kind: Value, digest: &str| json!({"mediaType": media::MANIFEST, "size": 1, "digest": digest, "artifactType": kind});
        let digest = Digest::of(b"bundle");
        let rows = [
            row("application/spdx+json".into(), &Digest::of(b"bill").to_string()),
            row(media::BUNDLE.into(), &digest.to_string()),
            row(Value::Null, &Digest::of(b"?").to_string()),
            row(media::BUNDLE.into(), "sha512:1"),
        ];
        let index = json!({"schemaVersion": 2, "manifests": rows}).to_string();
        assert_eq!(referrers(index.as_bytes()), Ok(vec![digest]));
        assert_eq!(referrers(b"{}"), Ok(Vec::new()));
        assert!(referrers(b"7").is_err() && layer(b"{}").is_err() && layer(b"").is_err());
    }
}

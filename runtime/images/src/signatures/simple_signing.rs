//! The form that cosign made first: a manifest under a tag of its own whose layers are payloads, each with its signature as an annotation.
//!
//! For the image `sha256:ab…` that tag is `sha256-ab….sig`. A payload is
//! `{"critical": {"identity": {"docker-reference": …}, "image": {"docker-manifest-digest": …}, "type": …}, "optional": …}`. The
//! name in it is not compared, as cosign does not: an image may be copied together with its signatures.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Flaw, PublicKey, signer};
use crate::blobs::Digest;
use crate::manifest::Descriptor;
use crate::media;

/// The annotation of a layer that is the signature of its payload, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What a payload says that it is.
const TYPE: &str = "cosign container image signature";

/// A layer of a manifest of signatures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Layer {
    #[serde(flatten)]
    pub(crate) payload: Descriptor,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The tag of an image's manifest of signatures.
pub(crate) fn tag(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// The signatures in a manifest, oldest first.
pub(crate) fn layers(manifest: &[u8]) -> Result<Vec<Layer>, Flaw> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        layers: Vec<Layer>,
    }
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| Flaw::unreadable("the manifest of signatures", error))?;
    Ok(manifest.layers.into_iter().filter(|layer| layer.payload.media_type == media::SIMPLE_SIGNING).collect())
}

impl Layer {
    /// The key by which this layer, whose payload this is, signs `image`.
    pub(crate) fn check<'a>(
        &self,
        payload: &[u8],
        image: &Digest,
        keys: &'a [PublicKey],
    ) -> Result<&'a PublicKey, Flaw> {
        let signature = self.annotations.get(SIGNATURE).map(String::as_str).unwrap_or_default();
        let signature =
            STANDARD.decode(signature).map_err(|error| Flaw::unreadable("the annotation with the signature", error))?;
        let Payload { critical } =
            serde_json::from_slice(payload).map_err(|error| Flaw::unreadable("the payload", error))?;
        if critical.kind != TYPE {
            return Err(Flaw::other_type(&critical.kind));
        }
        if critical.image.digest != image.to_string() {
            return Err(Flaw::other_image(&critical.image.digest));
        }
        signer(keys, payload, &signature).ok_or(Flaw::OtherKey)
    }
}

#[cfg(test)]
mod tests {
    use shoal_tests::signing::{Signer, payload, simple_manifest};

    use super::super::public;
    use super::*;

    fn image() -> Digest {
        Digest::of(b"an image")
    }

    fn check(layer: &Layer, payload: &[u8], keys: &[PublicKey]) -> Result<String, Flaw> {
        layer.check(payload, &image(), keys).map(PublicKey::fingerprint)
    }

    #[test]
    fn a_payload_that_names_the_image_counts_by_any_one_of_the_keys() {
        let (mine, other) = (Signer::p256(), Signer::ed25519());
        let text = payload(&image().to_string(), TYPE);
        let layers = layers(&simple_manifest(&[(&text, &mine.sign(&text))])).expect("a manifest");
        let keys = [public(&other), public(&mine)];
        assert_eq!(check(&layers[0], &text, &keys), Ok(public(&mine).fingerprint()));
        assert_eq!(check(&layers[0], &text, &keys[..1]), Err(Flaw::OtherKey));
        assert_eq!(check(&layers[0], &text, &[]), Err(Flaw::OtherKey));
    }

    #[test]
    fn a_payload_that_was_changed_or_is_of_something_else_does_not_count() {
        let mine = Signer::p256();
        let keys = [public(&mine)];
        let text = payload(&image().to_string(), TYPE);
        let of = |text: &[u8], signature: &[u8]| {
            layers(&simple_manifest(&[(text, signature)])).expect("a manifest").remove(0)
        };
        let signed = of(&text, &mine.sign(&text));
        let changed = [text.trim_ascii_end(), b" "].concat();
        assert_eq!(check(&signed, &changed, &keys), Err(Flaw::OtherKey));
        let other = payload(&Digest::of(b"other").to_string(), TYPE);
        let found = check(&of(&other, &mine.sign(&other)), &other, &keys);
        assert_eq!(found, Err(Flaw::OtherImage(Digest::of(b"other").to_string())));
        let other = payload(&image().to_string(), "atomic container signature");
        let found = check(&of(&other, &mine.sign(&other)), &other, &keys);
        assert_eq!(found, Err(Flaw::OtherType("atomic container signature".to_string())));
        for junk in [&b"{}"[..], b"", b"[]", br#"{"critical":{"image":{}}}"#] {
            assert!(matches!(check(&of(junk, &mine.sign(junk)), junk, &keys), Err(Flaw::Unreadable(_))));
        }
    }

    #[test]
    fn of_several_layers_only_signatures_are_looked_at_and_each_is_its_own() {
        let (mine, other) = (Signer::p256(), Signer::p256());
        let text = payload(&image().to_string(), TYPE);
        let manifest = simple_manifest(&[(&text, &other.sign(&text)), (&text, &mine.sign(&text)), (&text, b"")]);
        let mut document: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let layers_of = |document: &serde_json::Value| layers(document.to_string().as_bytes()).expect("a manifest");
        let found: Vec<bool> =
            layers_of(&document).iter().map(|layer| check(layer, &text, &[public(&mine)]).is_ok()).collect();
        assert_eq!(found, [false, true, false]);
        document["layers"][1]["mediaType"] = "application/vnd.dsse.envelope.v1+json".into();
        assert_eq!(layers_of(&document).len(), 2);
        assert!(layers(b"{\"layers\": 7}").is_err());
    }
}

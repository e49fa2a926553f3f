//! Which signatures an image carries, for those who only look at it. Nothing is verified.

use super::{bundle, simple_signing};
use crate::blobs::Digest;

/// A signature that an image carries, whoever made it and whatever it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Which form it has, in a few words.
    pub form: &'static str,
    /// Where it is: the digest of its payload, or of the manifest with its bundle.
    pub digest: Digest,
}

/// The tag under which an image's signatures of cosign's first form are.
pub fn signature_tag(image: &Digest) -> String {
    simple_signing::tag(image)
}

/// The signatures in the manifest under [`signature_tag`] and in the list of an image's referrers. What cannot be read holds none.
pub fn listed(manifest: Option<&[u8]>, referrers: Option<&[u8]>) -> Vec<Signature> {
    let layers = manifest.and_then(|manifest| simple_signing::layers(manifest).ok()).unwrap_or_default();
    let simple = layers.into_iter().filter_map(|layer| layer.payload.digest().ok());
    let bundles = referrers.and_then(|index| bundle::referrers(index).ok()).unwrap_or_default();
    let of = |form| move |digest| Signature { form, digest };
    simple.map(of("simple signing")).chain(bundles.into_iter().map(of("bundle"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_tests::signing::{Signer, simple_manifest};

    use super::*;
    use crate::media;

    #[test]
    fn signatures_of_both_forms_are_listed() {
        let manifest = simple_manifest(&[(b"payload", &Signer::p256().sign(b"payload"))]);
        let digest = Digest::of(b"bundle");
        let row = json!({"mediaType": media::MANIFEST, "size": 1, "digest": digest.to_string(), "artifactType": media::BUNDLE});
        let index = json!({"schemaVersion": 2, "manifests": [row]}).to_string();
        let found = listed(Some(&manifest), Some(index.as_bytes()));
        let wanted = [("simple signing", Digest::of(b"payload")), ("bundle", digest)];
        assert_eq!(found, wanted.map(|(form, digest)| Signature { form, digest }));
        assert_eq!(listed(None, None), []);
        assert_eq!(listed(Some(b"junk"), Some(b"junk")), []);
        assert_eq!(signature_tag(&Digest::of(b"")), format!("sha256-{}.sig", Digest::of(b"").hex()));
    }
}

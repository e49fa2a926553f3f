//! Looking for an image's signatures in its registry, until one counts.

use super::bundle::{self, Bundle};
use super::simple_signing::{self, Layer};
use super::{Flaw, PublicKey};
use crate::blobs::Digest;
use crate::limits::{SIGNATURE_BYTES, SIGNATURES};
use crate::manifest::Descriptor;
use crate::sources::{Source, SourceError};

/// One image, whose signatures are looked for.
pub(crate) struct Search<'a> {
    pub source: &'a Source<'a>,
    pub repository: &'a str,
    pub image: &'a Digest,
    pub keys: &'a [PublicKey],
}

/// Why no signature counts.
#[derive(Debug)]
pub(crate) enum SearchError {
    /// The registry did not say which there are.
    Source(SourceError),
    /// There is none, or none that counts: a sentence.
    Unsigned(String),
}

/// What one signature is worth nothing for, or why none can be had.
enum Trouble {
    Flaw(Flaw),
    Source(SourceError),
}

impl From<Flaw> for Trouble {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<SourceError> for Trouble {
    /// What the registry lacks or has wrong hinders no other signature.
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotFound => Self::Flaw(Flaw::Unreadable("the registry has lost a part of it".to_string())),
            SourceError::Failed(reason) => Self::Flaw(Flaw::Unreadable(reason)),
            error => Self::Source(error),
        }
    }
}

/// What was found that does not count.
#[derive(Default)]
struct Found(Vec<Flaw>);

impl Found {
    /// The key if the signature counts; takes note of it if not.
    fn take<T>(&mut self, looked_at: Result<T, Trouble>) -> Result<Option<T>, SourceError> {
        match looked_at {
            Ok(found) => Ok(Some(found)),
            Err(Trouble::Flaw(flaw)) => {
                self.0.push(flaw);
                Ok(None)
            }
            Err(Trouble::Source(error)) => Err(error),
        }
    }

    /// No more than [`SIGNATURES`], the last ones, and a note if there are more.
    fn limit<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        if all.len() > SIGNATURES {
            all.drain(..all.len() - SIGNATURES);
            self.0
                .push(Flaw::Unreadable(format!("there are more than {SIGNATURES}, and the others were not looked at")));
        }
        all
    }

    fn reason(mut self) -> String {
        let count = self.0.len();
        self.0.sort();
        self.0.dedup();
        let each: Vec<String> = self.0.iter().map(|flaw| format!("one {flaw}")).collect();
        match count {
            0 => "no signature of it was found in its registry".to_string(),
            1 => format!("its only signature does not count: {}", each.join(", ")),
            count => format!("none of its {count} signatures counts: {}", each.join(", ")),
        }
    }
}

impl Search<'_> {
    /// The fingerprint of a key that has signed the image.
    pub(crate) async fn run(&self) -> Result<String, SearchError> {
        let mut found = Found::default();
        let simple = self.simple(&mut found).await;
        if let Ok(Some(key)) = simple {
            return Ok(key.fingerprint());
        }
        // A registry that has trouble with the one form may still have the other.
        match (self.bundles(&mut found).await, simple) {
            (Ok(Some(key)), _) => Ok(key.fingerprint()),
            (Err(error), _) | (_, Err(error)) => Err(SearchError::Source(error)),
            (Ok(None), Ok(_)) => Err(SearchError::Unsigned(found.reason())),
        }
    }

    async fn simple(&self, found: &mut Found) -> Result<Option<&PublicKey>, SourceError> {
        let manifest = match self.source.manifest(self.repository, &simple_signing::tag(self.image)).await {
            Err(SourceError::NotFound) => return Ok(None),
            manifest => found.take(manifest.map_err(Trouble::from))?,
        };
        let layers = manifest.map(|manifest| simple_signing::layers(&manifest).map_err(Trouble::from));
        let Some(layers) = layers.map(|layers| found.take(layers)).transpose()?.flatten() else { return Ok(None) };
        for layer in found.limit(layers).into_iter().rev() {
            if let Some(key) = found.take(self.layer(&layer).await)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    async fn layer(&self, layer: &Layer) -> Result<&PublicKey, Trouble> {
        let payload = self.small(&layer.payload).await?;
        Ok(layer.check(&payload, self.image, self.keys)?)
    }

    async fn bundles(&self, found: &mut Found) -> Result<Option<&PublicKey>, SourceError> {
        let index = match self.source.referrers(self.repository, self.image).await {
            Err(SourceError::NotFound) => return Ok(None),
            index => found.take(index.map_err(Trouble::from))?,
        };
        let referrers = index.map(|index| bundle::referrers(&index).map_err(Trouble::from));
        let Some(referrers) = referrers.map(|all| found.take(all)).transpose()?.flatten() else { return Ok(None) };
        for referrer in found.limit(referrers) {
            if let Some(key) = found.take(self.bundle(&referrer).await)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    async fn bundle(&self, referrer: &Digest) -> Result<&PublicKey, Trouble> {
        let manifest = self.manifest(referrer).await?;
        let bundle: Bundle = bundle::read(&self.small(&bundle::layer(&manifest)?).await?)?;
        let own = match bundle.signs_manifest() {
            true => self.manifest(self.image).await?,
            false => bytes::Bytes::new(),
        };
        Ok(bundle.check(&own, self.image, self.keys)?)
    }

    /// The manifest with this digest, or something else in its place: what is signed of it is verified.
    async fn manifest(&self, digest: &Digest) -> Result<bytes::Bytes, SourceError> {
        self.source.manifest(self.repository, &digest.to_string()).await
    }

    async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Trouble> {
        let digest = descriptor.digest().map_err(Flaw::Unreadable)?;
        Ok(self.source.small_blob(self.repository, &digest, SIGNATURE_BYTES).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_tells_each_flaw_once() {
        assert_eq!(Found::default().reason(), "no signature of it was found in its registry");
        let other = Flaw::OtherImage("sha256:1".to_string());
        assert_eq!(
            Found(vec![other.clone()]).reason(),
            "its only signature does not count: one is for another image, sha256:1"
        );
        assert_eq!(
            Found(vec![Flaw::OtherKey, other, Flaw::OtherKey]).reason(),
            "none of its 3 signatures counts: one is for another image, sha256:1, one is by none of the keys that are trusted"
        );
    }

    #[test]
    fn of_too_many_the_last_are_looked_at() {
        let mut found = Found::default();
        let left = found.limit((0..SIGNATURES + 5).collect());
        assert_eq!((left.len(), left.first(), found.0.len()), (SIGNATURES, Some(&5), 1));
    }
}

//! Verifying that an image on this machine is signed, and remembering by whom: a worker starts its pods without any registry.

use std::io;

use crate::credentials::{Credential, Keyring};
use crate::error::PullError;
use crate::image::Image;
use crate::records::Record;
use crate::signatures::{PublicKey, Search, SearchError};
use crate::store::{ImageStore, refused, with};

impl ImageStore {
    /// Sees to it that one of `keys` has signed what the image's reference was resolved to; answers that key's fingerprint.
    ///
    /// The registry is asked with what `keyring` has for it, unless it is known that one of the keys has signed the image: what was verified
    /// stays so for as long as the image is here, whatever becomes of its signatures, and for whoever trusts the key. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::Unsigned`] where none of the keys has; otherwise why the signatures could not be had.
    pub async fn verify(&self, image: &Image, keys: &[PublicKey], keyring: &Keyring) -> Result<String, PullError> {
        if let Some(key) = self.known_signer(image, keys) {
            return Ok(key);
        }
        let _turn = self.turns.take(&image.reference.to_string()).await;
        if let Some(key) = self.known_signer(image, keys) {
            return Ok(key);
        }
        let key = self.search(image, keys, &keyring.credentials(&image.reference)).await?;
        self.remember(image, key.clone()).await?;
        Ok(key)
    }

    /// One of the keys that is known to have signed the image.
    fn known_signer(&self, image: &Image, keys: &[PublicKey]) -> Option<String> {
        let record = self.record(image)?;
        keys.iter().map(PublicKey::fingerprint).find(|key| record.signers.contains(key))
    }

    /// What is known of the image's reference, if it stands for this image still.
    fn record(&self, image: &Image) -> Option<Record> {
        let record = self.records.load(&image.reference.to_string())?;
        (record.digest == image.digest.to_string()).then_some(record)
    }

    /// Looks with each of the credentials in turn; without any if there are none.
    async fn search(
        &self,
        image: &Image,
        keys: &[PublicKey],
        credentials: &[&Credential],
    ) -> Result<String, PullError> {
        let Some((last, others)) = credentials.split_last() else {
            return self.search_as(image, keys, None).await;
        };
        for credential in others {
            match self.search_as(image, keys, Some(credential)).await {
                Ok(key) => return Ok(key),
                Err(error) => tracing::debug!(%error, "no signature is to be had with one of several credentials"),
            }
        }
        self.search_as(image, keys, Some(last)).await
    }

    async fn search_as(
        &self,
        image: &Image,
        keys: &[PublicKey],
        credential: Option<&Credential>,
    ) -> Result<String, PullError> {
        let source =
            self.sources.open(&image.reference, credential).map_err(|error| refused(&image.reference, error))?;
        let search = Search { source: &source, repository: &image.reference.repository, image: &image.digest, keys };
        search.run().await.map_err(|error| match error {
            SearchError::Source(error) => refused(&image.reference, error),
            SearchError::Unsigned(reason) => {
                PullError::Unsigned { image: image.reference.to_string(), digest: image.digest.to_string(), reason }
            }
        })
    }

    /// Keeps that this key has signed the image; not where its tag stands for another by now.
    async fn remember(&self, image: &Image, key: String) -> Result<(), PullError> {
        let Some(mut record) = self.record(image) else { return Ok(()) };
        record.signers = with(&record.signers, key);
        let records = self.records.clone();
        let saved = tokio::task::spawn_blocking(move || records.save(&record)).await;
        saved
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| PullError::Disk { image: image.reference.to_string(), reason: error.to_string() })
    }
}

//! The registry's catalog in the cluster's store: its keys under a prefix of their own.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use shoal_registry::{Catalog, CatalogError};
use shoal_store::{Store, Transaction};

const PREFIX: &str = "/shoal/images/";

/// The store as the registry sees it.
pub(crate) struct StoreCatalog {
    pub store: Store,
}

fn failed(error: impl std::fmt::Display) -> CatalogError {
    CatalogError(error.to_string())
}

impl Catalog for StoreCatalog {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Bytes>, CatalogError>> {
        Box::pin(async move {
            self.store.read_barrier().await.map_err(failed)?;
            Ok(self.store.view().get(&format!("{PREFIX}{key}")).map(|entry| entry.value.clone()))
        })
    }

    fn list(&self, prefix: String) -> BoxFuture<'_, Result<Vec<(String, Bytes)>, CatalogError>> {
        Box::pin(async move {
            self.store.read_barrier().await.map_err(failed)?;
            let view = self.store.view();
            let prefix = format!("{PREFIX}{prefix}");
            let pairs =
                view.range(&prefix, None).map(|(key, entry)| (key[PREFIX.len()..].to_string(), entry.value.clone()));
            Ok(pairs.collect())
        })
    }

    fn write(&self, changes: Vec<(String, Option<Bytes>)>) -> BoxFuture<'_, Result<(), CatalogError>> {
        Box::pin(async move {
            let mut transaction = Transaction::default();
            for (key, value) in changes {
                let key = format!("{PREFIX}{key}");
                match value {
                    Some(value) => transaction.put(key, value),
                    None => transaction.delete(key),
                };
            }
            self.store.commit(transaction).await.map(drop).map_err(failed)
        })
    }
}

//! shoal-store.

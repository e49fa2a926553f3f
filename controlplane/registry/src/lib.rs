//! shoal-registry.

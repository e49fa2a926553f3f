//! shoal-api.

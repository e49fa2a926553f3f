//! shoal-client.

//! shoal-network.

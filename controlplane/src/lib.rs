//! shoal-controlplane.

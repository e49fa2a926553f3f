//! shoal-link.

//! shoal-apiserver.

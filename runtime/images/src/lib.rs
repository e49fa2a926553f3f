//! shoal-images.

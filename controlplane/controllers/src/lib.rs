//! shoal-controllers.

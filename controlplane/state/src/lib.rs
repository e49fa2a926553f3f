//! shoal-state.

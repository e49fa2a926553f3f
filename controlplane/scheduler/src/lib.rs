//! shoal-scheduler.

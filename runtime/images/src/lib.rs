//! Images: content-addressed files, OCI manifests, and how a worker gets them.

pub mod blobs;

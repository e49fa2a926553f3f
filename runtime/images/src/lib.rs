//! Images: from a reference in a pod to a verified WebAssembly file on this machine, and the way back for `push`.
//!
//! It knows no engine and no Kubernetes object; what runs the file decides whether it can. Start with `store`; `manifest` says
//! which forms of images there are, `sources` where they come from, `signatures` who signed them, `artifact` how a module becomes an
//! image.

mod artifact;
pub mod blobs;
mod contents;
mod credentials;
mod describe;
mod error;
mod image;
mod inventory;
mod layers;
mod limits;
mod manifest;
pub mod media;
mod records;
mod reference;
mod signatures;
mod sources;
mod store;
#[cfg(feature = "fuzzing")]
pub mod targets;
mod turns;
mod verify;

pub use artifact::{Artifact, artifact};
pub use blobs::{BlobStore, Digest};
pub use contents::{Contents, Where, contents, module_in_layers};
pub use credentials::{Credential, Keyring};
pub use describe::{Description, NotWasm, describe};
pub use error::PullError;
pub use image::{Image, PullPolicy};
pub use inventory::Stored;
pub use reference::{CLUSTER_REGISTRY, InvalidReference, Reference, Registry};
pub use signatures::{Algorithm, PublicKey, Signature, listed, signature_tag};
pub use sources::{Body, BoxError, ClusterRegistry};
pub use store::ImageStore;

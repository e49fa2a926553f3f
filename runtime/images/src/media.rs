//! The media types that images of WebAssembly are made of.

/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index: one manifest for each platform.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Every kind of manifest that is read, in the order in which we would have them.
pub const MANIFESTS: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// The configuration of a CNCF Wasm artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The configuration of a container image, and of what runwasi's tools make.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's name for the configuration of a container image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The configuration of a Spin application.
pub const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";

/// The layer of a CNCF Wasm artifact.
pub const WASM: &str = "application/wasm";

/// Whether a layer of this media type is a part of a file system, packed in some way.
pub(crate) fn is_archive(media_type: &str) -> bool {
    ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
        .iter()
        .any(|kind| media_type.starts_with(kind))
}

/// A payload that cosign signed, in the first of its forms.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// A bundle of Sigstore's with a signature.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Every media type of a layer that is a module or a component, and nothing else.
pub const MODULES: [&str; 4] = [
    WASM,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

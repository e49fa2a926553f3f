//! What a manifest holds, for those who only look at it.

use std::collections::BTreeMap;
use std::io::Read;

use crate::blobs::Digest;
use crate::layers::{self, Hunt};
use crate::limits::MODULE_BYTES;
use crate::manifest::{self, Descriptor, Document, Manifest, Module};
use crate::media;

/// A file system in layers.
const CONTAINER_IMAGE: &str = "container image";

/// What is under a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What kind of image it is, in a few words, such as `Wasm artifact`.
    pub kind: &'static str,
    /// The bytes of everything that it names directly.
    pub size_bytes: u64,
    /// Where the module is.
    pub module: Where,
}

/// Where the module of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// It is this blob.
    Blob(Digest),
    /// It is in the image with this digest, which is the one for WebAssembly.
    Manifest(Digest),
    /// It is a file in one of the layers, if the image is for WebAssembly: see [`module_in_layers`].
    InLayers {
        /// The configuration.
        config: Digest,
        /// The layers, the lowest first.
        layers: Vec<Digest>,
    },
    /// There is none that could be run; this is there instead.
    Nowhere(String),
}

/// Reads a manifest or index.
///
/// # Errors
/// A sentence: it is neither.
pub fn contents(document: &[u8]) -> Result<Contents, String> {
    Ok(match manifest::read(document)? {
        Document::Manifest(manifest) => {
            let module = match manifest.module(None) {
                Ok(Module::Layer(layer)) => layer.digest().map_or_else(Where::Nowhere, Where::Blob),
                _ if kind(&manifest) == CONTAINER_IMAGE => in_layers(&manifest).unwrap_or_else(Where::Nowhere),
                Ok(Module::File { .. }) => Where::Nowhere("it has no configuration that says where".to_string()),
                Err(why) => Where::Nowhere(why),
            };
            let size_bytes = sum(manifest.config.iter().chain(&manifest.layers).map(|part| part.size));
            Contents { kind: kind(&manifest), size_bytes, module }
        }
        Document::Index(entries) => {
            let chosen = manifest::choose(&entries).and_then(Descriptor::digest);
            let size_bytes = sum(entries.iter().map(|entry| entry.descriptor.size));
            Contents { kind: "index", size_bytes, module: chosen.map_or_else(Where::Nowhere, Where::Manifest) }
        }
    })
}

fn in_layers(manifest: &Manifest) -> Result<Where, String> {
    let config = manifest.config.as_ref().ok_or("it has no configuration")?.digest()?;
    let layers = manifest.layers.iter().map(Descriptor::digest).collect::<Result<_, _>>()?;
    Ok(Where::InLayers { config, layers })
}

/// The module of a container image, from its manifest, its configuration and what its layers hold, by their digests. Blocks.
///
/// # Errors
/// A sentence: there is none, or a layer is missing or cannot be unpacked.
pub fn module_in_layers(
    document: &[u8],
    config: &[u8],
    contents: &BTreeMap<Digest, Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let Document::Manifest(manifest) = manifest::read(document)? else { return Err("it is an index".to_string()) };
    let config =
        serde_json::from_slice(config).map_err(|error| format!("the configuration cannot be read: {error}"))?;
    let Module::File { path, layers } = manifest.module(Some(&config))? else {
        return Err("its module is a layer of its own".to_string());
    };
    let mut hunt = Hunt::new(path, layers.len());
    loop {
        let (index, path) = hunt.next()?;
        let layer = contents.get(&layers[index].digest()?);
        let layer = layer.ok_or_else(|| format!("the layer {} is missing", layers[index].digest))?;
        let take = |content: &mut dyn Read| {
            let mut module = Vec::new();
            content.take(MODULE_BYTES).read_to_end(&mut module).map(|_| module)
        };
        let found = layers::search(&layer[..], path, take);
        let found = found.map_err(|error| format!("the layer {} cannot be unpacked: {error}", layers[index].digest))?;
        if let Some(module) = hunt.note(found)? {
            return Ok(module);
        }
    }
}

fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

fn kind(manifest: &Manifest) -> &'static str {
    let config = manifest.config.as_ref().map(|config| config.media_type.as_str()).unwrap_or_default();
    let is_signature = manifest.layers.iter().any(|layer| layer.media_type == media::SIMPLE_SIGNING);
    let has_module = manifest.layers.iter().any(|layer| media::MODULES.contains(&layer.media_type.as_str()));
    match config {
        media::WASM_CONFIG => "Wasm artifact",
        media::SPIN_CONFIG => "Spin application",
        _ if is_signature => "signature",
        media::IMAGE_CONFIG | media::DOCKER_CONFIG if has_module => "Wasm image",
        media::IMAGE_CONFIG | media::DOCKER_CONFIG => CONTAINER_IMAGE,
        _ if has_module => "bare module",
        _ => "artifact",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn row(media_type: &str, size: u64) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(media_type.as_bytes()).to_string(), "size": size})
    }

    fn of(document: &Value) -> Contents {
        contents(document.to_string().as_bytes()).expect("a manifest")
    }

    #[test]
    fn kinds_are_told_by_the_configuration_and_the_layers() {
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        for (config, layer, kind) in [
            (media::WASM_CONFIG, media::WASM, "Wasm artifact"),
            (media::SPIN_CONFIG, media::MODULES[1], "Spin application"),
            (media::IMAGE_CONFIG, media::MODULES[3], "Wasm image"),
            (media::IMAGE_CONFIG, tar, "container image"),
            (media::IMAGE_CONFIG, media::SIMPLE_SIGNING, "signature"),
            ("application/vnd.oci.empty.v1+json", media::WASM, "bare module"),
            ("application/vnd.oci.empty.v1+json", "text/plain", "artifact"),
        ] {
            let found = of(&json!({"schemaVersion": 2, "config": row(config, 2), "layers": [row(layer, 40)]}));
            assert_eq!((found.kind, found.size_bytes), (kind, 42));
            let is_module = media::MODULES.contains(&layer);
            assert_eq!(found.module == Where::Blob(Digest::of(layer.as_bytes())), is_module, "{found:?}");
        }
    }

    #[test]
    fn an_index_leads_to_the_image_for_wasm() {
        let mut entry = row("x", 7);
        entry["platform"] = json!({"os": "wasip2", "architecture": "wasm"});
        let found = of(&json!({"schemaVersion": 2, "manifests": [entry.clone()]}));
        assert_eq!((found.kind, found.size_bytes), ("index", 7));
        assert_eq!(found.module, Where::Manifest(Digest::of(b"x")));
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let found = of(&json!({"schemaVersion": 2, "manifests": [entry]})).module;
        assert!(matches!(&found, Where::Nowhere(why) if why.contains("linux/amd64")), "{found:?}");
    }
}

//! A module as an image: the CNCF Wasm artifact, which is what `push` sends to a registry.
//!
//! The same module gives the same bytes and so the same digest, wherever and whenever it is pushed: nothing in it is a time or a name.

use serde_json::{Value, json};

use crate::blobs::Digest;
use crate::describe::{NotWasm, describe};
use crate::media;

/// The documents that stand around a module. Push the module, then the configuration, then the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest, to be stored under a tag with the media type [`media::MANIFEST`].
    pub manifest: Vec<u8>,
    /// Its digest.
    pub manifest_digest: Digest,
    /// The configuration, a blob.
    pub config: Vec<u8>,
    /// Its digest.
    pub config_digest: Digest,
    /// The digest of the module, a blob.
    pub module_digest: Digest,
}

/// Makes the documents for a module or component.
///
/// # Errors
/// [`NotWasm`]: nothing is made of a file that cannot be run anywhere.
pub fn artifact(wasm: &[u8]) -> Result<Artifact, NotWasm> {
    let description = describe(wasm)?;
    let module_digest = Digest::of(wasm);
    let component = match description.is_component {
        false => Value::Null,
        true => json!({"exports": description.exports, "imports": description.imports, "target": description.target()}),
    };
    let config = json!({
        "architecture": "wasm",
        "os": description.os(),
        "layerDigests": [module_digest.to_string()],
        "component": component,
    });
    let config = config.to_string().into_bytes();
    let config_digest = Digest::of(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::MANIFEST,
        "config": {"mediaType": media::WASM_CONFIG, "digest": config_digest.to_string(), "size": config.len()},
        "layers": [{"mediaType": media::WASM, "digest": module_digest.to_string(), "size": wasm.len()}],
    });
    let manifest = manifest.to_string().into_bytes();
    Ok(Artifact { manifest_digest: Digest::of(&manifest), manifest, config, config_digest, module_digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Document, Module};

    #[test]
    fn an_artifact_is_an_image_of_its_module() {
        let path = format!("{}/../../wasm-examples/hello/hello.wasm", env!("CARGO_MANIFEST_DIR"));
        let wasm = std::fs::read(path).expect("an example");
        let artifact = artifact(&wasm).expect("an artifact");
        let Ok(Document::Manifest(image)) = manifest::read(&artifact.manifest) else { panic!("no manifest") };
        let Ok(Module::Layer(module)) = image.module(None) else { panic!("no module") };
        assert_eq!(module.digest().as_ref(), Ok(&Digest::of(&wasm)));
        assert_eq!(module.size, wasm.len() as u64);
        let config: Value = serde_json::from_slice(&artifact.config).expect("a configuration");
        assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some("wasip2")));
        assert!(config["component"]["target"].as_str().is_some_and(|target| target.starts_with("wasi:http/proxy@")));
        assert_eq!(config["layerDigests"][0], artifact.module_digest.to_string());
        assert!(super::artifact(b"#!/bin/sh").is_err());
    }
}

//! The examples inside the binary, so that the demonstration needs nothing else.

use anyhow::Context;
use serde_json::Value;

/// One bundled example.
pub struct Example {
    /// Its name; its image is `NAME:1`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Its module.
    pub module: &'static [u8],
    manifest: &'static str,
}

macro_rules! example {
    ($name:literal, $about:literal) => {
        Example {
            name: $name,
            about: $about,
            module: include_bytes!(concat!("../../../wasm-examples/", $name, "/", $name, ".wasm")),
            manifest: include_str!(concat!("../../../wasm-examples/", $name, "/manifest.yaml")),
        }
    };
}

/// All of them, those first that others ask.
pub const EXAMPLES: [Example; 13] = [
    example!("hello", "an HTTP function, three copies behind a NodePort"),
    example!("back", "a function for other functions"),
    example!("front", "a function that asks back by its Service's name"),
    example!("ticker", "a process that prints and serves for ever, with a ConfigMap as a file"),
    example!("journal", "a file that outlives its pod"),
    example!("echo", "a process with sockets of its own: TCP and UDP behind a NodePort"),
    example!("teller", "a function that talks by TCP to echo"),
    example!("louder", "a function of WASI 0.3 that answers while it is still being told"),
    example!("tally", "a function of WASI 0.3 whose instances answer many requests, several at once"),
    example!("chorus", "a process of WASI 0.3 with sockets, which hears many at once"),
    example!("batch", "a computation that ends"),
    example!("tandem", "a process of WASI 0.3 that does several things at once"),
    example!("unruly", "burns CPU and eats memory, within its limits"),
];

impl Example {
    /// The objects of its manifest.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn objects(&self) -> anyhow::Result<Vec<Value>> {
        let documents = self.manifest.split("\n---\n");
        documents
            .map(|text| serde_saphyr::from_str(text).with_context(|| format!("the manifest of {}", self.name)))
            .collect()
    }
}

/// The path of an object's collection in the namespace `default`, and its name.
///
/// # Errors
/// When it is of a kind that no example has.
pub fn path(object: &Value) -> anyhow::Result<(String, &str)> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).context("an object has no name")?;
    let collection = match object["kind"].as_str() {
        Some("Deployment") => "/apis/apps/v1/namespaces/default/deployments",
        Some("Pod") => "/api/v1/namespaces/default/pods",
        Some("Service") => "/api/v1/namespaces/default/services",
        Some("ConfigMap") => "/api/v1/namespaces/default/configmaps",
        Some("PersistentVolumeClaim") => "/api/v1/namespaces/default/persistentvolumeclaims",
        other => anyhow::bail!("no example has a {other:?}"),
    };
    Ok((collection.to_string(), name))
}

/// An object's kind and name, for people.
pub fn title(object: &Value) -> String {
    format!(
        "{} {:?}",
        object["kind"].as_str().unwrap_or("object"),
        object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_understood_and_every_module_is_wasm() {
        for example in &EXAMPLES {
            assert!(example.module.starts_with(b"\0asm"), "{}", example.name);
            let objects = example.objects().expect("YAML");
            assert!(!objects.is_empty());
            for object in &objects {
                path(object).expect("a known kind");
            }
        }
    }
}

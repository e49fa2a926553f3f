//! Which layer of an image is the module: pure, from the documents that a registry sent.
//!
//! An image is one of: a CNCF Wasm artifact or a bare push (one module layer, a configuration that says nothing we need), what runwasi's
//! tools make (one module layer, a container's configuration), a Spin application of one component (one module layer, the
//! application as its configuration), or a container image for WebAssembly, whose module is the file that its entrypoint names, in
//! one of its layers (`layers`). Anything else is refused with what was found.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::blobs::Digest;
use crate::limits::LAYERS;
use crate::{layers, media};

/// A manifest, or an index of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<Entry>),
}

/// One image: a configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    pub config: Option<Descriptor>,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

impl Descriptor {
    /// The digest, if it is of a kind that we know.
    pub(crate) fn digest(&self) -> Result<Digest, String> {
        Digest::parse(&self.digest).map_err(|error| error.to_string())
    }
}

/// One platform's image in an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// Where the module of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Module<'a> {
    /// It is this layer.
    Layer(&'a Descriptor),
    /// It is a file in these layers, the lowest first.
    File { path: PathBuf, layers: Vec<&'a Descriptor> },
}

/// What an image says of how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub entrypoint: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// Reads what a registry sent for a tag or digest.
pub(crate) fn read(document: &[u8]) -> Result<Document, String> {
    let value: Value =
        serde_json::from_slice(document).map_err(|error| format!("the manifest cannot be read: {error}"))?;
    if value["schemaVersion"] != 2 {
        return Err("the manifest cannot be read: its schemaVersion is not 2".to_string());
    }
    let unreadable = |error: serde_json::Error| format!("the manifest cannot be read: {error}");
    match value.get("manifests") {
        Some(entries) => Vec::deserialize(entries).map(Document::Index).map_err(unreadable),
        None => Manifest::deserialize(&value).map(Document::Manifest).map_err(unreadable),
    }
}

/// The entry for WebAssembly; the error names the platforms that there are.
pub(crate) fn choose(entries: &[Entry]) -> Result<&Descriptor, String> {
    let is_wasm =
        |entry: &&Entry| entry.platform.as_ref().is_some_and(|platform| platform.architecture.starts_with("wasm"));
    if let Some(entry) = entries.iter().find(is_wasm) {
        return Ok(&entry.descriptor);
    }
    // An index without platforms of one manifest leaves no choice.
    if let [Entry { descriptor, platform: None }] = entries {
        return Ok(descriptor);
    }
    let platforms: Vec<String> = entries.iter().filter_map(|entry| entry.platform.as_ref()).map(name).collect();
    Err(format!("the image is not WebAssembly: it is for {}", list(&platforms)))
}

fn name(platform: &Platform) -> String {
    format!("{}/{}", platform.os, platform.architecture)
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "no platform".to_string() } else { words.join(", ") }
}

impl Manifest {
    /// The configuration, if it says something that we need to know.
    pub(crate) fn wanted_config(&self) -> Option<&Descriptor> {
        let is_known = |config: &&Descriptor| {
            let known = [media::IMAGE_CONFIG, media::DOCKER_CONFIG, media::SPIN_CONFIG];
            known.contains(&config.media_type.as_str())
        };
        self.config.as_ref().filter(is_known)
    }

    /// Where the one module is. `config` is what `wanted_config` names; the error says what is there instead.
    pub(crate) fn module(&self, config: Option<&Value>) -> Result<Module<'_>, String> {
        let is_module = |layer: &&Descriptor| media::MODULES.contains(&layer.media_type.as_str());
        let modules: Vec<&Descriptor> = self.layers.iter().filter(is_module).collect();
        match modules.as_slice() {
            [module] => Ok(Module::Layer(module)),
            [] => self.module_in_layers(config),
            several => Err(format!(
                "the image holds {} WebAssembly modules; only an image of exactly one can be run",
                several.len()
            )),
        }
    }

    /// The file that the entrypoint of a container image names, if that is for WebAssembly.
    fn module_in_layers(&self, config: Option<&Value>) -> Result<Module<'_>, String> {
        let is_archive = |layer: &&Descriptor| media::is_archive(&layer.media_type);
        let layers: Vec<&Descriptor> = self.layers.iter().filter(is_archive).collect();
        let platform = config.and_then(|config| Platform::deserialize(config).ok());
        let is_wasm = platform.as_ref().is_some_and(|platform| platform.architecture.starts_with("wasm"));
        let (Some(config), false, true) = (config, layers.is_empty(), is_wasm) else {
            return Err(self.without_module(platform));
        };
        if layers.len() > LAYERS {
            return Err(format!("the image has {} layers; at most {LAYERS} are read", layers.len()));
        }
        let text = |value: &Value| value.as_str().map(str::to_string);
        let first = |field: &str| config["config"][field].as_array()?.first().and_then(text);
        let named = first("Entrypoint").or_else(|| first("Cmd")).filter(|named| !named.is_empty());
        let named = named.ok_or("the image names no entrypoint, which would be its WebAssembly module")?;
        let folder = text(&config["config"]["WorkingDir"]).unwrap_or_default();
        Ok(Module::File { path: layers::plain(&Path::new(&folder).join(named)), layers })
    }

    fn without_module(&self, platform: Option<Platform>) -> String {
        let media_types: Vec<String> = self.layers.iter().map(|layer| layer.media_type.clone()).collect();
        match platform.filter(|platform| !platform.architecture.is_empty()) {
            Some(platform) if !platform.architecture.starts_with("wasm") => {
                format!("the image is not WebAssembly: it is for {}", name(&platform))
            }
            _ => format!("the image holds no WebAssembly module, only {}", list(&media_types)),
        }
    }

    /// What the configuration says of how to run the module.
    pub(crate) fn settings(&self, config: Option<&Value>) -> Result<Settings, String> {
        let Some(config) = config else { return Ok(Settings::default()) };
        if self.config.as_ref().is_some_and(|descriptor| descriptor.media_type == media::SPIN_CONFIG) {
            return spin(config);
        }
        let texts = |field: &str| -> Vec<String> {
            let values = config["config"][field].as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_string).collect()
        };
        let environment = texts("Env").into_iter().map(|variable| {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            (name.to_string(), value.to_string())
        });
        Ok(Settings { entrypoint: [texts("Entrypoint"), texts("Cmd")].concat(), environment: environment.collect() })
    }
}

/// A Spin application's locked description.
fn spin(config: &Value) -> Result<Settings, String> {
    let components = config["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [component] = components else {
        return Err(format!(
            "the Spin application has {} components; only one of exactly one can be run",
            components.len()
        ));
    };
    if component["files"].as_array().is_some_and(|files| !files.is_empty()) {
        return Err("the Spin application has static files, which are not supported".to_string());
    }
    let variables = component["env"].as_object().into_iter().flatten();
    let environment = variables.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string())));
    Ok(Settings { entrypoint: Vec::new(), environment: environment.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(media_type.as_bytes()).to_string(), "size": 3})
    }

    fn image(config: &str, layers: &[&str]) -> Manifest {
        let layers: Vec<Value> = layers.iter().map(|layer| descriptor(layer)).collect();
        let document = json!({"schemaVersion": 2, "config": descriptor(config), "layers": layers});
        match read(document.to_string().as_bytes()) {
            Ok(Document::Manifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_module_is_the_one_layer_with_its_media_type() {
        for layer in media::MODULES {
            let image = image(media::WASM_CONFIG, &["application/vnd.wasm.content.layer.v1+data", layer]);
            let Ok(Module::Layer(module)) = image.module(None) else { panic!("no module") };
            assert_eq!(module.media_type, layer);
            assert_eq!(image.wanted_config(), None);
        }
        let two = image(media::WASM_CONFIG, &[media::WASM, media::WASM]);
        assert!(two.module(None).is_err_and(|why| why.contains("2 WebAssembly modules")));
    }

    #[test]
    fn an_image_without_a_module_is_refused_with_what_it_is() {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let image = image(media::IMAGE_CONFIG, &[layer]);
        assert!(image.wanted_config().is_some());
        let linux = json!({"os": "linux", "architecture": "amd64"});
        assert_eq!(image.module(Some(&linux)), Err("the image is not WebAssembly: it is for linux/amd64".to_string()));
        assert!(image.module(None).is_err_and(|why| why.contains(layer)));
    }

    #[test]
    fn the_module_of_a_container_image_is_what_its_entrypoint_names() {
        let layers =
            ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];
        let image = image(media::DOCKER_CONFIG, &layers);
        let with = |config: Value| image.module(Some(&json!({"os": "wasi", "architecture": "wasm", "config": config})));
        for config in [
            json!({"Entrypoint": ["/app/main.wasm", "serve"]}),
            json!({"Cmd": ["main.wasm"], "WorkingDir": "/app"}),
            json!({"Entrypoint": ["./../app/main.wasm"], "WorkingDir": "/app", "Cmd": ["x"]}),
        ] {
            let Ok(Module::File { path, layers }) = with(config) else { panic!("no module") };
            assert_eq!((path, layers.len()), (PathBuf::from("app/main.wasm"), 2));
        }
        assert!(with(json!({})).is_err_and(|why| why.contains("entrypoint")));
    }

    #[test]
    fn a_containers_configuration_gives_entrypoint_and_variables() {
        let image = image(media::IMAGE_CONFIG, &[media::MODULES[3]]);
        let config = json!({"config": {"Entrypoint": ["/app.wasm"], "Cmd": ["-v"], "Env": ["A=b=c", "D"]}});
        let settings = image.settings(Some(&config)).expect("settings");
        assert_eq!(settings.entrypoint, ["/app.wasm", "-v"]);
        assert_eq!(settings.environment, [("A".to_string(), "b=c".to_string()), ("D".to_string(), String::new())]);
    }

    #[test]
    fn a_spin_application_of_one_component_is_its_component() {
        let image = image(media::SPIN_CONFIG, &[media::MODULES[1]]);
        let one = json!({"components": [{"id": "hello", "env": {"A": "b"}}]});
        assert_eq!(image.settings(Some(&one)).expect("settings").environment, [("A".to_string(), "b".to_string())]);
        let two = json!({"components": [{"id": "a"}, {"id": "b"}]});
        assert!(image.settings(Some(&two)).is_err_and(|why| why.contains("2 components")));
        let files = json!({"components": [{"id": "a", "files": [{"path": "/x"}]}]});
        assert!(image.settings(Some(&files)).is_err());
    }

    #[test]
    fn of_an_index_the_wasm_platform_is_chosen() {
        let entry = |os: &str, architecture: &str| {
            let mut entry = descriptor(&format!("{os}/{architecture}"));
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        };
        let index = |entries: Vec<Value>| match read(
            json!({"schemaVersion": 2, "manifests": entries}).to_string().as_bytes(),
        ) {
            Ok(Document::Index(entries)) => entries,
            other => panic!("{other:?}"),
        };
        let both = index(vec![entry("linux", "amd64"), entry("wasip1", "wasm")]);
        assert_eq!(choose(&both).map(|chosen| chosen.media_type.as_str()), Ok("wasip1/wasm"));
        let linux = index(vec![entry("linux", "amd64"), entry("linux", "arm64")]);
        assert_eq!(choose(&linux), Err("the image is not WebAssembly: it is for linux/amd64, linux/arm64".to_string()));
        assert!(choose(&index(vec![descriptor("alone")])).is_ok());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for document in [
            "",
            "{}",
            "[]",
            "{\"schemaVersion\":1}",
            "{\"schemaVersion\":2,\"layers\":7}",
            "{\"schemaVersion\":2,\"manifests\":[{}]}",
        ] {
            assert!(read(document.as_bytes()).is_err(), "{document}");
        }
    }
}

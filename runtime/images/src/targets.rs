//! What `tests/fuzz` throws bytes at and nobody else can reach. No bytes may make any of it panic, and what is read must be written
//! again as it was.

use serde_json::Value;

use crate::manifest::{self, Document};
use crate::records::{self, Record};

/// A manifest or an index, and the same bytes as its configuration.
pub fn read_manifest(input: &[u8]) {
    let config: Option<Value> = serde_json::from_slice(input).ok();
    match manifest::read(input) {
        Ok(Document::Manifest(manifest)) => {
            let _ = (manifest.wanted_config(), manifest.module(config.as_ref()), manifest.settings(config.as_ref()));
        }
        Ok(Document::Index(entries)) => drop(manifest::choose(&entries)),
        Err(_) => {}
    }
    // A configuration of any kind, of an image that has one.
    for kind in [crate::media::IMAGE_CONFIG, crate::media::SPIN_CONFIG] {
        let own = format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"{kind}","digest":"","size":0}}}}"#);
        if let Ok(Document::Manifest(manifest)) = manifest::read(own.as_bytes()) {
            let _ = (manifest.module(config.as_ref()), manifest.settings(config.as_ref()));
        }
    }
}

/// What a worker keeps of an image.
pub fn record() -> Vec<u8> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let record = Record {
        version: records::VERSION,
        reference: "example.com/hello:1".to_string(),
        digest: digest.clone(),
        module: digest.clone(),
        entrypoint: vec!["/app.wasm".to_string()],
        environment: vec![("A".to_string(), "b".to_string())],
        credentials: vec![digest],
    };
    serde_json::to_vec(&record).expect("a record can be written")
}

/// What a worker finds of an image.
pub fn read_record(input: &[u8]) {
    if let Some(record) = records::read(input) {
        let again = serde_json::to_vec(&record).expect("a record can be written");
        assert_eq!(records::read(&again), Some(record));
    }
}

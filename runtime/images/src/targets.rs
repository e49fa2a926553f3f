//! What `tests/fuzz` throws bytes at and nobody else can reach. No bytes may make any of it panic, and what is read must be written
//! again as it was.

use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::blobs::Digest;
use crate::layers::{self, Found};
use crate::manifest::{self, Document};
use crate::records::{self, Record};
use crate::signatures::{Algorithm, PublicKey, bundle, listed, simple_signing};

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

/// Layers of a container image, packed in each way.
pub fn layers() -> Vec<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in [("app/.wh.old", ""), (WANTED, "a module")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).expect("an archive can be written");
    }
    let plain = builder.into_inner().expect("an archive can be written");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).expect("an archive can be packed");
    let packed = packed.finish().expect("an archive can be packed");
    let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    vec![plain, packed, zstd]
}

/// The file that is looked for in them.
const WANTED: &str = "app/main.wasm";

/// A layer of a container image, in which a file is looked for.
pub fn read_layer(input: &[u8]) {
    let take = |content: &mut dyn Read| io::copy(content, &mut io::sink());
    if let Ok(Found::Link(to)) = layers::search(input, Path::new(WANTED), take) {
        // It leads no further up than the root.
        assert_eq!(layers::plain(&to), to);
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
        credentials: vec![digest.clone()],
        signers: vec![digest],
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

/// The image that the signatures of [`signatures`] are about.
const SIGNED: &str = "sha256:abababababababababababababababababababababababababababababababab";

/// A signature of each form, with the documents around it. Nobody's key made them.
pub fn signatures() -> Vec<Vec<u8>> {
    let (hex, bundle) = (&SIGNED["sha256:".len()..], crate::media::BUNDLE);
    let (payload_type, kind) = ("application/vnd.in-toto+json", crate::media::SIMPLE_SIGNING);
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"example.com/hello"}},"image":{{"docker-manifest-digest":"{SIGNED}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let layers = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"{kind}","digest":"{SIGNED}","size":7,"annotations":{{"dev.cosignproject.cosign/signature":"MEUCIQ=="}}}}]}}"#
    );
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#
    );
    let statement = STANDARD.encode(statement);
    let envelope = format!(
        r#"{{"mediaType":"{bundle}","dsseEnvelope":{{"payload":"{statement}","payloadType":"{payload_type}","signatures":[{{"sig":"MEUCIQ=="}}]}}}}"#
    );
    let message = format!(r#"{{"mediaType":"{bundle}","messageSignature":{{"signature":"MEUCIQ=="}}}}"#);
    let manifest = format!(r#"{{"layers":[{{"mediaType":"{bundle}","digest":"{SIGNED}","size":7}}]}}"#);
    let referrers = format!(r#"{{"manifests":[{{"digest":"{SIGNED}","artifactType":"{bundle}"}}]}}"#);
    [payload, layers, envelope, message, manifest, referrers].map(String::into_bytes).to_vec()
}

/// What a registry sends of an image's signatures. Nothing that it sends is a signature by a key that signed nothing.
pub fn read_signatures(input: &[u8]) {
    let image = Digest::parse(SIGNED).expect("a digest");
    let kinds = [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Ed25519, Algorithm::Rsa];
    let keys = kinds.map(|kind| PublicKey::new(kind, [[4; 1].as_slice(), &[7; 64]].concat()));
    let _ = (bundle::referrers(input), bundle::layer(input), listed(Some(input), Some(input)));
    if let Ok(bundle) = bundle::read(input) {
        assert!(bundle.check(input, &image, &keys).is_err());
    }
    let own = signatures().remove(1);
    for manifest in [input, &own] {
        for layer in simple_signing::layers(manifest).unwrap_or_default() {
            assert!(layer.check(input, &image, &keys).is_err());
        }
    }
}

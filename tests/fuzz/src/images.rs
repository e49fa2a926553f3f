//! What a registry sends, of an image and its signatures, what a pull secret holds, and what a worker finds on its disk of the images that it had.

use shoal_images::targets;
use shoal_images::{Keyring, Reference, artifact, contents, describe};
use shoal_store::targets::Target;

/// The targets of this file.
pub const ALL: &[Target] = &[
    Target { name: "manifests", seeds: manifest_seeds, run: read_manifest },
    Target { name: "layers", seeds: targets::layers, run: targets::read_layer },
    Target { name: "modules", seeds: || vec![MODULE.to_vec(), COMPONENT.to_vec()], run: read_module },
    Target { name: "logins", seeds: login_seeds, run: read_logins },
    Target { name: "images", seeds: || vec![targets::record()], run: targets::read_record },
    Target { name: "signatures", seeds: targets::signatures, run: targets::read_signatures },
];

/// `(module (import "wasi_snapshot_preview1" "x" (func)) (export "_start" (func 0)))`
const MODULE: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x1c\x01\x16wasi_snapshot_preview1\x01x\0\0\x07\x0a\x01\x06_start\0\0";

/// `(component (core module) (type (instance)) (import "a:b/c@1.0.0" (instance (type 0))))`, and who made it.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0\x07\x03\x01\x42\0\x0a\x10\x01\0\x0ba:b/c@1.0.0\x05\0\0\x1e\x09producers\x01\x08language\x01\x04Rust\x042024";

fn manifest_seeds() -> Vec<Vec<u8>> {
    let made = artifact(MODULE).expect("a module");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,"platform":{{"os":"wasip1","architecture":"wasm"}}}}]}}"#
    );
    let spin = br#"{"components":[{"id":"hello","env":{"A":"b"}}]}"#.to_vec();
    let container =
        br#"{"os":"wasip1","architecture":"wasm","config":{"Entrypoint":["/app.wasm"],"Cmd":["-v"],"Env":["A=b=c"]}}"#;
    vec![made.manifest, made.config, index.into_bytes(), spin, container.to_vec()]
}

fn read_manifest(input: &[u8]) {
    // What is refused is refused each time.
    assert_eq!(contents(input), contents(input));
    targets::read_manifest(input);
}

fn read_module(input: &[u8]) {
    let Ok(description) = describe(input) else { return };
    let _ = (description.os(), description.role(), description.target());
    // What can be described can be pushed.
    assert!(artifact(input).is_ok_and(|made| contents(&made.manifest).is_ok()));
}

fn login_seeds() -> Vec<Vec<u8>> {
    let entries = r#"{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},"*.example.com:5000/team":{"username":"me","password":"secret"}}"#;
    vec![entries.as_bytes().to_vec(), format!(r#"{{"auths":{entries}}}"#).into_bytes()]
}

fn read_logins(input: &[u8]) {
    let (mut first, mut second) = (Keyring::default(), Keyring::default());
    let (_, _) = (first.add_config(input), second.add_legacy(input));
    for image in ["docker.io/nginx", "a.example.com:5000/team/hello:1", "[::1]:5000/x", "hello:1"] {
        let image = Reference::parse(image).expect("a reference");
        let _ = (first.credentials(&image), second.credentials(&image));
    }
}

//! WASI 0.3: its components do several things at once within one instance, which takes an engine of its own.
//!
//! The bookkeeping for that is paid at every call, so that those of 0.2 keep an engine without it. This one is made when the first
//! module needs it. Instances are made as for processes, without slots. What wasmtime has of 0.3 is marked experimental there;
//! its sockets are ours (`sockets::concurrent`), HTTP goes where that of 0.2 goes.

use std::path::{Path, PathBuf};

use wasmparser::{Encoding, Parser, Payload};
use wasmtime::component::Linker;

use crate::cache::Cache;
use crate::engine;
use crate::host::Host;
use crate::sockets;

/// The engine for WASI 0.3.
pub(crate) struct Concurrent {
    pub engine: wasmtime::Engine,
    pub linker: Linker<Host>,
    pub cache: Option<Cache>,
}

impl Concurrent {
    /// `cache` is the folder of compiled code, if there is one.
    pub(crate) fn new(cache: Option<&Path>) -> wasmtime::Result<Self> {
        let mut config = engine::common();
        config.concurrency_support(true).wasm_component_model_async(true);
        let engine = wasmtime::Engine::new(&config)?;
        let mut linker = engine::process_linker(&engine)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        sockets::concurrent::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        let cache = cache.map(|directory| Cache::open(&folder(directory), &engine)).transpose()?;
        Ok(Self { engine, linker, cache })
    }
}

/// Where its compiled code is, below the folder of all compiled code.
pub(crate) fn folder(cache: &Path) -> PathBuf {
    cache.join("concurrent")
}

/// Whether a module is a component that imports or exports an interface of WASI 0.3. What cannot be read is not: it is seen why
/// when it is compiled.
pub(crate) fn is_needed(wasm: &[u8]) -> bool {
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(wasm) {
        let is_later = match payload {
            Ok(Payload::Version { encoding: Encoding::Module, .. }) if depth == 0 => return false,
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
                depth += 1;
                false
            }
            Ok(Payload::End(_)) => {
                depth = depth.saturating_sub(1);
                false
            }
            Ok(Payload::ComponentImportSection(imports)) if depth == 0 => {
                imports.into_iter().flatten().any(|import| is_later(import.name.name))
            }
            Ok(Payload::ComponentExportSection(exports)) if depth == 0 => {
                exports.into_iter().flatten().any(|export| is_later(export.name.name))
            }
            Ok(_) => false,
            Err(_) => return false,
        };
        if is_later {
            return true;
        }
    }
    false
}

fn is_later(name: &str) -> bool {
    name.starts_with("wasi:") && name.contains("@0.3.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_components_of_a_later_wasi_need_it() {
        let is_needed = |text: &str| is_needed(&wat::parse_str(text).expect("valid text"));
        assert!(is_needed(r#"(component (import "wasi:cli/environment@0.3.0" (instance)))"#));
        assert!(is_needed(r#"(component (instance $i) (export "wasi:http/handler@0.3.1" (instance $i)))"#));
        assert!(!is_needed(r#"(component (import "wasi:cli/environment@0.2.3" (instance)))"#));
        assert!(!is_needed(r#"(component (core module (import "wasi:cli/x@0.3.0" "y" (func))))"#));
        assert!(!is_needed(r#"(module (import "wasi:cli/x@0.3.0" "y" (func)))"#));
        assert!(!super::is_needed(b"nothing of the kind"));
    }
}

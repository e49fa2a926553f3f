//! What a `.wasm` file is, and what it needs and offers: read from its own sections, without compiling it.

use std::collections::BTreeSet;

use wasmparser::{Encoding, KnownCustom, Parser, Payload};

/// What a module or component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Whether it is a component; else it is a core module.
    pub is_component: bool,
    /// The names that it exports, sorted.
    pub exports: Vec<String>,
    /// The names that it imports, sorted: interfaces of a component, modules of a core module.
    pub imports: Vec<String>,
    /// What made it: languages, compilers and tools with their versions, sorted; as its inmost modules say it, too.
    pub producers: Vec<String>,
}

/// The bytes are no WebAssembly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a WebAssembly module or component: {0}")]
pub struct NotWasm(String);

/// Reads the outermost module's or component's imports and exports. What is inside its code is not checked.
///
/// # Errors
/// [`NotWasm`], also for a file that is cut off.
pub fn describe(wasm: &[u8]) -> Result<Description, NotWasm> {
    let not_wasm = |error: wasmparser::BinaryReaderError| NotWasm(error.message().to_string());
    let mut description = Description::default();
    let (mut exports, mut imports, mut producers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(not_wasm)? {
            Payload::Version { encoding, .. } if depth == 0 => {
                description.is_component = encoding == Encoding::Component
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    imports.insert(import.map_err(not_wasm)?.module.to_string());
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(not_wasm)?.name.to_string());
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.insert(import.map_err(not_wasm)?.name.name.to_string());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(not_wasm)?.name.name.to_string());
                }
            }
            Payload::CustomSection(section) => {
                // What a tool wrote of itself and nobody needs to run it: one that cannot be read says nothing.
                if let KnownCustom::Producers(fields) = section.as_known() {
                    producers.extend(fields.into_iter().flatten().flat_map(|field| tools(&field)));
                }
            }
            _ => {}
        }
    }
    let sorted = |names: BTreeSet<String>| names.into_iter().collect();
    Ok(Description { exports: sorted(exports), imports: sorted(imports), producers: sorted(producers), ..description })
}

fn tools(field: &wasmparser::ProducersField<'_>) -> Vec<String> {
    let values = field.values.clone().into_iter().flatten();
    values.map(|value| format!("{} {}", value.name, value.version).trim_end().to_string()).collect()
}

impl Description {
    /// The newest WASI that it was made for, as the CNCF Wasm artifact names it.
    pub fn os(&self) -> &'static str {
        let names = || self.imports.iter().chain(&self.exports);
        let is_of = |version: &str| names().any(|name| name.starts_with("wasi:") && name.contains(version));
        match self.is_component {
            false => "wasip1",
            true if is_of("@0.3.") => "wasip3",
            true => "wasip2",
        }
    }

    /// What a container of it is: `HTTP function`, `process` or `library`.
    pub fn role(&self) -> &'static str {
        let exports = |interface: &str| {
            let is_it = |name: &String| name.strip_prefix(interface).is_some_and(|rest| rest.starts_with('@'));
            self.exports.iter().any(is_it)
        };
        if exports("wasi:http/incoming-handler") || exports("wasi:http/handler") {
            "HTTP function"
        } else if exports("wasi:cli/run") || (!self.is_component && self.exports.iter().any(|name| name == "_start")) {
            "process"
        } else {
            "library"
        }
    }

    /// The standard world that it fits, with its version, such as `wasi:http/proxy@0.2.3`.
    pub fn target(&self) -> Option<String> {
        let version =
            |interface: &str| self.exports.iter().find_map(|name| name.strip_prefix(interface)?.strip_prefix('@'));
        let world = |name: &str, version: &str| format!("{name}@{version}");
        let proxy = version("wasi:http/incoming-handler").map(|version| world("wasi:http/proxy", version));
        let service = || version("wasi:http/handler").map(|version| world("wasi:http/service", version));
        let command = || version("wasi:cli/run").map(|version| world("wasi:cli/command", version));
        proxy.or_else(service).or_else(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> Vec<u8> {
        let path = format!("{}/../../wasm-examples/{name}/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("an example")
    }

    #[test]
    fn a_component_is_told_by_its_exports() {
        let hello = describe(&example("hello")).expect("a component");
        assert!(hello.is_component);
        assert_eq!((hello.os(), hello.role()), ("wasip2", "HTTP function"));
        assert!(hello.producers.iter().any(|tool| tool.starts_with("rustc 1.")), "{:?}", hello.producers);
        assert!(hello.target().is_some_and(|target| target.starts_with("wasi:http/proxy@0.2.")), "{hello:?}");
        assert!(hello.imports.iter().any(|name| name.starts_with("wasi:http/types@0.2.")), "{hello:?}");
        let batch = describe(&example("batch")).expect("a component");
        assert_eq!(batch.role(), "process");
        assert!(batch.target().is_some_and(|target| target.starts_with("wasi:cli/command@0.2.")), "{batch:?}");
    }

    #[test]
    fn a_core_module_is_wasi_preview_1() {
        // (module (import "wasi_snapshot_preview1" "x" (func)) (export "_start" (func 0)))
        let wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x1c\x01\x16wasi_snapshot_preview1\x01x\0\0\x07\x0a\x01\x06_start\0\0";
        let core = describe(wasm).expect("a module");
        assert_eq!((core.is_component, core.os(), core.target(), core.role()), (false, "wasip1", None, "process"));
        assert_eq!(Description::default().role(), "library");
        assert_eq!(
            (core.imports, core.exports),
            (vec!["wasi_snapshot_preview1".to_string()], vec!["_start".to_string()])
        );
    }

    #[test]
    fn what_is_no_wasm_is_refused() {
        assert!(describe(b"").is_err());
        assert!(describe(b"\x7fELF\x02\x01\x01\0").is_err());
        let cut = example("hello");
        assert!(describe(&cut[..cut.len() / 2]).is_err());
    }
}

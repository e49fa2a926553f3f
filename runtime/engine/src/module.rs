//! A compiled module, and what it is: told by its exports, checked against what we have to import.

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{InstancePre, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings as p3;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::cache::Cache;
use crate::code::Code;
use crate::concurrent::{self, Concurrent};
use crate::engine::Engine;
use crate::error::{LoadError, StartError};
use crate::function::Function;
use crate::grants::Grants;
use crate::host::{CoreHost, Host};
use crate::process::Process;
use crate::stop;

/// How a module is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answers HTTP requests.
    Function,
    /// It runs to its exit.
    Process,
}

/// A module that can be started, as often as one likes.
pub struct Module {
    engine: Arc<Engine>,
    program: Program,
}

/// The module, linked.
#[derive(Clone)]
pub(crate) enum Program {
    Function(Handler),
    Command(Command),
    Core(InstancePre<CoreHost>),
}

/// A component that answers requests.
#[derive(Clone)]
pub(crate) enum Handler {
    /// By wasi:http 0.2.
    Proxy(Arc<Code>),
    /// By wasi:http 0.3.
    Service(ServicePre<Host>),
}

/// What loading leads to.
pub(crate) enum Linked {
    Proxy(ProxyPre<Host>),
    Service(ServicePre<Host>),
    Command(Command),
    Core(InstancePre<CoreHost>),
}

/// Reads the module's own bytes, whenever they are needed.
pub(crate) type Source = Arc<dyn Fn() -> std::io::Result<Vec<u8>> + Send + Sync>;

/// A component that is run as a process.
#[derive(Clone)]
pub(crate) struct Command {
    pub program: Run,
    /// Whether it listens for the wish that it should stop.
    pub hears_stop: bool,
}

/// By which WASI it runs.
#[derive(Clone)]
pub(crate) enum Run {
    /// By wasi:cli 0.2.
    Alone(CommandPre<Host>),
    /// By wasi:cli 0.3.
    Concurrently(p3::CommandPre<Host>),
}

impl Module {
    /// How it is run.
    pub fn kind(&self) -> Kind {
        match self.program {
            Program::Function(_) => Kind::Function,
            Program::Command(_) | Program::Core(_) => Kind::Process,
        }
    }

    /// Makes it answer requests with these grants.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn function(&self, grants: Grants) -> Result<Function, StartError> {
        match &self.program {
            Program::Function(program) => Function::new(self.engine.clone(), program.clone(), grants),
            _ => Err(StartError::Kind("a process, not a function")),
        }
    }

    /// Runs it with these grants.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, grants: &Grants) -> Result<Process, StartError> {
        match &self.program {
            Program::Function(_) => Err(StartError::Kind("a function, not a process")),
            program => Process::start(&self.engine, program, grants),
        }
    }

    /// What was found, as a module.
    pub(crate) fn new(engine: &Arc<Engine>, digest: &str, wasm: Source, linked: Linked) -> Self {
        let program = match linked {
            Linked::Proxy(proxy) => {
                let code = Code::new(digest, wasm, proxy);
                // Without a folder it would have to be compiled again.
                if engine.cache.is_some() {
                    engine.codes.keep(&code);
                }
                Program::Function(Handler::Proxy(code))
            }
            Linked::Service(service) => Program::Function(Handler::Service(service)),
            Linked::Command(command) => Program::Command(command),
            Linked::Core(module) => Program::Core(module),
        };
        Self { engine: engine.clone(), program }
    }
}

/// Finds or compiles the code, and links it. Blocks.
pub(crate) fn find(engine: &Engine, digest: &str, wasm: &Source) -> Result<Linked, LoadError> {
    if let Some(path) = engine.cache.as_ref().and_then(|cache| cache.get(digest)) {
        return from_file(engine, &path);
    }
    if engine.has_concurrent_code()
        && let Some(path) = engine.concurrent()?.cache.as_ref().and_then(|cache| cache.get(digest))
    {
        return concurrent_from_file(engine.concurrent()?, &path);
    }
    let wasm = wasm().map_err(|error| machine("read the module", &error))?;
    let keep = |cache: &Cache, code: &[u8]| {
        cache.put(digest, code).map_err(|error| machine("keep the compiled module", &error))
    };
    if concurrent::is_needed(&wasm) {
        let concurrent = engine.concurrent()?;
        let code = compile(&concurrent.engine, &wasm)?;
        return match &concurrent.cache {
            Some(cache) => concurrent_from_file(concurrent, &keep(cache, &code)?),
            None => concurrent_from_bytes(concurrent, &code),
        };
    }
    let code = compile(&engine.plain, &wasm)?;
    match &engine.cache {
        Some(cache) => from_file(engine, &keep(cache, &code)?),
        None => from_bytes(engine, &code),
    }
}

pub(crate) fn machine(doing: &str, error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Machine { doing: doing.to_string(), reason: error.to_string() }
}

/// Compiles a component or a core module, as its first bytes say.
fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let compiled = match wasm.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => engine.precompile_module(wasm),
        Some([0, b'a', b's', b'm', _, 0, 1, 0]) => engine.precompile_component(wasm),
        _ => {
            let start: Vec<String> = wasm.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            return Err(LoadError::NotWasm(if start.is_empty() { "nothing".to_string() } else { start.join(" ") }));
        }
    };
    compiled.map_err(|error| LoadError::Compile(format!("{error:#}")))
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
fn from_file(engine: &Engine, path: &Path) -> Result<Linked, LoadError> {
    let failed = |error: wasmtime::Error| machine("load the compiled module", &format!("{error:#}"));
    // SAFETY: the file was written by this crate's own cache from what wasmtime compiled, and its MAC, whose key is in a folder
    // that only this user can enter, was verified just now over every byte; nobody else can have changed it since.
    unsafe {
        match wasmtime::Engine::detect_precompiled_file(path).map_err(failed)? {
            Some(Precompiled::Component) => {
                let component = Component::deserialize_file(&engine.pooled, path).map_err(failed)?;
                let linked =
                    link(engine, &component, || Component::deserialize_file(&engine.plain, path).map_err(failed))?;
                rest(&component);
                Ok(linked)
            }
            Some(Precompiled::Module) => {
                link_core(engine, &wasmtime::Module::deserialize_file(&engine.plain, path).map_err(failed)?)
            }
            None => Err(machine("load the compiled module", &"it is no compiled module")),
        }
    }
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
fn from_bytes(engine: &Engine, code: &[u8]) -> Result<Linked, LoadError> {
    let failed = |error: wasmtime::Error| machine("load the compiled module", &format!("{error:#}"));
    // SAFETY: the bytes come straight from wasmtime's own compiler, in this process.
    unsafe {
        match wasmtime::Engine::detect_precompiled(code) {
            Some(Precompiled::Component) => {
                let component = Component::deserialize(&engine.pooled, code).map_err(failed)?;
                link(engine, &component, || Component::deserialize(&engine.plain, code).map_err(failed))
            }
            Some(Precompiled::Module) => {
                link_core(engine, &wasmtime::Module::deserialize(&engine.plain, code).map_err(failed)?)
            }
            None => Err(machine("load the compiled module", &"it is no compiled module")),
        }
    }
}

/// Takes the pages of a component that was loaded from a file out of this process: of what was read to load it most is not needed again,
/// and code comes back, from the system's copy of the file, as it is run.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "memory that is mapped can only be advised on as such")]
fn rest(component: &Component) {
    let image = component.image_range();
    let length = (image.end as usize).saturating_sub(image.start as usize);
    // SAFETY: the range is the mapping of a file that nobody writes to (the cache replaces files, and removes their names), and wasmtime
    // writes nothing into it: it loads no image with relocations. So what is read there stays the same. That it fails is no harm.
    let _ = unsafe { rustix::mm::madvise(image.start as *mut _, length, rustix::mm::Advice::LinuxDontNeed) };
}

#[cfg(not(target_os = "linux"))]
fn rest(_: &Component) {}

/// Links a component as a function, in the engine with slots, or as a process, in the plain one.
fn link(
    engine: &Engine,
    pooled: &Component,
    plain: impl FnOnce() -> Result<Component, LoadError>,
) -> Result<Linked, LoadError> {
    let exports = |interface| exports(&engine.pooled, pooled, interface);
    let import = |error| missing_of(&engine.pooled, pooled, &error);
    if exports("wasi:http/incoming-handler@0.2") {
        let program = engine.function_linker.instantiate_pre(pooled).map_err(import)?;
        let proxy = ProxyPre::new(program).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        return Ok(Linked::Proxy(proxy));
    }
    if exports("wasi:cli/run@0.2") {
        let hears_stop = hears_stop(&engine.pooled, pooled);
        let program = engine.process_linker.instantiate_pre(&plain()?).map_err(import)?;
        let program = CommandPre::new(program).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        return Ok(Linked::Command(Command { program: Run::Alone(program), hears_stop }));
    }
    Err(LoadError::Library)
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
fn concurrent_from_file(concurrent: &Concurrent, path: &Path) -> Result<Linked, LoadError> {
    // SAFETY: as in `from_file`.
    let component = unsafe { Component::deserialize_file(&concurrent.engine, path) };
    let component = component.map_err(|error| machine("load the compiled module", &format!("{error:#}")))?;
    let linked = link_concurrent(concurrent, &component)?;
    rest(&component);
    Ok(linked)
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
fn concurrent_from_bytes(concurrent: &Concurrent, code: &[u8]) -> Result<Linked, LoadError> {
    // SAFETY: as in `from_bytes`.
    let component = unsafe { Component::deserialize(&concurrent.engine, code) };
    link_concurrent(concurrent, &component.map_err(|error| machine("load the compiled module", &format!("{error:#}")))?)
}

/// Links a component of WASI 0.3.
fn link_concurrent(concurrent: &Concurrent, component: &Component) -> Result<Linked, LoadError> {
    let engine = &concurrent.engine;
    let compile = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
    let linked = || {
        let linked = concurrent.linker.instantiate_pre(component);
        linked.map_err(|error| missing_of(engine, component, &error))
    };
    // One that is of both does as the older one asks.
    if exports(engine, component, "wasi:http/incoming-handler@0.2") {
        return ProxyPre::new(linked()?).map(Linked::Proxy).map_err(compile);
    }
    if exports(engine, component, "wasi:http/handler@0.3") {
        return ServicePre::new(linked()?).map(Linked::Service).map_err(compile);
    }
    let hears_stop = hears_stop(engine, component);
    let program = if exports(engine, component, "wasi:cli/run@0.3") {
        Run::Concurrently(p3::CommandPre::new(linked()?).map_err(compile)?)
    } else if exports(engine, component, "wasi:cli/run@0.2") {
        Run::Alone(CommandPre::new(linked()?).map_err(compile)?)
    } else {
        return Err(LoadError::Library);
    };
    Ok(Linked::Command(Command { program, hears_stop }))
}

fn exports(engine: &wasmtime::Engine, component: &Component, interface: &str) -> bool {
    component.component_type().exports(engine).any(|(name, _)| name.starts_with(interface))
}

fn hears_stop(engine: &wasmtime::Engine, component: &Component) -> bool {
    component.component_type().imports(engine).any(|(name, _)| name.starts_with(stop::INTERFACE))
}

fn missing_of(engine: &wasmtime::Engine, component: &Component, error: &wasmtime::Error) -> LoadError {
    let component_type = component.component_type();
    let foreign: Vec<_> = component_type.imports(engine).map(|(name, _)| name).filter(|name| !is_known(name)).collect();
    missing(&foreign, error)
}

fn link_core(engine: &Engine, module: &wasmtime::Module) -> Result<Linked, LoadError> {
    if module.get_export("_start").is_none() {
        return Err(LoadError::Library);
    }
    let linked = engine.core_linker.instantiate_pre(module);
    linked.map(Linked::Core).map_err(|error| {
        let foreign = module.imports().filter(|import| import.module() != "wasi_snapshot_preview1");
        let foreign: Vec<String> = foreign.map(|import| format!("{}.{}", import.module(), import.name())).collect();
        missing(&foreign.iter().map(String::as_str).collect::<Vec<_>>(), &error)
    })
}

/// Whether we have this interface of a component, in a version of 0.2 or 0.3, or as our own.
fn is_known(import: &str) -> bool {
    const PACKAGES: [&str; 7] = ["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];
    let package = import.strip_prefix("wasi:").and_then(|rest| rest.split_once('/'));
    package.is_some_and(|(package, interface)| {
        PACKAGES.contains(&package) && ["@0.2.", "@0.3."].iter().any(|version| interface.contains(version))
    }) || import.starts_with(stop::INTERFACE)
}

/// Names every import that we do not have at all, or else says what is wrong with the first that does not fit.
fn missing(foreign: &[&str], error: &wasmtime::Error) -> LoadError {
    LoadError::Import(if foreign.is_empty() { format!("{error:#}") } else { foreign.join(", ") })
}

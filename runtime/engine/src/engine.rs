//! The engine: two of wasmtime's behind one face (slots for functions, plain allocation for processes), and the guests' threads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Semaphore;
use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, Linker as CoreLinker, PoolingAllocationConfig};

use crate::cache::{self, Cache};
use crate::code::Codes;
use crate::concurrent::{self, Concurrent};
use crate::cpu::{self, Cpu};
use crate::error::LoadError;
use crate::host::{CoreHost, Host};
use crate::machine::Machine;
use crate::module::{self, Module, Source};
use crate::sockets;
use crate::stats::{Counters, Stats};
use crate::stop;

/// How many tasks a guests' thread runs before it looks for arrivals: sockets, timers and what others spawn. A task may take an epoch
/// of 1 ms, so tokio's own number, 61, would let a request wait that many milliseconds where guests spin.
const TASKS_BETWEEN_LOOKS: u32 = 5;

/// How large the engine is.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How many instances of functions may be there at once, over all functions.
    pub function_instances: u32,
    /// Where compiled code is kept; none compiles every time.
    pub cache_dir: Option<PathBuf>,
    /// How many threads run guests; 0 is one for each processor.
    pub threads: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { function_instances: 512, cache_dir: None, threads: 0 }
    }
}

/// Compiles, keeps and runs modules. Dropping it ends every guest.
pub struct Engine {
    pub(crate) pooled: wasmtime::Engine,
    pub(crate) plain: wasmtime::Engine,
    pub(crate) function_linker: ComponentLinker<Host>,
    pub(crate) process_linker: ComponentLinker<Host>,
    pub(crate) core_linker: CoreLinker<CoreHost>,
    pub(crate) cache: Option<Cache>,
    cache_dir: Option<PathBuf>,
    concurrent: OnceLock<Concurrent>,
    pub(crate) cpu: Arc<Cpu>,
    /// Places for instances that wait for a next request: half of the slots, so that they never keep others from theirs.
    pub(crate) warm_places: Arc<Semaphore>,
    pub(crate) counters: Arc<Counters>,
    /// The code of functions that is in memory.
    pub(crate) codes: Arc<Codes>,
    process_capacity: u32,
    guests: Option<tokio::runtime::Runtime>,
    loaded: Mutex<HashMap<String, Weak<Module>>>,
    loading: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Engine {
    /// An engine with its threads.
    ///
    /// # Errors
    /// [`LoadError::Machine`]: the system gives no address space, threads or folder.
    pub fn new(config: &EngineConfig) -> Result<Arc<Self>, LoadError> {
        let machine = |doing: &str, error: &dyn std::fmt::Display| LoadError::Machine {
            doing: doing.to_string(),
            reason: error.to_string(),
        };
        let pooled = wasmtime::Engine::new(&pooled(config))
            .map_err(|error| machine("reserve slots for functions", &format!("{error:#}")))?;
        let plain = wasmtime::Engine::new(&common()).map_err(|error| machine("make an engine", &error))?;
        let cache = match &config.cache_dir {
            None => None,
            Some(directory) => {
                let opened = Cache::open(directory, &plain);
                Some(opened.map_err(|error| {
                    machine(&format!("open the folder of compiled code {}", directory.display()), &error)
                })?)
            }
        };
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let guests = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("guest")
            .on_thread_start(cpu::step_back)
            .event_interval(TASKS_BETWEEN_LOOKS)
            .global_queue_interval(TASKS_BETWEEN_LOOKS)
            .enable_all()
            .build()
            .map_err(|error| machine("start threads for guests", &error))?;
        let process_capacity = Machine::probe().processes(config.function_instances);
        tracing::info!(
            process_capacity,
            function_instances = config.function_instances,
            threads,
            "the engine is ready"
        );
        let cpu =
            Cpu::new(vec![pooled.weak(), plain.weak()], threads).map_err(|error| machine("start a thread", &error))?;
        Ok(Arc::new(Self {
            function_linker: component_linker(&pooled).map_err(|error| machine("link WASI", &error))?,
            process_linker: process_linker(&plain).map_err(|error| machine("link WASI", &error))?,
            core_linker: core_linker(&plain).map_err(|error| machine("link WASI", &error))?,
            pooled,
            plain,
            cache,
            cache_dir: config.cache_dir.clone(),
            concurrent: OnceLock::new(),
            cpu,
            warm_places: Arc::new(Semaphore::new(config.function_instances as usize / 2)),
            counters: Arc::default(),
            codes: Codes::new(),
            process_capacity,
            guests: Some(guests),
            loaded: Mutex::default(),
            loading: Mutex::default(),
        }))
    }

    /// The module with this digest (any text that stands for its bytes), compiled at most once: in memory, from the folder of compiled
    /// code, or from `wasm`, which is read only then. Compiling takes a thread of its own. A function that is not asked for a while is no
    /// longer in memory, and has its code again in the same way.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(
        self: &Arc<Self>,
        digest: &str,
        wasm: impl Fn() -> std::io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Result<Arc<Module>, LoadError> {
        let turn = {
            let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            loading.retain(|_, turn| turn.strong_count() > 0);
            let existing = loading.get(digest).and_then(Weak::upgrade);
            let turn = existing.unwrap_or_default();
            loading.insert(digest.to_string(), Arc::downgrade(&turn));
            turn
        };
        let _one_at_a_time = turn.lock().await;
        if let Some(module) = self.loaded(digest) {
            return Ok(module);
        }
        let (engine, name, wasm): (_, _, Source) = (self.clone(), digest.to_string(), Arc::new(wasm));
        let began = Instant::now();
        let source = wasm.clone();
        let linked = tokio::task::spawn_blocking(move || module::find(&engine, &name, &source)).await;
        self.counters.loads.took(began.elapsed());
        let linked = linked.map_err(|error| module::machine("compile", &error))??;
        let module = Arc::new(Module::new(self, digest, wasm, linked));
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(digest.to_string(), Arc::downgrade(&module));
        Ok(module)
    }

    /// Whether there may be compiled code of WASI 0.3.
    pub(crate) fn has_concurrent_code(&self) -> bool {
        self.cache_dir.as_deref().is_some_and(|directory| concurrent::folder(directory).is_dir())
    }

    /// The engine for WASI 0.3, made now if it is the first time.
    pub(crate) fn concurrent(&self) -> Result<&Concurrent, LoadError> {
        if let Some(concurrent) = self.concurrent.get() {
            return Ok(concurrent);
        }
        let made = Concurrent::new(self.cache_dir.as_deref()).map_err(|error| LoadError::Machine {
            doing: "make an engine for WASI 0.3".to_string(),
            reason: format!("{error:#}"),
        })?;
        // Of two that are made at once one goes.
        Ok(self.concurrent.get_or_init(|| {
            self.cpu.add(&made.engine);
            made
        }))
    }

    /// Removes the module's compiled code from the folder; what runs goes on. Blocks for a moment.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget(&self, digest: &str) -> std::io::Result<()> {
        let Some(directory) = &self.cache_dir else { return Ok(()) };
        cache::remove(directory, digest)?;
        if self.has_concurrent_code() { cache::remove(&concurrent::folder(directory), digest) } else { Ok(()) }
    }

    fn loaded(&self, digest: &str) -> Option<Arc<Module>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest).and_then(Weak::upgrade)
    }

    /// What was counted since the engine was started.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot(self.codes.count())
    }

    /// How many processes can run on this machine at once, as far as the system's limits tell.
    pub fn process_capacity(&self) -> u32 {
        self.process_capacity
    }

    /// The threads on which guests run. What is only there to call guests, such as a connection whose requests they answer, is best
    /// spawned here: it reaches them without a change of thread. It waits its turn among them.
    pub fn guests(&self) -> &tokio::runtime::Handle {
        self.guests.as_ref().expect("the threads end with the engine").handle()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
    }
}

/// What both engines have in common; compiled code fits both.
pub(crate) fn common() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.memory_init_cow(true);
    config.wasm_component_model(true);
    // For debuggers and profilers: a tenth of the code's size, and registered with the system at each load.
    config.native_unwind_info(false);
    // Nothing of WASI 0.2 runs concurrently within an instance, and the bookkeeping for it is paid at every call.
    config.concurrency_support(false);
    // A stack for each running guest: its own code's share, and what host functions need beside it.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    config
}

fn pooled(config: &EngineConfig) -> Config {
    let instances = config.function_instances;
    let mut pool = PoolingAllocationConfig::default();
    // A component of a few core modules each, as Rust's and most others' are.
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4)
        .total_memories(instances)
        .total_tables(instances * 2)
        .total_stacks(instances)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .table_elements(100_000)
        .max_unused_warm_slots(32);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        // Memory that a request dirtied is cleaned and stays; without the scan all of it would be, dirty or not.
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(1 << 20).table_keep_resident(1 << 16);
    }
    let mut pooled = common();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    pooled
}

fn component_linker(engine: &wasmtime::Engine) -> wasmtime::Result<ComponentLinker<Host>> {
    let mut linker = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// A process may also hear that it should stop.
pub(crate) fn process_linker(engine: &wasmtime::Engine) -> wasmtime::Result<ComponentLinker<Host>> {
    let mut linker = component_linker(engine)?;
    stop::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn core_linker(engine: &wasmtime::Engine) -> wasmtime::Result<CoreLinker<CoreHost>> {
    let mut linker = CoreLinker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |host: &mut CoreHost| &mut host.wasi)?;
    Ok(linker)
}

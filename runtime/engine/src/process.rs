//! A process: one instance, run to its exit.
//!
//! It is asked to stop before it is killed. What it hears of that: `shoal:guest/lifecycle` if it imports it, the end of its
//! input if it reads any, and nobody who connects any more.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::cpu::{self, Metered};
use crate::engine::Engine;
use crate::error::StartError;
use crate::grants::Grants;
use crate::host::{CoreHost, Host};
use crate::input::Stdin;
use crate::limits::OUTGOING_REQUESTS;
use crate::memory;
use crate::module::{Program, Run};
use crate::outgoing::Limited;
use crate::sockets::Service;
use crate::usage::Usage;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code: its own, 137 for one that was killed or had no memory left, 134 for a trap.
    pub code: i32,
    /// Why.
    pub reason: ExitReason,
}

/// Why a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It ended by itself, with any code.
    Exited,
    /// It asked for more memory than its limit.
    OutOfMemory,
    /// It did what WebAssembly forbids; the text is the trap with a backtrace of the guest.
    Trap(String),
    /// It was killed.
    Killed,
}

/// A running process. Dropping it kills it.
pub struct Process {
    task: JoinHandle<Exit>,
    exit: Option<Exit>,
    memory: Arc<memory::Meter>,
    cpu: Arc<cpu::Meter>,
    stdin: Stdin,
    service: Arc<Service>,
    ask: watch::Sender<bool>,
    hears_stop: bool,
}

impl Process {
    pub(crate) fn start(engine: &Arc<Engine>, program: &Program, grants: &Grants) -> Result<Self, StartError> {
        let memory = memory::Meter::new(grants.memory_limit_bytes, grants.group.clone());
        let cpu = cpu::Meter::new(grants.cpu_limit_millis, grants.cpu_request_millis, grants.group.clone());
        let service = Service::new();
        let sockets = grants.sockets.clone().map(|sockets| service.of(sockets));
        let outbound = Limited::around(grants.outbound.clone(), OUTGOING_REQUESTS);
        let grants = Grants { sockets, outbound, ..grants.clone() }.with_each_variable_once();
        let ask = watch::Sender::new(false);
        let hears_stop = matches!(program, Program::Command(command) if command.hears_stop);
        let task = match program {
            Program::Command(command) => {
                let host = Host::new(&grants, &memory, ask.subscribe())?;
                let wasm = match &command.program {
                    Run::Alone(program) => program.engine(),
                    Run::Concurrently(program) => program.engine(),
                };
                let mut store = Store::new(wasm, host);
                store.limiter(|host| &mut host.memory);
                cpu::meter_store(&mut store, &cpu);
                let program = command.program.clone();
                let counted = engine.counters.instance();
                let run = async move {
                    let _counted = counted;
                    let ended = run(&program, &mut store).await.map(|outcome| i32::from(outcome.is_err()));
                    exit(ended, store.data().memory.exceeded())
                };
                engine.guests().spawn(Metered::new(run, cpu.clone(), engine.cpu.clone()))
            }
            Program::Core(module) => {
                let mut store = Store::new(&engine.plain, CoreHost::new(&grants, &memory)?);
                store.limiter(|host| &mut host.memory);
                cpu::meter_store(&mut store, &cpu);
                let module = module.clone();
                let counted = engine.counters.instance();
                let run = async move {
                    let _counted = counted;
                    let ended = async {
                        let instance = module.instantiate_async(&mut store).await?;
                        instance.get_typed_func::<(), ()>(&mut store, "_start")?.call_async(&mut store, ()).await
                    };
                    let ended = ended.await.map(|()| 0);
                    exit(ended, store.data().memory.exceeded())
                };
                engine.guests().spawn(Metered::new(run, cpu.clone(), engine.cpu.clone()))
            }
            Program::Function(_) => return Err(StartError::Kind("a function, not a process")),
        };
        Ok(Self { task, exit: None, memory, cpu, stdin: grants.stdin, service, ask, hears_stop })
    }

    /// Waits for its end; answers the same again when asked again. Cancel safe.
    pub async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let exit = match (&mut self.task).await {
            Ok(exit) => exit,
            Err(error) if error.is_cancelled() => Exit { code: 137, reason: ExitReason::Killed },
            Err(error) => Exit { code: 134, reason: ExitReason::Trap(format!("the engine panicked: {error}")) },
        };
        self.exit = Some(exit.clone());
        exit
    }

    /// Asks it to stop: its ports close, its input ends, and it hears of it if it listens. Returns at once; what is answered is
    /// ready when there is nothing to wait for before it is killed, which is never for one that will end by itself.
    pub fn ask_stop(&self) -> BoxFuture<'static, ()> {
        self.ask.send_replace(true);
        self.stdin.close();
        self.service.stop();
        if self.hears_stop || self.stdin.is_used() {
            return std::future::pending().boxed();
        }
        self.service.idle().boxed()
    }

    /// Ends it within an epoch, whatever it does.
    pub fn kill(&self) {
        self.task.abort();
    }

    /// What it uses; good to be asked also while the process is waited for, and after its end.
    pub fn usage(&self) -> Usage {
        Usage { memory: self.memory.clone(), cpu: self.cpu.clone() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs a command to its end.
async fn run(program: &Run, store: &mut Store<Host>) -> wasmtime::Result<Result<(), ()>> {
    match program {
        Run::Alone(program) => {
            let instance = program.instantiate_async(&mut *store).await?;
            instance.wasi_cli_run().call_run(store).await
        }
        Run::Concurrently(program) => {
            let instance = program.instantiate_async(&mut *store).await?;
            store.run_concurrent(async |store| instance.wasi_cli_run().call_run(store).await).await?
        }
    }
}

fn exit(ended: wasmtime::Result<i32>, out_of_memory: bool) -> Exit {
    match ended {
        Ok(code) => Exit { code, reason: ExitReason::Exited },
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => Exit { code: *code, reason: ExitReason::Exited },
            None if out_of_memory => Exit { code: 137, reason: ExitReason::OutOfMemory },
            None => Exit { code: 134, reason: ExitReason::Trap(trap_message(&error)) },
        },
    }
}

/// The trap and where in the guest it was, in at most 4 KiB.
pub(crate) fn trap_message(error: &wasmtime::Error) -> String {
    let mut message = format!("{error:?}");
    if let Some((end, _)) = message.char_indices().nth(4096) {
        message.truncate(end);
    }
    message
}

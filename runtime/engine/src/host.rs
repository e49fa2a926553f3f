//! What stands beside a guest in its store: its WASI context, its HTTP hooks, its share of the memory.

use std::sync::Arc;

use tokio::sync::watch;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::error::StartError;
use crate::grants::Grants;
use crate::hooks::Hooks;
use crate::input::Input;
use crate::limits::{FIELD_BYTES, RESOURCES};
use crate::memory;
use crate::output::Output;
use crate::sockets::{Own, View};
use crate::stop;

/// Beside a component.
pub(crate) struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    table: ResourceTable,
    sockets: Own,
    asked_to_stop: watch::Receiver<bool>,
    pub memory: memory::Share,
}

impl Host {
    /// `asked_to_stop` is what the guest hears by `shoal:guest/lifecycle`, if it may.
    pub(crate) fn new(
        grants: &Grants,
        memory: &Arc<memory::Meter>,
        asked_to_stop: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let (mut http, mut table) = (WasiHttpCtx::new(), ResourceTable::new());
        http.set_field_size_limit(FIELD_BYTES);
        table.set_max_capacity(RESOURCES);
        Ok(Self {
            asked_to_stop,
            wasi: wasi(grants)?.build(),
            sockets: Own::new(grants.sockets.clone()),
            http,
            hooks: Hooks { outbound: grants.outbound.clone() },
            table,
            memory: memory::Share::new(memory.clone()),
        })
    }
}

impl Host {
    /// Its sockets.
    pub(crate) fn sockets(&mut self) -> View<'_> {
        View { own: &mut self.sockets, table: &mut self.table, inner: self.wasi.sockets() }
    }

    /// What it is told.
    pub(crate) fn lifecycle(&mut self) -> stop::View<'_> {
        stop::View { asked: &self.asked_to_stop, table: &mut self.table }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Beside a core module of WASI preview 1.
pub(crate) struct CoreHost {
    pub wasi: WasiP1Ctx,
    pub memory: memory::Share,
}

impl CoreHost {
    pub(crate) fn new(grants: &Grants, memory: &Arc<memory::Meter>) -> Result<Self, StartError> {
        Ok(Self { wasi: wasi(grants)?.build_p1(), memory: memory::Share::new(memory.clone()) })
    }
}

fn wasi(grants: &Grants) -> Result<WasiCtxBuilder, StartError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&grants.arguments);
    wasi.envs(&grants.environment);
    let is_terminal = grants.is_terminal;
    wasi.stdin(Input { stdin: grants.stdin.clone(), is_terminal })
        .stdout(Output { sink: grants.stdout.clone(), is_terminal })
        .stderr(Output { sink: grants.stderr.clone(), is_terminal });
    if let Some(directory) = &grants.working_directory {
        wasi.initial_cwd(directory);
    }
    for preopen in &grants.preopens {
        let permissions = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        wasi.preopened_dir(&preopen.host, &preopen.guest, permissions).map_err(|error| StartError::Directory {
            host: preopen.host.display().to_string(),
            guest: preopen.guest.clone(),
            reason: error.to_string(),
        })?;
    }
    Ok(wasi)
}

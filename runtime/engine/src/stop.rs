//! How a process hears that it should stop: `shoal:guest/lifecycle`, which it may import.

use tokio::sync::watch;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use crate::host::Host;
use bindings::shoal::guest::lifecycle;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "shoal:guest/process",
        imports: { default: trappable },
        require_store_data_send: true,
        with: { "wasi:io/poll": wasmtime_wasi_io::bindings::wasi::io::poll },
    });
}

/// The interface's name, without its version: who imports it stops by itself.
pub(crate) const INTERFACE: &str = "shoal:guest/lifecycle@0.1";

/// What a process is told.
pub(crate) struct View<'a> {
    pub asked: &'a watch::Receiver<bool>,
    pub table: &'a mut ResourceTable,
}

struct Lifecycle;

impl HasData for Lifecycle {
    type Data<'a> = View<'a>;
}

/// Links it.
pub(crate) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    lifecycle::add_to_linker::<Host, Lifecycle>(linker, Host::lifecycle)
}

impl lifecycle::Host for View<'_> {
    fn stop_requested(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let asked = self.table.push(Asked(self.asked.clone()))?;
        subscribe(self.table, asked)
    }
}

struct Asked(watch::Receiver<bool>);

#[wasmtime_wasi::async_trait]
impl Pollable for Asked {
    async fn ready(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // Whoever could have asked is gone, and with it this guest.
            std::future::pending().await
        }
    }
}

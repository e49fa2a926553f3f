//! `shoal demo`: a cluster with the bundled examples, answering requests.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::layout::Layout;
use crate::cluster::start::{self, Wanted};
use crate::demo;

/// Start a cluster with the bundled examples and send them requests.
///
/// Three servers and two workers, each a process on this machine; they stay until Ctrl-C.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  shoal demo\n  shoal demo --once      the same, then everything is stopped; fails if something did"
)]
pub struct Demo {
    /// Stop when the examples have answered.
    #[arg(long)]
    once: bool,
    /// The folder of the cluster [default: a temporary one, removed in the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port of the first server's API [default: 6443, or free ones if it is taken].
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
}

impl Demo {
    /// Starts, applies, asks, explains, stays, stops.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let temporary = if self.data_dir.is_none() { Some(tempfile::tempdir()?) } else { None };
        let directory = self.data_dir.clone().or_else(|| Some(temporary.as_ref()?.path().join("cluster")));
        let layout = Layout::create(&directory.unwrap_or_else(super::default_directory))?;
        let _lock = layout.lock()?;
        let api_port = match self.api_port {
            Some(port) => port,
            None => demo::free_port(6443, 3)?,
        };
        let outcome = self.show(&layout, api_port).await;
        if outcome.is_err() {
            println!("\nThe members' logs end with:");
            for process in layout.load()?.processes {
                println!("--- {}\n{}", process.name, crate::cluster::process::log_tail(&layout, &process.name, 5));
            }
        }
        match &temporary {
            None => super::down::stop(&layout).await?,
            Some(_) => {
                super::down::stop_quietly(&layout).await?;
                println!("\nStopped, and removed.");
            }
        }
        outcome
    }

    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    async fn show(&self, layout: &Layout, api_port: u16) -> anyhow::Result<()> {
        println!("Starting three servers and two workers ...");
        let existing = !layout.load()?.processes.is_empty();
        let wanted = Wanted { servers: Some(3), workers: Some(2), api_port: (!existing).then_some(api_port) };
        let interrupted = async {
            let signal = super::asked_to_end().await?;
            anyhow::bail!("{signal} came before the examples had answered")
        };
        let shown = async {
            println!("{}", start::start(layout, &wanted).await?);
            demo::run(layout).await
        };
        tokio::select! {
            interrupted = interrupted => interrupted?,
            shown = shown => shown?,
        }
        if self.once {
            return Ok(());
        }
        demo::say_how_to_go_on(layout);
        start::stay(layout).await
    }
}

//! `shoal down`: stops the processes of a local cluster in order.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::layout::{Layout, Role};
use crate::cluster::process;

/// Stop the cluster that `up --detach` started.
#[derive(Args)]
#[command(after_help = "Example:\n  shoal down --data-dir ~/.shoal")]
pub struct Down {
    /// The folder of the cluster.
    #[arg(long, value_name = "DIR", default_value_os_t = super::default_directory())]
    data_dir: PathBuf,
}

impl Down {
    /// Workers first, so that their last reports find a server; the data stays.
    pub async fn run(self) -> anyhow::Result<()> {
        let layout = Layout::open(&self.data_dir)?;
        let _lock = layout.lock()?;
        stop(&layout).await
    }
}

/// Stops what runs of the cluster in `layout`, and says where its data is.
#[expect(clippy::print_stderr, reason = "a verb talks to the person who calls it")]
pub async fn stop(layout: &Layout) -> anyhow::Result<()> {
    stop_quietly(layout).await?;
    eprintln!("stopped; everything is kept in {}", layout.directory().display());
    Ok(())
}

/// Stops what runs of the cluster in `layout`: workers, then servers.
pub async fn stop_quietly(layout: &Layout) -> anyhow::Result<()> {
    let cluster = layout.load()?;
    for role in [Role::Worker, Role::Server] {
        let alive: Vec<_> = cluster.of(role).filter(|process| process::is_alive(process)).collect();
        process::stop(&alive).await?;
    }
    Ok(())
}

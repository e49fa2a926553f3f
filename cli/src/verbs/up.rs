//! `shoal up`: a whole cluster on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::layout::Layout;
use crate::cluster::start::{self, Wanted};

/// Start a cluster on this machine and wait until all of it is ready.
#[derive(Args)]
#[command(after_help = "\
Examples:
  shoal up                                   one server, one worker; Ctrl-C stops them in order
  shoal up --servers 3 --workers 2 --detach  returns when all are ready; `shoal down` stops them
  kubectl --kubeconfig ~/.shoal/admin.kubeconfig get nodes")]
pub struct Up {
    /// How many control-plane servers; an existing cluster keeps what it has unless this says more [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    servers: Option<u16>,
    /// How many workers; an existing cluster keeps what it has unless this says more [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
    workers: Option<u16>,
    /// The folder of the cluster: data, logs, admin.kubeconfig and cluster.json.
    #[arg(long, value_name = "DIR", default_value_os_t = super::default_directory())]
    data_dir: PathBuf,
    /// The port of the first server's API; the other servers take the next ones [default: 6443].
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// Return when the cluster is ready and leave it running.
    #[arg(long)]
    detach: bool,
}

impl Up {
    /// Starts what does not run, waits until it is ready, and stays until it is asked to end.
    #[expect(clippy::print_stderr, reason = "a verb talks to the person who calls it")]
    pub async fn run(self) -> anyhow::Result<()> {
        let layout = Layout::create(&self.data_dir)?;
        let lock = layout.lock()?;
        let wanted = Wanted { servers: self.servers, workers: self.workers, api_port: self.api_port };
        layout.take_over_restored()?;
        let is_new = layout.load()?.processes.is_empty();
        let started = match start::start(&layout, &wanted).await {
            Ok(started) => started,
            Err(error) => {
                // A new cluster that is half there would be in the way of the next try; one that ran before is left running.
                if is_new {
                    super::down::stop(&layout).await?;
                }
                return Err(error);
            }
        };
        eprintln!("{started}");
        if self.detach {
            return Ok(());
        }
        eprintln!("Ctrl-C stops it.");
        start::stay(&layout).await?;
        super::down::stop(&layout).await?;
        drop(lock);
        Ok(())
    }
}

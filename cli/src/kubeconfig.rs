//! Which cluster a verb talks to, as the admin or as whoever the kubeconfig names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use shoal_client::{Client, Kubeconfig, TlsTransport};

/// How to find the cluster.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The kubeconfig of the cluster [default: KUBECONFIG, else admin.kubeconfig in the data directory].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", global = true)]
    kubeconfig: Option<PathBuf>,
    /// The folder of a local cluster.
    #[arg(long, value_name = "DIR", default_value_os_t = crate::verbs::default_directory(), global = true)]
    data_dir: PathBuf,
}

impl Target {
    /// A client of the cluster; nothing is dialled yet.
    ///
    /// # Errors
    /// When there is no kubeconfig, or it cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let path = self.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"));
        client(&path)
    }
}

/// A client with the kubeconfig at `path`.
///
/// # Errors
/// When it cannot be used.
pub fn client(path: &std::path::Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::load(path).with_context(|| {
        format!(
            "no cluster is known: failed to read {} (`shoal up` makes one, --kubeconfig names another)",
            path.display()
        )
    })?;
    Ok(Client::new(Arc::new(TlsTransport::new(&config)?)))
}

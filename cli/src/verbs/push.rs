//! `shoal push`: a module into the cluster's own registry.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::kubeconfig::Target;
use crate::registry;

/// Push a Wasm module into the cluster's registry.
///
/// The last line that it prints is the image to put into a Pod.
#[derive(Args)]
#[command(after_help = "Example:\n  shoal push target/wasm32-wasip2/release/hello.wasm hello:1")]
pub struct Push {
    /// The module: a component or a core module, in binary form.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// What to call it; without a tag it is `latest`.
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    #[command(flatten)]
    target: Target,
}

impl Push {
    /// Checks the file, uploads what the registry lacks, and names the image.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let wasm = std::fs::read(&self.file).with_context(|| format!("failed to read {}", self.file.display()))?;
        let client = self.target.client()?;
        let pushed = registry::push(&client, &wasm, &self.name)
            .await
            .with_context(|| format!("failed to push {}", self.file.display()))?;
        eprintln!("{} bytes, {}", wasm.len(), pushed.digest);
        println!("{}", pushed.image);
        Ok(())
    }
}

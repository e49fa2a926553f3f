//! One file per verb of the command line.

pub mod backup;
pub mod demo;
pub mod down;
pub mod image;
pub mod key;
pub mod member;
pub mod push;
pub mod server;
pub mod token;
pub mod up;
pub mod version;
pub mod worker;

use std::path::PathBuf;

/// Runs a verb that only talks to processes and servers, on a runtime of one thread.
pub fn wait(verb: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb)
}

/// The folder of the local cluster when none is named: `~/.shoal`.
pub fn default_directory() -> PathBuf {
    std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".shoal")
}

/// Ends when the process is asked to end, by Ctrl-C or SIGTERM; answers the signal's name.
pub async fn asked_to_end() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Logs to standard error, filtered by SHOAL_LOG (such as `info,shoal_store=debug`); `SHOAL_LOG_FORMAT=json` for machines.
pub fn start_logging() -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter =
        std::env::var("SHOAL_LOG").unwrap_or_else(|_| "info,openraft=warn,raft_log=warn,quinn=warn".to_string());
    let filter = EnvFilter::try_new(&filter).map_err(|error| anyhow::anyhow!("SHOAL_LOG {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match std::env::var("SHOAL_LOG_FORMAT").as_deref() {
        Ok("json") => builder.json().init(),
        Ok("text") | Err(_) => builder.init(),
        Ok(other) => anyhow::bail!("SHOAL_LOG_FORMAT must be text or json, not {other:?}"),
    }
    Ok(())
}

/// The token given as a word or in a file.
pub fn token_from(word: Option<String>, file: Option<&std::path::Path>) -> anyhow::Result<Option<String>> {
    use anyhow::Context;
    match file {
        None => Ok(word),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read the token in {}", path.display()))?;
            Ok(Some(text.trim().to_string()))
        }
    }
}

/// Rows as text, each column as wide as its widest word.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

//! Where cargo keeps the unpacked sources of a crate.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// The directory of a crate's source in cargo's registry cache.
pub fn find(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    let sources = home.join("registry/src");
    for registry in std::fs::read_dir(&sources).with_context(|| format!("failed to read {}", sources.display()))? {
        let candidate = registry?.path().join(format!("{name}-{version}"));
        if candidate.is_dir() {
            return Ok(candidate);
        }
    }
    bail!("{name} {version} is not in {}; run `cargo fetch` first", sources.display())
}

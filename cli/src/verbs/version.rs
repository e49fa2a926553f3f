//! `shoal version`.

/// Prints the version of this program and of the API that it speaks.
#[expect(clippy::print_stdout, reason = "what the verb is for")]
pub fn run() -> anyhow::Result<()> {
    println!("shoal {} (Kubernetes API v1.35)", env!("CARGO_PKG_VERSION"));
    Ok(())
}

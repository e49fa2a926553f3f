//! Makes the schema table of `shoal-api` from the sources of `k8s-pb` and `k8s-openapi`.
//!
//! Only facts are taken: names, numbers, types and marks. What neither crate knows (which scalars are pointers in Go,
//! which types JSON writes in a way of its own) stands in `facts.rs` and `../facts/`. Run it as the README says and
//! commit what it wrote.

mod emit;
mod facts;
mod openapi;
mod prost;
mod sources;

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = prost::read(&sources::find("k8s-pb", "0.9.0")?)?;
    let definitions = openapi::read(&sources::find("k8s-openapi", "0.29.0")?.join("src/v1_35"))?;
    let pointers = facts::pointers(&here.join("facts/pointers.txt"))?;
    let table = emit::table(&messages, &definitions, &pointers);
    let path = here.join("../src/schema/table.txt");
    std::fs::write(&path, &table).with_context(|| format!("failed to write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), table.len());
    Ok(())
}

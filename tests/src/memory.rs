//! How much memory a member's process comes to have in the machine, as the kernel counts it.

use std::path::PathBuf;

use anyhow::Context;

use crate::Cluster;

/// The growth of a process from a moment on.
pub struct Growth {
    process: PathBuf,
    before: u64,
}

impl Growth {
    /// Of the member called `name`, from now on.
    ///
    /// # Errors
    /// When there is no such member, or it does not run.
    pub fn of(cluster: &Cluster, name: &str) -> anyhow::Result<Growth> {
        let rows = cluster.processes()?;
        let row = rows.iter().find(|row| row["name"] == name).with_context(|| format!("there is no {name}"))?;
        let process = PathBuf::from(format!("/proc/{}", row["pid"]));
        // 5: the peak begins anew (proc(5), `clear_refs`).
        std::fs::write(process.join("clear_refs"), "5").with_context(|| format!("{name} does not run"))?;
        let growth = Growth { process, before: 0 };
        Ok(Growth { before: growth.field_bytes("VmRSS")?, ..growth })
    }

    /// How many bytes more than then it had at most.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn most_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.field_bytes("VmHWM")?.saturating_sub(self.before))
    }

    fn field_bytes(&self, field: &str) -> anyhow::Result<u64> {
        let path = self.process.join("status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib: u64 = value.and_then(|value| value.trim().strip_suffix(" kB")).context("no such field")?.parse()?;
        Ok(kib * 1024)
    }
}

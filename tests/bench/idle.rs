//! What a cluster costs when nothing happens.

use std::time::Duration;

use anyhow::Context;
use shoal_tests::Cluster;

use crate::machine;
use crate::report::Report;

/// The time after which a process counts as settled, and for which it is watched.
const SETTLE: Duration = Duration::from_secs(8);

/// Resident memory and processor time of one server and one worker.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    std::thread::sleep(SETTLE);
    let mut members = Vec::new();
    for row in cluster.processes()? {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        let pid = row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).context("no process id")?;
        members.push((name, pid, machine::processor_time(pid)?));
    }
    std::thread::sleep(SETTLE);
    for (name, pid, before) in members {
        let used = machine::processor_time(pid)?.saturating_sub(before);
        let share = 100.0 * used.as_secs_f64() / SETTLE.as_secs_f64();
        let (resident, proportional) = machine::memory(pid)?;
        let mib = |kib: u64| kib as f64 / 1_024.0;
        report.add(
            format!("idle {name}"),
            format!(
                "{:.0} MiB resident ({:.0} MiB its share), {share:.1} % of a core",
                mib(resident),
                mib(proportional)
            ),
        );
    }
    Ok(())
}

//! What the kernel says of a process, and where it may run.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;

/// Resident memory of a process in KiB: all of it, and its share when pages are divided among those that map them.
pub fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let field = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path}: no {name}"))?;
        anyhow::Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    };
    Ok((field("Rss:")?, field("Pss:")?))
}

/// The processor time that a process has used.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; what follows its bracket does not. utime and stime are fields 14 and 15.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("no time");
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) as f64 / per_second as f64))
}

/// Keeps every thread of a process, and those that it starts, on one core.
#[allow(dead_code, reason = "not every benchmark pins")]
pub fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let output = Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).output();
    let output = output.context("failed to run taskset (util-linux)")?;
    anyhow::ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

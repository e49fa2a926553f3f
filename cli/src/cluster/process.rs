//! One member's process: started in a process group of its own, its output in a log file, stopped by a signal.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};

use super::layout::{Layout, Process};

/// How long a member may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Starts `process` with this same binary; answers its process id.
///
/// It gets a process group of its own, so that Ctrl-C in the terminal reaches only us, who stop the members in order.
///
/// # Errors
/// When the log cannot be opened or the process not be started.
pub fn start(layout: &Layout, name: &str, arguments: &[String]) -> anyhow::Result<u32> {
    let path = layout.log(name);
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("failed to open the log {}", path.display()))?;
    let binary = std::env::current_exe().context("failed to find this program's own file")?;
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
    let pid = child.id();
    // The process is known by its id from here on; this thread only takes its exit status, so that no zombie stays.
    std::thread::Builder::new()
        .name(format!("wait {name}"))
        .spawn(move || drop(child.wait()))
        .context("failed to start a thread")?;
    Ok(pid)
}

/// Whether the process is there and is still the member that we started, not another one that got its number.
pub fn is_alive(process: &Process) -> bool {
    let path = format!("/proc/{}/cmdline", process.pid);
    let Ok(line) = std::fs::read(Path::new(&path)) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let arguments: Vec<&[u8]> = process.arguments.iter().map(String::as_bytes).collect();
    words.len() > arguments.len() && words[1..=arguments.len()] == arguments[..]
}

/// Asks all of `processes` to end, waits for them together, and kills what is still there after a deadline.
///
/// # Errors
/// When one is left even so.
pub async fn stop(processes: &[&Process]) -> anyhow::Result<()> {
    signal(processes, Signal::TERM);
    if wait_for_end(processes, STOP_DEADLINE).await {
        return Ok(());
    }
    signal(processes, Signal::KILL);
    anyhow::ensure!(
        wait_for_end(processes, Duration::from_secs(5)).await,
        "a process did not end even when it was killed"
    );
    Ok(())
}

fn signal(processes: &[&Process], signal: Signal) {
    for process in processes.iter().filter(|process| is_alive(process)) {
        if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
            // It may have ended just now, which is what was wanted.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

async fn wait_for_end(processes: &[&Process], deadline: Duration) -> bool {
    let ended = async {
        while processes.iter().any(|process| is_alive(process)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(deadline, ended).await.is_ok()
}

/// The last lines of a member's log, for an error that must say why it ended.
pub fn log_tail(layout: &Layout, name: &str, lines: usize) -> String {
    let text = std::fs::read_to_string(layout.log(name)).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

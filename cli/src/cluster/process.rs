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
    // What is read while a program takes its place is not always its command line, or none: another one is looked at again.
    for _ in 0..3 {
        match command_line(process.pid) {
            None => return false,
            Some(line) if line.is_empty() || is_of(process, &line) => return true,
            Some(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    false
}

/// What the process with this number was called by, if there is one.
fn command_line(pid: u32) -> Option<Vec<u8>> {
    let line = std::fs::read(Path::new(&format!("/proc/{pid}/cmdline"))).ok()?;
    // A process that is over has no command line, and neither has one that was started this instant, until its program is there.
    if line.is_empty() && is_over(pid) { None } else { Some(line) }
}

fn is_of(process: &Process, line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let arguments: Vec<&[u8]> = process.arguments.iter().map(String::as_bytes).collect();
    words.len() > arguments.len() && words[1..=arguments.len()] == arguments[..]
}

/// Whether the process has ended and only its exit status is left, if that.
fn is_over(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in brackets and may hold any character.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::Role;

    fn process(pid: u32, arguments: &[&str]) -> Process {
        let arguments = arguments.iter().map(|word| (*word).to_string()).collect();
        Process { name: "server-1".to_string(), role: Role::Server, pid, addresses: Vec::new(), arguments }
    }

    #[test]
    fn a_process_is_alive_from_the_moment_it_is_started_to_its_end() {
        for _ in 0..300 {
            let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
            let is_alive_at_once = is_alive(&process(child.id(), &["60"]));
            let line = command_line(child.id());
            child.kill().expect("killed");
            let own = process(child.id(), &["60"]);
            while is_alive(&own) {
                std::thread::yield_now();
            }
            child.wait().expect("its status");
            assert!(
                is_alive_at_once,
                "a process that was just started counts as ended; before it was killed: {line:?}"
            );
        }
    }

    #[test]
    fn another_process_of_that_number_is_not_the_member() {
        assert!(!is_alive(&process(std::process::id(), &["server", "--data-dir", "/nowhere"])));
    }
}

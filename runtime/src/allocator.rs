//! The system's allocator, for a process that holds thousands of small things for a long time.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;

/// How often it is looked whether there is something to give back.
const PERIOD: Duration = Duration::from_secs(10);
/// What is worth giving back, and what a process that does nothing may grow by, in bytes.
const WORTH: u64 = 4 << 20;
const QUIET: u64 = 1 << 20;

/// Has the allocator share its memory between as many places as there are processors, and not eight times as many: what is freed in
/// one is not there for another, and with a place for nearly each thread much of a worker's memory was of nobody's use. To be called
/// before there are threads. It does nothing where the allocator is another than glibc's.
pub fn few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = libc::c_int::try_from(processors.max(2)).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "the allocator takes its settings by a call of C's")]
        // SAFETY: it takes two numbers and keeps one of them; the option is one that glibc knows, and any number is good for it.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}

/// Gives the system back what bursts leave free: glibc keeps it, and a worker that has started a hundred pods at once, or has put the
/// code of as many functions aside, would hold twice the memory that it uses.
pub(crate) async fn give_back(context: Arc<Context>) {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let mut bursts = Bursts::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = || Look { resident: resident(), functions: context.guests.stats().loaded_functions };
        if !bursts.is_over(look()) {
            continue;
        }
        let _ = tokio::task::spawn_blocking(trim).await;
        bursts.gave_back(look());
    }
}

/// What the process has in memory.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Its own memory, without what is a file's, in bytes.
    resident: u64,
    /// How many functions' code.
    functions: u64,
}

/// When bursts end.
#[derive(Debug, Default)]
struct Bursts {
    last: Look,
    /// Right after memory was given back.
    settled: Look,
}

impl Bursts {
    /// Whether much was allocated, or code was put aside, since memory was given back, and it grows no more.
    fn is_over(&mut self, now: Look) -> bool {
        let is_quiet = now.resident <= self.last.resident + QUIET && now.functions <= self.last.functions;
        self.last = now;
        self.settled.functions = self.settled.functions.max(now.functions);
        is_quiet && (now.resident > self.settled.resident + WORTH || now.functions < self.settled.functions)
    }

    fn gave_back(&mut self, now: Look) {
        (self.last, self.settled) = (now, now);
    }
}

/// The process's own memory, in bytes; 0 where the system does not say.
fn resident() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| own_memory(&status))
}

fn own_memory(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "the allocator is asked by a call of C's")]
        // SAFETY: it takes a number, what to keep at the top, and locks what it looks at; any thread may call it at any time.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(mebibytes: u64, functions: u64) -> Look {
        Look { resident: mebibytes << 20, functions }
    }

    #[test]
    fn memory_is_given_back_once_after_a_burst() {
        let mut bursts = Bursts::default();
        assert!(!bursts.is_over(look(20, 0)), "it has just grown");
        assert!(bursts.is_over(look(20, 0)), "the start is over");
        bursts.gave_back(look(15, 0));
        assert!(!bursts.is_over(look(15, 0)));
        assert!(!bursts.is_over(look(17, 0)), "it is not worth it");
        assert!(!bursts.is_over(look(40, 100)), "it goes on");
        assert!(bursts.is_over(look(40, 100)));
        bursts.gave_back(look(39, 100));
        // All of it is used: there is nothing to ask for again.
        assert!(!bursts.is_over(look(39, 100)));
    }

    #[test]
    fn memory_is_given_back_when_code_was_put_aside() {
        let mut bursts = Bursts::default();
        bursts.gave_back(look(40, 100));
        assert!(bursts.is_over(look(40, 30)));
        bursts.gave_back(look(30, 30));
        assert!(!bursts.is_over(look(30, 40)), "more was loaded");
        assert!(bursts.is_over(look(30, 35)));
    }

    #[test]
    fn the_system_says_what_is_the_process_s_own() {
        assert_eq!(own_memory("VmRSS:\t   52 kB\nRssAnon:\t   12 kB\nRssFile:\t 40 kB\n"), 12 << 10);
        assert_eq!(own_memory("VmRSS:\t   52 kB\n"), 0);
        assert!(!cfg!(target_os = "linux") || resident() > 0);
    }
}

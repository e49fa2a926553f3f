//! Reading what the node has left: the seam at which tests put in a node that runs out.

use std::path::{Path, PathBuf};

use rustix::fs::StatVfs;

use super::threshold::{Reading, Readings, Signal};
use crate::guests::Usage;
use crate::usage::ThisProcess;

/// Says what is left. Blocks for a moment.
pub trait Signals: Send + Sync + 'static {
    /// Everything that can be read now.
    fn read(&self) -> Readings;
}

/// This machine, and of its memory the part that the node offers.
pub struct MachineSignals {
    /// The agent's directory: volumes and logs are below it.
    pub data_dir: PathBuf,
    /// Bytes that the node offers.
    pub memory_bytes: u64,
}

impl Signals for MachineSignals {
    fn read(&self) -> Readings {
        let images = self.data_dir.join("images");
        let images = if images.is_dir() { images } else { self.data_dir.clone() };
        let (nodefs, imagefs) = (file_system(&self.data_dir), file_system(&images));
        let bytes = |fs: &StatVfs| Reading {
            available: fs.f_bavail.saturating_mul(fs.f_frsize),
            capacity: fs.f_blocks.saturating_mul(fs.f_frsize),
        };
        let files = |fs: &StatVfs| Reading { available: fs.f_favail, capacity: fs.f_files };
        // Some file systems make inodes as they go and say 0 of 0.
        let counted = |fs: &Option<StatVfs>| fs.as_ref().filter(|fs| fs.f_files > 0).map(files);
        [
            (Signal::MemoryAvailable, memory(self.memory_bytes)),
            (Signal::NodefsAvailable, nodefs.as_ref().map(bytes)),
            (Signal::NodefsInodesFree, counted(&nodefs)),
            (Signal::ImagefsAvailable, imagefs.as_ref().map(bytes)),
            (Signal::ImagefsInodesFree, counted(&imagefs)),
            (Signal::PidAvailable, processes()),
        ]
        .into_iter()
        .filter_map(|(signal, reading)| Some((signal, reading?)))
        .collect()
    }
}

fn file_system(path: &Path) -> Option<StatVfs> {
    rustix::fs::statvfs(path).ok()
}

/// What the machine has left, and no more than this process may still take of what the node offers.
fn memory(offered: u64) -> Option<Reading> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let own = offered.saturating_sub(ThisProcess.memory_bytes());
    Some(Reading { available: own.min(machine.saturating_mul(1024)), capacity: offered })
}

/// The machine's processes and threads: it can have as many as the smaller of two limits says.
fn processes() -> Option<Reading> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let capacity = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running: u64 = load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Reading { available: capacity.saturating_sub(running), capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_what_it_has() {
        let directory = tempfile::tempdir().expect("directory");
        let readings = MachineSignals { data_dir: directory.path().to_owned(), memory_bytes: 1 << 40 }.read();
        for signal in [Signal::MemoryAvailable, Signal::NodefsAvailable, Signal::PidAvailable] {
            let reading = readings[&signal];
            assert!(reading.available > 0 && reading.available <= reading.capacity, "{signal:?} {reading:?}");
        }
        let little = MachineSignals { data_dir: directory.path().to_owned(), memory_bytes: 1 }.read();
        assert_eq!(little[&Signal::MemoryAvailable], Reading { available: 0, capacity: 1 });
    }
}

//! What the system allows us: looked up once at start, so that a worker promises no more than it can hold.

/// The limits that running guests meet first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Mappings that a process of the system may have: `vm.max_map_count`.
    max_maps: u64,
    /// Files that it may have open.
    max_files: u64,
}

/// Mappings of one guest process: its memory, its stack, its tables, their guards. Measured: 7.
const MAPS_A_PROCESS: u64 = 8;
/// Mappings of one slot for a function's instance. Measured: 4.
const MAPS_A_SLOT: u64 = 4;
/// Mappings for everything else: code, threads, the allocator, compiled modules at three each.
const MAPS_IN_RESERVE: u64 = 8192;
/// Files of one guest process: its directories, its log, its sockets.
const FILES_A_PROCESS: u64 = 4;
/// Files for everything else.
const FILES_IN_RESERVE: u64 = 256;

impl Machine {
    /// Asks the system. What it does not tell is taken to be as Linux has it by default.
    pub(crate) fn probe() -> Self {
        let max_maps = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            max_maps: max_maps.and_then(|text| text.trim().parse().ok()).unwrap_or(65_530),
            max_files: max_files(&limits).unwrap_or(1024),
        }
    }

    /// How many processes fit beside `slots` for functions.
    pub(crate) fn processes(self, slots: u32) -> u32 {
        let maps = self.max_maps.saturating_sub(MAPS_IN_RESERVE + u64::from(slots) * MAPS_A_SLOT) / MAPS_A_PROCESS;
        let files = self.max_files.saturating_sub(FILES_IN_RESERVE) / FILES_A_PROCESS;
        u32::try_from(maps.min(files)).unwrap_or(u32::MAX)
    }
}

/// The soft limit of open files in the words of `/proc/self/limits`.
fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_mappings_and_files_decides() {
        let machine = Machine { max_maps: 65_530, max_files: 1 << 20 };
        assert_eq!(machine.processes(512), 6911);
        assert_eq!(Machine { max_files: 1024, ..machine }.processes(512), 192);
        assert_eq!(Machine { max_maps: 4096, ..machine }.processes(512), 0);
    }

    #[test]
    fn the_limit_of_files_is_found() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_files(limits), Some(1024));
        assert_eq!(
            max_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(max_files(""), None);
        assert!(Machine::probe().processes(0) > 0);
    }
}

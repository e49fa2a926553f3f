//! What a guest uses.

use std::sync::Arc;
use std::time::Duration;

use crate::{cpu, memory};

/// What the instances of one function, or a process, use. Cheap to clone.
#[derive(Clone)]
pub struct Usage {
    pub(crate) memory: Arc<memory::Meter>,
    pub(crate) cpu: Arc<cpu::Meter>,
}

impl Usage {
    /// Bytes of memory now.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.used()
    }

    /// The CPU time up to now.
    pub fn cpu_time(&self) -> Duration {
        self.cpu.total()
    }
}

//! What several guests may use together.

use std::sync::Arc;

use crate::{cpu, memory};

/// A limit over several guests, beside what each of them may: give it to all of them by [`crate::Grants::group`].
#[derive(Debug)]
pub struct Group {
    pub(crate) memory: memory::Pool,
    pub(crate) cpu: Option<cpu::Quota>,
}

impl Group {
    /// Bytes of memory and tables, and thousandths of a core over periods of 100 ms; none means no limit.
    pub fn new(memory_limit_bytes: Option<u64>, cpu_limit_millis: Option<u32>) -> Arc<Self> {
        Arc::new(Self { memory: memory::Pool::new(memory_limit_bytes), cpu: cpu_limit_millis.map(cpu::Quota::new) })
    }

    /// Bytes that its guests use now.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.used()
    }
}

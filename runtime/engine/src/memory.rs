//! The memory limit: exact, over all linear memories and tables of all instances of one guest together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use crate::group::Group;

/// What a table's element costs, in bytes.
const ELEMENT: u64 = 8;

/// What a guest uses, and what it may, alone and with others.
#[derive(Debug)]
pub(crate) struct Meter {
    own: Pool,
    group: Option<Arc<Group>>,
}

/// Bytes of which there may be so many.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: Option<u64>,
    used: AtomicU64,
}

/// The guest asked for more than its limit. Its own error, so that it is told from a trap.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit of {limit} bytes is exceeded: {used} bytes are used and {wanted} more are wanted")]
pub(crate) struct OutOfMemory {
    limit: u64,
    used: u64,
    wanted: u64,
}

impl Pool {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// Bytes used now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, wanted: u64) -> Result<(), OutOfMemory> {
        let used = self.used.fetch_add(wanted, Ordering::Relaxed);
        match self.limit {
            Some(limit) if used.saturating_add(wanted) > limit => {
                self.give_back(wanted);
                Err(OutOfMemory { limit, used, wanted })
            }
            _ => Ok(()),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Meter {
    pub(crate) fn new(limit: Option<u64>, group: Option<Arc<Group>>) -> Arc<Self> {
        Arc::new(Self { own: Pool::new(limit), group })
    }

    /// Bytes used now.
    pub(crate) fn used(&self) -> u64 {
        self.own.used()
    }

    fn take(&self, wanted: u64) -> Result<(), OutOfMemory> {
        self.own.take(wanted)?;
        match self.group.as_ref().map(|group| group.memory.take(wanted)) {
            Some(Err(error)) => {
                self.own.give_back(wanted);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.own.give_back(bytes);
        if let Some(group) = &self.group {
            group.memory.give_back(bytes);
        }
    }
}

/// One instance's share; it is given back when the instance goes.
#[derive(Debug)]
pub(crate) struct Share {
    meter: Arc<Meter>,
    own: u64,
    exceeded: bool,
}

impl Share {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self { meter, own: 0, exceeded: false }
    }

    /// Whether this instance ran into the limit.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded
    }

    fn grow(&mut self, by: u64) -> wasmtime::Result<bool> {
        match self.meter.take(by) {
            Ok(()) => {
                self.own += by;
                Ok(true)
            }
            Err(error) => {
                self.exceeded = true;
                Err(wasmtime::Error::from(error))
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.meter.give_back(self.own);
    }
}

impl ResourceLimiter for Share {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // A guest that asks for more than its own module allows is told no by the engine, and nothing is taken.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current) as u64)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired.saturating_sub(current) as u64) * ELEMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_one_limit_and_give_back_what_they_had() {
        let meter = Meter::new(Some(100), None);
        let mut first = Share::new(meter.clone());
        let mut second = Share::new(meter.clone());
        assert!(first.memory_growing(0, 60, None).is_ok_and(|grown| grown));
        assert!(second.memory_growing(0, 50, None).is_err());
        assert!(second.exceeded() && !first.exceeded());
        drop(first);
        assert_eq!(meter.used(), 0);
        assert!(second.table_growing(0, 12, None).is_ok_and(|grown| grown));
        assert_eq!(meter.used(), 96);
        assert!(second.memory_growing(0, 9, Some(8)).is_ok_and(|grown| !grown));
    }

    #[test]
    fn guests_of_a_group_share_its_limit_beside_their_own() {
        let group = Group::new(Some(100), None);
        let meters = [Meter::new(Some(80), Some(group.clone())), Meter::new(None, Some(group.clone()))];
        let [mut first, mut second] = meters.clone().map(Share::new);
        assert!(first.memory_growing(0, 90, None).is_err(), "its own limit");
        assert_eq!((meters[0].used(), group.memory_bytes()), (0, 0));
        assert!(first.memory_growing(0, 60, None).is_ok_and(|grown| grown));
        assert!(second.memory_growing(0, 50, None).is_err(), "the group's");
        assert_eq!((meters[1].used(), group.memory_bytes()), (0, 60));
        assert!(second.exceeded() && second.memory_growing(0, 40, None).is_ok_and(|grown| grown));
        drop(first);
        assert_eq!(group.memory_bytes(), 40);
    }
}

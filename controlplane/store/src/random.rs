//! What is random in Raft: nothing to see to, but in a simulation, where the seed chooses it.

/// A task in which Raft may want something random.
#[cfg(not(feature = "simulation"))]
pub(crate) fn seeded<F: Future>(work: F) -> F {
    work
}

#[cfg(feature = "simulation")]
pub(crate) use simulation::seeded;

/// For `tests/sim`.
#[cfg(feature = "simulation")]
pub mod simulation {
    use std::cell::Cell;

    thread_local! {
        static SEED: Cell<u64> = const { Cell::new(0) };
    }

    /// Chooses everything that is random on this thread from now on.
    pub fn set_seed(seed: u64) {
        SEED.set(seed);
    }

    /// A task in which Raft may want something random.
    pub fn seeded<F: Future>(work: F) -> impl Future<Output = F::Output> {
        let seed = SEED.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        SEED.set(seed);
        crate::raft::Runtime::scope(seed, work)
    }
}

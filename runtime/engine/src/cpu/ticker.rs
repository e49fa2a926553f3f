//! The epochs: compiled code looks at a counter, which a thread raises every millisecond while any guest runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The length of an epoch.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Raises the epoch of the engines while guests run, and rests while none does.
pub(crate) struct Ticker {
    running: AtomicUsize,
    thread: std::thread::Thread,
    engines: Mutex<Vec<wasmtime::EngineWeak>>,
}

impl Ticker {
    /// Starts the thread. It ends when the ticker is dropped.
    pub(crate) fn start(engines: Vec<wasmtime::EngineWeak>) -> std::io::Result<Arc<Self>> {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<std::sync::Weak<Self>>(1);
        let handle = std::thread::Builder::new().name("epochs".to_string()).spawn(move || {
            let Ok(ticker) = receiver.recv() else { return };
            tick(&ticker);
        })?;
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            thread: handle.thread().clone(),
            engines: Mutex::new(engines),
        });
        // The thread waits for exactly this, so that there is a place in the channel.
        let _ = sender.send(Arc::downgrade(&ticker));
        Ok(ticker)
    }

    /// Raises the epoch of this engine too.
    pub(super) fn add(&self, engine: wasmtime::EngineWeak) {
        self.lock().push(engine);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<wasmtime::EngineWeak>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

fn tick(ticker: &std::sync::Weak<Ticker>) {
    loop {
        let Some(strong) = ticker.upgrade() else { return };
        let busy = strong.running.load(Ordering::Acquire) > 0;
        if busy {
            std::thread::sleep(TICK);
            for engine in strong.lock().iter().filter_map(wasmtime::EngineWeak::upgrade) {
                engine.increment_epoch();
            }
        } else {
            drop(strong);
            // A guest that enters between the look and this has left its mark: the park returns at once.
            std::thread::park();
        }
    }
}

//! The code of functions: a function that is not asked for a while keeps none in memory, and has it again, from the folder of compiled
//! code, with its next request. So thousands of functions cost little, each with a module of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::Engine;
use crate::error::LoadError;
use crate::host::Host;
use crate::module::{self, Linked};

/// How many functions' code is in memory, of those that were asked last.
const CODE_KEPT: usize = 256;
/// How long code stays in memory that nobody asks for.
const CODE_IDLE: Duration = Duration::from_secs(60);

/// What is run for a request.
type Proxy = Arc<ProxyPre<Host>>;

/// The code of a module of WASI 0.2 that answers requests.
pub(crate) struct Code {
    digest: String,
    wasm: module::Source,
    loaded: Mutex<Option<Proxy>>,
    /// Taken while it is loaded, so that it is loaded once.
    loading: tokio::sync::Mutex<()>,
    /// When it was asked for last, in milliseconds since the engine began.
    used: AtomicU64,
}

impl Code {
    /// One that is loaded.
    pub(crate) fn new(digest: &str, wasm: module::Source, proxy: ProxyPre<Host>) -> Arc<Self> {
        Arc::new(Self {
            digest: digest.to_string(),
            wasm,
            loaded: Mutex::new(Some(Arc::new(proxy))),
            loading: tokio::sync::Mutex::default(),
            used: AtomicU64::new(0),
        })
    }

    /// What is run, loaded if it is not.
    ///
    /// # Errors
    /// [`LoadError`], when it cannot be had again.
    pub(crate) async fn get(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Proxy, LoadError> {
        self.used.store(engine.codes.now(), Ordering::Relaxed);
        if let Some(proxy) = self.lock().clone() {
            return Ok(proxy);
        }
        let _turn = self.loading.lock().await;
        if let Some(proxy) = self.lock().clone() {
            return Ok(proxy);
        }
        let began = Instant::now();
        let (code, its_engine) = (self.clone(), engine.clone());
        let linked = tokio::task::spawn_blocking(move || module::find(&its_engine, &code.digest, &code.wasm)).await;
        engine.counters.loads.took(began.elapsed());
        match linked.map_err(|error| module::machine("load the compiled module", &error))?? {
            Linked::Proxy(proxy) => {
                let proxy = Arc::new(proxy);
                *self.lock() = Some(proxy.clone());
                engine.codes.keep(self);
                Ok(proxy)
            }
            _ => Err(module::machine("load the compiled module", &"it is another than it was")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Proxy>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The codes that are in memory.
pub(crate) struct Codes {
    began: Instant,
    loaded: Mutex<Vec<Weak<Code>>>,
    is_watched: AtomicBool,
}

impl Codes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), loaded: Mutex::default(), is_watched: AtomicBool::new(false) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One more is in memory: of too many that one goes that was asked for longest ago.
    pub(crate) fn keep(self: &Arc<Self>, code: &Arc<Code>) {
        code.used.store(self.now(), Ordering::Relaxed);
        let mut loaded = self.lock();
        loaded.retain(|known| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(code)));
        loaded.push(Arc::downgrade(code));
        let oldest = (loaded.len() > CODE_KEPT).then(|| {
            let used = |code: &Weak<Code>| code.upgrade().map_or(0, |code| code.used.load(Ordering::Relaxed));
            let place = (0..loaded.len()).min_by_key(|place| used(&loaded[*place])).unwrap_or(0);
            loaded.swap_remove(place)
        });
        drop(loaded);
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            let put_aside = oldest.lock().take();
            drop(put_aside);
        }
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.lock().iter().filter(|code| code.strong_count() > 0).count() as u64
    }

    /// Puts those aside that nobody has asked for; false when none is left.
    fn prune(&self, idle: Duration) -> bool {
        let before = self.now().saturating_sub(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        let mut aside = Vec::new();
        let mut loaded = self.lock();
        loaded.retain(|code| {
            let Some(code) = code.upgrade() else { return false };
            let is_used = code.used.load(Ordering::Relaxed) > before;
            if !is_used {
                aside.push(code);
            }
            is_used
        });
        let is_any = !loaded.is_empty();
        if !is_any {
            self.is_watched.store(false, Ordering::Release);
        }
        drop(loaded);
        for code in aside {
            let put_aside = code.lock().take();
            drop(put_aside);
        }
        is_any
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Code>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the codes until none is in memory.
async fn watch(codes: Weak<Codes>) {
    loop {
        tokio::time::sleep(CODE_IDLE / 4).await;
        let Some(codes) = codes.upgrade() else { return };
        if !codes.prune(CODE_IDLE) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;

    async fn codes(engine: &Arc<Engine>, count: usize) -> Vec<Arc<Code>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wasm-examples/hello/hello.wasm");
        let mut codes = Vec::new();
        for number in 0..count {
            let wasm: module::Source = Arc::new(move || std::fs::read(path));
            let Ok(Linked::Proxy(proxy)) = module::find(engine, &format!("hello-{number}"), &wasm) else {
                panic!("hello is a function of WASI 0.2")
            };
            codes.push(Code::new(&format!("hello-{number}"), wasm, proxy));
        }
        codes
    }

    #[tokio::test]
    async fn what_is_not_asked_for_is_put_aside_and_had_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = EngineConfig { cache_dir: Some(folder.path().to_owned()), ..EngineConfig::default() };
        let engine = Engine::new(&config).expect("an engine");
        let codes = codes(&engine, 2).await;
        for code in &codes {
            engine.codes.keep(code);
        }
        let is_there = |code: &Arc<Code>| code.lock().is_some();
        assert!(engine.codes.prune(Duration::from_secs(60)), "both were just loaded");
        tokio::time::sleep(Duration::from_millis(30)).await;
        codes[1].get(&engine).await.expect("it is there");
        assert!(engine.codes.prune(Duration::from_millis(20)));
        assert_eq!((is_there(&codes[0]), is_there(&codes[1])), (false, true));
        codes[0].get(&engine).await.expect("it is had again");
        assert!(is_there(&codes[0]));
        // Compiled anew, where the file is gone.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!engine.codes.prune(Duration::ZERO), "none is left");
        engine.forget("hello-0").expect("removed");
        codes[0].get(&engine).await.expect("it is had again");
    }
}

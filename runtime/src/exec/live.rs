//! A running container as those see it who attach to it: its output from now on, and its input.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use shoal_engine::StdinWriter;
use tokio::sync::broadcast;

use crate::guests::{OutputSink, Prepared};
use crate::logs::{ContainerLog, Stream};

/// Pieces of output that wait for one who is attached; one who reads more slowly misses what is older.
const PIECES: usize = 256;

/// The way to those who are attached: made for the first of them, since it is large and most containers never see one.
type Output = OnceLock<broadcast::Sender<(Stream, Bytes)>>;

/// One run of a container.
pub struct Live {
    /// What runs.
    pub prepared: Prepared,
    /// The pod's address.
    pub address: Option<IpAddr>,
    /// Whether its streams are a terminal's.
    pub is_terminal: bool,
    output: Arc<Output>,
    stdin: Mutex<Option<StdinWriter>>,
    /// Whether its input ends with the first who attaches to it.
    is_stdin_once: bool,
}

impl Live {
    /// A run that begins.
    pub fn new(
        prepared: Prepared,
        address: Option<IpAddr>,
        stdin: Option<StdinWriter>,
        is_stdin_once: bool,
        is_terminal: bool,
    ) -> Arc<Live> {
        Arc::new(Live {
            prepared,
            address,
            is_terminal,
            output: Arc::default(),
            stdin: Mutex::new(stdin),
            is_stdin_once,
        })
    }

    /// What it prints from now on; ends with the run.
    pub fn listen(&self) -> broadcast::Receiver<(Stream, Bytes)> {
        self.output.get_or_init(|| broadcast::Sender::new(PIECES)).subscribe()
    }

    /// Its input, if it has one that is open.
    pub fn stdin(&self) -> Option<StdinWriter> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One who was attached to its input is gone.
    pub fn detached(&self) {
        if self.is_stdin_once {
            self.end_input();
        }
    }

    /// Nobody writes to it any more.
    pub fn end_input(&self) {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Where a container's output goes: into its log, and to those who are attached.
pub struct LiveLog {
    /// The log.
    pub log: Arc<ContainerLog>,
    /// Those who are attached; the run does not live longer for them.
    live: Weak<Output>,
}

impl LiveLog {
    /// The output of a run.
    pub fn new(log: Arc<ContainerLog>, live: &Live) -> LiveLog {
        LiveLog { log, live: Arc::downgrade(&live.output) }
    }
}

impl OutputSink for ContainerLog {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        ContainerLog::write(self, stream, bytes);
    }
}

impl OutputSink for LiveLog {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.log.write(stream, bytes);
        if let Some(live) = self.live.upgrade()
            && let Some(live) = live.get()
            && live.receiver_count() > 0
        {
            // The last one may just have gone.
            let _ = live.send((stream, Bytes::copy_from_slice(bytes)));
        }
    }
}

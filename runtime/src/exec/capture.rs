//! A command that the agent itself runs in a container, for a probe or a hook: its exit counts, and the beginning of what it prints.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::start;
use crate::context::Context;
use crate::guests::OutputSink;
use crate::logs::Stream;
use crate::pod::spec;

/// Bytes of the output that are kept, as the kubelet does.
const KEPT: usize = 10 << 10;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// The beginning of what it printed.
    pub output: String,
}

#[derive(Default)]
struct Kept(Mutex<Vec<u8>>);

impl OutputSink for Kept {
    fn write(&self, _stream: Stream, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Runs it to its end. Dropping the future ends it.
///
/// # Errors
/// A sentence: it could not be started.
pub async fn run(context: &Context, pod: &Pod, container: &str, command: &[String]) -> Result<Ended, String> {
    let live =
        context.live(spec::uid(pod), container).ok_or_else(|| format!("container {container:?} is not running"))?;
    let kept = Arc::new(Kept::default());
    let mut process = start::start(context, pod, container, &live, command, start::silent(kept.clone())).await?;
    let exit = process.wait().await;
    let output = String::from_utf8_lossy(&kept.0.lock().unwrap_or_else(PoisonError::into_inner)).trim_end().to_owned();
    Ok(Ended { code: exit.code, output })
}

//! Starting a command's instance.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use shoal_engine::Stdin;

use super::choice::{self, Choice};
use super::live::Live;
use crate::container::{self, Streams};
use crate::context::Context;
use crate::guests::{GuestProcess, OutputSink, Started};
use crate::last_words;
use crate::pod::spec;

/// Starts `command` in a container that runs.
///
/// # Errors
/// A sentence.
pub async fn start(
    context: &Context,
    pod: &Pod,
    container: &str,
    live: &Live,
    command: &[String],
    streams: Streams,
) -> Result<Box<dyn GuestProcess>, String> {
    let definition = spec::container(pod, container).ok_or_else(|| format!("there is no container {container:?}"))?;
    let own = &live.prepared;
    let program = match choice::choose(command, own.program.runs_commands())? {
        Choice::Own => Arc::clone(&own.program),
        Choice::Toolbox => context.guests.toolbox().await?,
    };
    let variables = container::variables(context, pod, &definition, live.address, own).await?;
    let mut grants = container::grants(context, pod, &definition, live.address, &variables, streams)?;
    last_words::show(&definition, &context.volume_root(spec::uid(pod)), &mut grants.mounts);
    grants.arguments = command.to_vec();
    match program.start(grants)? {
        Started::Process(process) => Ok(process),
        Started::Function(_) => Err("the program runs no commands".to_owned()),
    }
}

/// A command without an input, whose output goes to `output`.
pub fn silent(output: Arc<dyn OutputSink>) -> Streams {
    Streams { stdin: Stdin::empty(), output, is_terminal: false }
}

//! A command for a client: what it types goes in, what the command prints comes out, and how it ended at last.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::api::core::v1::Pod;
use shoal_engine::{Stdin, StdinWriter};
use shoal_link::http::Body;
use shoal_link::tasks::spawn_connection;
use shoal_streams::{Channel, Decoder, Message, encode};
use tokio::sync::mpsc;

use super::options::Options;
use super::pipe::{self, Pipe, PipeReader};
use super::terminal::Terminal;
use super::{start, status};
use crate::container::Streams;
use crate::context::Context;
use crate::guests::{Exit, GuestProcess};
use crate::kubelet_api::Refusal;
use crate::pod::spec;

/// Messages that wait for the connection to the server.
const MESSAGES: usize = 4;
/// The exit code of a command that was interrupted from its terminal.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs a command; the answer's body lasts until it has ended. The client's going ends it.
///
/// # Errors
/// What the client is told before anything runs.
pub async fn exec(
    context: &Arc<Context>,
    pod: &Pod,
    container: &str,
    query: &str,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query);
    let live = context.live(spec::uid(pod), container).ok_or_else(|| not_running(pod, container))?;
    let (writer, stdin) = if options.stdin {
        let (writer, stdin) = Stdin::pipe();
        (Some(writer), stdin)
    } else {
        (None, Stdin::empty())
    };
    let (pipe, reader) = pipe::pipe(options.tty);
    let streams = Streams { stdin, output: pipe.clone(), is_terminal: options.tty };
    let process = start::start(context, pod, container, &live, &options.command, streams).await;
    let process = process.map_err(|message| (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message))?;
    let input = Input { writer, echo: options.tty.then(|| (Terminal::default(), pipe)) };
    let (sender, response) = answer();
    let stop = context.tasks.stop().clone();
    spawn_connection("exec", async move {
        tokio::select! {
            () = serve(process, input, body, reader, sender) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}

pub(super) fn not_running(pod: &Pod, container: &str) -> Refusal {
    let message = format!("container {container:?} of pod {:?} is not running", spec::name(pod));
    (StatusCode::BAD_REQUEST, "BadRequest", message)
}

/// An answer whose body is what is sent.
pub(super) fn answer() -> (mpsc::Sender<Bytes>, Response<Body>) {
    let (sender, receiver) = mpsc::channel::<Bytes>(MESSAGES);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (bytes, receiver))
    });
    let body = BodyExt::boxed(StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes)))));
    (sender, Response::new(body))
}

/// Where the client's input goes.
pub(super) struct Input {
    pub writer: Option<StdinWriter>,
    /// A terminal's line, and where what is typed is shown.
    pub echo: Option<(Terminal, Arc<Pipe>)>,
}

/// Why a client's input is at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputEnd {
    /// There is no more.
    Over,
    /// The client wants the command to end.
    Interrupt,
}

impl Input {
    /// Passes on what the client sends, to its end.
    pub(super) async fn pass_on(mut self, mut body: Body) -> InputEnd {
        let mut decoder = Decoder::default();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            decoder.push(&bytes);
            loop {
                match decoder.next_message() {
                    Ok(Some(message)) => {
                        if let Some(end) = self.take(message).await {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the input of a command is broken");
                        return InputEnd::Over;
                    }
                }
            }
        }
        InputEnd::Over
    }

    async fn take(&mut self, message: Message) -> Option<InputEnd> {
        if message.closes(Channel::Stdin) {
            return Some(InputEnd::Over);
        }
        if message.channel != Channel::Stdin {
            return None;
        }
        let Some((terminal, pipe)) = &mut self.echo else {
            self.write(message.bytes).await;
            return None;
        };
        let typed = terminal.take(&message.bytes);
        pipe.echo(typed.echo);
        self.write(typed.input.into()).await;
        if typed.is_interrupt {
            return Some(InputEnd::Interrupt);
        }
        typed.is_end.then_some(InputEnd::Over)
    }

    /// A command that reads no more lets the rest go nowhere.
    async fn write(&self, bytes: Bytes) {
        if let Some(writer) = &self.writer {
            writer.write(bytes).await;
        }
    }
}

async fn serve(
    mut process: Box<dyn GuestProcess>,
    input: Input,
    body: Body,
    output: PipeReader,
    client: mpsc::Sender<Bytes>,
) {
    let mut printing = std::pin::pin!(send_all(output, &client));
    let mut is_printing = true;
    let exit = {
        let mut typing = std::pin::pin!(input.pass_on(body));
        let mut is_typing = true;
        loop {
            tokio::select! {
                exit = process.wait() => break exit,
                end = &mut typing, if is_typing => {
                    is_typing = false;
                    if end == InputEnd::Interrupt {
                        process.kill();
                        break Exit { code: EXIT_INTERRUPTED, reason: "Error", message: None };
                    }
                }
                () = &mut printing, if is_printing => is_printing = false,
                () = client.closed() => return process.kill(),
            }
        }
    };
    // The guest's end of the pipe goes with it; what it has printed is still sent.
    drop(process);
    if is_printing {
        printing.await;
    }
    let last = Message::new(Channel::Error, status::of_exit(&exit).to_string());
    // The client may be gone by now.
    let _ = client.send(encode(&last)).await;
}

/// Sends what is printed, until the guest's end is gone or the client is.
async fn send_all(mut output: PipeReader, client: &mpsc::Sender<Bytes>) {
    while let Some(message) = output.read().await {
        if client.send(encode(&message)).await.is_err() {
            return;
        }
    }
}

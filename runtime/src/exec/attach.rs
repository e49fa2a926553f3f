//! Attach: a client sees what a container prints from now on, and types what it reads.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use k8s_openapi::api::core::v1::Pod;
use shoal_link::http::Body;
use shoal_link::tasks::spawn_connection;
use shoal_streams::{Channel, Message, encode};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;

use super::live::Live;
use super::options::Options;
use super::pipe::{self, Pipe};
use super::session::{Input, InputEnd, answer, not_running};
use super::status;
use super::terminal::Terminal;
use crate::context::Context;
use crate::guests::OutputSink;
use crate::kubelet_api::Refusal;
use crate::logs::Stream;
use crate::pod::spec;

/// Attaches; the answer's body lasts until the container has ended or the client goes. The container runs on without it.
///
/// # Errors
/// What the client is told before anything is attached.
pub fn attach(
    context: &Arc<Context>,
    pod: &Pod,
    container: &str,
    query: &str,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query);
    let live = context.live(spec::uid(pod), container).ok_or_else(|| not_running(pod, container))?;
    let (sender, response) = answer();
    let listener = live.listen();
    let stop = context.tasks.stop().clone();
    spawn_connection("attach", async move {
        tokio::select! {
            () = serve(live, listener, options, body, sender) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}

async fn serve(
    live: Arc<Live>,
    listener: broadcast::Receiver<(Stream, Bytes)>,
    options: Options,
    body: Body,
    client: mpsc::Sender<Bytes>,
) {
    let is_terminal = options.tty && live.is_terminal;
    let (pipe, mut reader) = pipe::pipe(is_terminal);
    let writer = live.stdin().filter(|_| options.stdin);
    let is_input = writer.is_some();
    let input = Input { writer, echo: is_terminal.then(|| (Terminal::default(), Arc::clone(&pipe))) };
    // Held weakly from here on: the listener ends with the run.
    let held = Arc::downgrade(&live);
    drop(live);
    let typing = async {
        let end = input.pass_on(body).await;
        if let Some(live) = held.upgrade().filter(|_| is_input) {
            live.detached();
        }
        if end != InputEnd::Interrupt {
            std::future::pending::<()>().await;
        }
    };
    let printing = async {
        while let Some(message) = reader.read().await {
            if client.send(encode(&message)).await.is_err() {
                return;
            }
        }
    };
    let listening = listen(listener, pipe, &options);
    tokio::select! {
        // An interrupt detaches: there is nobody to hear it.
        () = typing => {}
        () = async { tokio::join!(printing, listening) ; } => {}
        () = client.closed() => return,
    }
    let last = Message::new(Channel::Error, status::success().to_string());
    let _ = client.send(encode(&last)).await;
}

/// Puts what the container prints into the pipe, to the run's end.
async fn listen(mut listener: broadcast::Receiver<(Stream, Bytes)>, pipe: Arc<Pipe>, options: &Options) {
    loop {
        match listener.recv().await {
            Ok((Stream::Stdout, bytes)) if options.stdout => write(&pipe, Stream::Stdout, &bytes).await,
            Ok((Stream::Stderr, bytes)) if options.stderr || options.tty => write(&pipe, Stream::Stderr, &bytes).await,
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                let text = format!("\n[{missed} pieces of output were missed; the log has them]\n");
                write(&pipe, Stream::Stderr, text.as_bytes()).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn write(pipe: &Pipe, stream: Stream, bytes: &[u8]) {
    std::future::poll_fn(|context| pipe.poll_room(context)).await;
    pipe.write(stream, bytes);
}

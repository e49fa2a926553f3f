//! Exec and attach: a client's dialect on one side, [`Message`]s on the other.
//!
//! The dialects differ in their carrier, in how bytes are marked with their channel, and in what the error channel says: from version
//! 4 on it is a `metav1.Status`, before that a sentence, or nothing after a success.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::spdy::{self, SpdyStream};
use crate::websocket::{self, Frame, Socket};
use crate::{Channel, Duplex, Message};

/// How long a SPDY client may take to open the streams that it has announced.
const OPENING: Duration = Duration::from_secs(30);

/// The sub-protocols over WebSocket, the best first.
pub const WEBSOCKET_PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// What a WebSocket client speaks that names no sub-protocol.
pub const WEBSOCKET_FALLBACK: &str = "channel.k8s.io";

/// The protocols over SPDY, the best first.
pub const SPDY_PROTOCOLS: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// What a client has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// It sends input.
    pub stdin: bool,
    /// It wants the output.
    pub stdout: bool,
    /// It wants the errors, beside the output.
    pub stderr: bool,
    /// Its streams are a terminal.
    pub tty: bool,
}

/// Serves a WebSocket client until the command has ended or the client is gone.
pub async fn over_websocket<S>(socket: Socket<S>, protocol: &'static str, wanted: Wanted, node: Duplex<Message>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let dialect = Dialect::of(protocol);
    let (mut sink, mut stream) = socket.split();
    let Duplex { sender, mut receiver } = node;
    // An empty message on the first channel that we write says that all is ready.
    let first = if wanted.stdout {
        Channel::Stdout
    } else if wanted.stderr {
        Channel::Stderr
    } else {
        Channel::Error
    };
    if sink.send(dialect.frame(&Message::new(first, Bytes::new()))).await.is_err() {
        return;
    }
    // Each direction by itself: a command that does not read must not hold up what it says.
    let from_client = async {
        while let Some(Ok(frame)) = stream.next().await {
            match dialect.read(frame) {
                Ok(Said::Message(message)) => {
                    if sender.send(message).await.is_err() {
                        // The command has ended; what is still typed goes nowhere.
                        std::future::pending::<()>().await;
                    }
                }
                Ok(Said::Nothing) => {}
                Ok(Said::Farewell) | Err(NotUnderstood) => return,
            }
        }
    };
    let to_client = async {
        while let Some(message) = receiver.recv().await {
            let Some(message) = dialect.adapt(message) else { continue };
            if sink.send(dialect.frame(&message)).await.is_err() {
                return;
            }
        }
    };
    let is_over = tokio::select! {
        () = from_client => false,
        () = to_client => true,
    };
    if let Some(mut socket) = stream.reunite(sink).ok().filter(|_| is_over) {
        websocket::close(&mut socket).await;
    }
}

/// How one sub-protocol writes messages.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    is_text: bool,
    has_status: bool,
    has_close: bool,
}

/// What a client's frame says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Message(Message),
    Nothing,
    Farewell,
}

/// A client's frame that is not of the protocol.
#[derive(Debug, PartialEq, Eq)]
struct NotUnderstood;

impl Dialect {
    fn of(protocol: &str) -> Dialect {
        Dialect {
            is_text: protocol.contains("base64."),
            has_status: protocol.starts_with("v4.") || protocol.starts_with("v5."),
            has_close: protocol.starts_with("v5."),
        }
    }

    fn frame(self, message: &Message) -> Frame {
        let number = message.channel.number();
        if self.is_text {
            return Frame::text(format!("{number}{}", STANDARD.encode(&message.bytes)));
        }
        let mut bytes = Vec::with_capacity(1 + message.bytes.len());
        bytes.push(number);
        bytes.extend_from_slice(&message.bytes);
        Frame::binary(bytes)
    }

    fn read(self, frame: Frame) -> Result<Said, NotUnderstood> {
        let (number, bytes) = match frame {
            Frame::Close(_) => return Ok(Said::Farewell),
            Frame::Binary(mut bytes) if !self.is_text => {
                let Some(&number) = bytes.first() else { return Ok(Said::Nothing) };
                (number, bytes.split_off(1))
            }
            Frame::Text(text) if self.is_text => {
                let Some((number, text)) = text.as_str().split_at_checked(1) else { return Ok(Said::Nothing) };
                let number = number.parse().map_err(|_| NotUnderstood)?;
                (number, STANDARD.decode(text).map_err(|_| NotUnderstood)?.into())
            }
            Frame::Binary(_) | Frame::Text(_) => return Err(NotUnderstood),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(Said::Nothing),
        };
        match Channel::of(number) {
            Some(channel @ (Channel::Stdin | Channel::Resize)) => Ok(Said::Message(Message { channel, bytes })),
            Some(Channel::Close) if self.has_close => Ok(Said::Message(Message { channel: Channel::Close, bytes })),
            _ => Err(NotUnderstood),
        }
    }

    /// What of a node's message this client understands.
    fn adapt(self, message: Message) -> Option<Message> {
        match message.channel {
            Channel::Error if !self.has_status => {
                failure_text(&message.bytes).map(|text| Message::new(Channel::Error, text))
            }
            // Its end is the connection's end.
            Channel::Close => None,
            _ => Some(message),
        }
    }
}

/// The sentence of a `metav1.Status`, if it is a failure.
fn failure_text(status: &[u8]) -> Option<Bytes> {
    let status: serde_json::Value = serde_json::from_slice(status).unwrap_or_default();
    if status["status"] == "Success" {
        return None;
    }
    Some(status["message"].as_str().unwrap_or("the command failed").to_owned().into())
}

/// Serves a SPDY client until the command has ended or the client is gone.
pub async fn over_spdy<R, W>(reader: R, writer: W, protocol: &'static str, wanted: Wanted, node: Duplex<Message>)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (connection, work) = spdy::serve(reader, writer);
    tokio::join!(work, command(connection, protocol, wanted, node));
}

async fn command(mut connection: spdy::Connection, protocol: &'static str, wanted: Wanted, node: Duplex<Message>) {
    let Ok(Some(streams)) = tokio::time::timeout(OPENING, Streams::open(&mut connection, protocol, wanted)).await
    else {
        return connection.close().await;
    };
    let dialect = Dialect { is_text: false, has_status: protocol.starts_with("v4."), has_close: false };
    let Duplex { sender, mut receiver } = node;
    let (error, _) = streams.error.split();
    let (stdout, stderr) = (streams.stdout.map(SpdyStream::split), streams.stderr.map(SpdyStream::split));
    let input = pass_on(streams.stdin, Channel::Stdin, &sender);
    let resize = pass_on(streams.resize, Channel::Resize, &sender);
    let output = async {
        while let Some(message) = receiver.recv().await {
            let Some(message) = dialect.adapt(message) else { continue };
            let to = match message.channel {
                Channel::Stdout => stdout.as_ref().map(|(sender, _)| sender),
                Channel::Stderr => stderr.as_ref().map(|(sender, _)| sender),
                Channel::Error => Some(&error),
                Channel::Stdin | Channel::Resize | Channel::Close => None,
            };
            if let Some(to) = to
                && !to.write(message.bytes).await
            {
                return;
            }
        }
    };
    // The client's connection ends all of its streams at once; while it is there, only the command's end counts.
    let gone = async { while connection.accept().await.is_some() {} };
    tokio::select! {
        () = output => {}
        () = gone => return,
        () = async { tokio::join!(input, resize); std::future::pending::<()>().await } => {}
    }
    for (sender, _) in [stdout, stderr].into_iter().flatten() {
        sender.finish().await;
    }
    error.finish().await;
    connection.close().await;
}

/// What the client writes to a stream, to its end.
async fn pass_on(stream: Option<SpdyStream>, channel: Channel, node: &mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    while let Some(bytes) = stream.read().await {
        if node.send(Message::new(channel, bytes)).await.is_err() {
            return;
        }
    }
    let _ = node.send(Message::close(channel)).await;
}

struct Streams {
    error: SpdyStream,
    stdin: Option<SpdyStream>,
    stdout: Option<SpdyStream>,
    stderr: Option<SpdyStream>,
    resize: Option<SpdyStream>,
}

impl Streams {
    /// Takes the streams until all that the client wants are there; none if it goes before.
    async fn open(connection: &mut spdy::Connection, protocol: &str, wanted: Wanted) -> Option<Streams> {
        let resizes = wanted.tty && !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
        let expected = [
            ("error", true),
            ("stdin", wanted.stdin),
            ("stdout", wanted.stdout),
            ("stderr", wanted.stderr && !wanted.tty),
            ("resize", resizes),
        ];
        let mut found: Vec<(&str, SpdyStream)> = Vec::new();
        while found.len() < expected.iter().filter(|(_, is_expected)| *is_expected).count() {
            let stream = connection.accept().await?;
            let kind = stream.headers().get("streamtype").unwrap_or_default();
            let is_new = |name: &str| !found.iter().any(|(known, _)| *known == name);
            match expected.iter().find(|(name, is_expected)| *name == kind && *is_expected && is_new(name)) {
                Some((name, _)) => {
                    stream.reply().await;
                    found.push((name, stream));
                }
                None => stream.reset().await,
            }
        }
        let mut take = |name: &str| {
            let at = found.iter().position(|(known, _)| *known == name)?;
            Some(found.swap_remove(at).1)
        };
        Some(Streams {
            error: take("error")?,
            stdin: take("stdin"),
            stdout: take("stdout"),
            stderr: take("stderr"),
            resize: take("resize"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_reads_what_it_writes() {
        let message = Message::new(Channel::Stdin, &b"a\xffb"[..]);
        for protocol in WEBSOCKET_PROTOCOLS {
            let dialect = Dialect::of(protocol);
            assert_eq!(dialect.read(dialect.frame(&message)), Ok(Said::Message(message.clone())), "{protocol}");
        }
    }

    #[test]
    fn only_the_fifth_version_closes_a_channel() {
        let close = Frame::binary(vec![255, 0]);
        assert_eq!(
            Dialect::of("v5.channel.k8s.io").read(close.clone()),
            Ok(Said::Message(Message::close(Channel::Stdin)))
        );
        assert_eq!(Dialect::of("v4.channel.k8s.io").read(close), Err(NotUnderstood));
    }

    #[test]
    fn a_client_does_not_write_where_the_command_writes() {
        assert_eq!(Dialect::of("v5.channel.k8s.io").read(Frame::binary(vec![1, 7])), Err(NotUnderstood));
        assert_eq!(Dialect::of("v5.channel.k8s.io").read(Frame::binary(vec![9])), Err(NotUnderstood));
    }

    #[test]
    fn an_old_client_gets_a_sentence_for_a_failure_and_nothing_for_a_success() {
        let old = Dialect::of("channel.k8s.io");
        let status = |text: &'static str| Message::new(Channel::Error, text);
        assert_eq!(old.adapt(status(r#"{"metadata":{},"status":"Success"}"#)), None);
        let failed = old.adapt(status(r#"{"status":"Failure","message":"exit code 3","reason":"NonZeroExitCode"}"#));
        assert_eq!(failed, Some(status("exit code 3")));
    }
}

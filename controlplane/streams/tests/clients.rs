//! Whole conversations: a client of each dialect on one side, a node's messages on the other, over connections in memory.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use shoal_streams::port_forward::{self, Ports};
use shoal_streams::remote_command::{self, Wanted};
use shoal_streams::spdy::{Frame, Headers, Reader, Writer};
use shoal_streams::{Channel, Duplex, Message, websocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Said;
use tokio_tungstenite::tungstenite::protocol::Role;

const WANTED: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// A command that says its input once more, to its end, and a word about it on the other stream.
async fn repeat(node: Duplex<Message>) {
    let Duplex { sender, mut receiver } = node;
    while let Some(message) = receiver.recv().await {
        match message.channel {
            Channel::Stdin => {
                sender.send(Message::new(Channel::Stdout, message.bytes)).await.expect("the other side is there")
            }
            Channel::Close => break,
            _ => {}
        }
    }
    sender.send(Message::new(Channel::Stderr, "read to its end")).await.expect("the other side is there");
    sender.send(Message::new(Channel::Error, SUCCESS)).await.expect("the other side is there");
}

/// A SPDY client.
struct Client {
    io: DuplexStream,
    reader: Reader,
    writer: Writer,
}

impl Client {
    fn new(io: DuplexStream) -> Client {
        Client { io, reader: Reader::default(), writer: Writer::default() }
    }

    async fn send(&mut self, frame: &Frame) {
        let bytes = self.writer.write(frame);
        self.io.write_all(&bytes).await.expect("the other side is there");
    }

    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.send(&Frame::SynStream { id, headers: Headers(headers), is_last: false }).await;
        // What is left of the streams before it may come first.
        while !matches!(self.next().await.expect("the other side is there"), Frame::SynReply { id: replied, .. } if replied == id)
        {
        }
    }

    async fn write(&mut self, id: u32, bytes: &'static [u8], is_last: bool) {
        self.send(&Frame::Data { id, bytes: bytes.into(), is_last }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().expect("the other side is there") {
                return Some(frame);
            }
            if self.io.read_buf(self.reader.buffer()).await.expect("the other side is there") == 0 {
                return None;
            }
        }
    }

    /// What comes on a stream, to its end.
    async fn read(&mut self, wanted: u32) -> String {
        let mut text = Vec::new();
        while let Some(frame) = self.next().await {
            if let Frame::Data { id, bytes, is_last } = frame
                && id == wanted
            {
                text.extend_from_slice(&bytes);
                if is_last {
                    break;
                }
            }
        }
        String::from_utf8(text).expect("the other side is there")
    }
}

#[tokio::test]
async fn a_spdy_client_runs_a_command() {
    let (client, server) = tokio::io::duplex(1024);
    let (ours, node) = Duplex::pair(4);
    let (reader, writer) = tokio::io::split(server);
    let serving = remote_command::over_spdy(reader, writer, "v4.channel.k8s.io", WANTED, ours);
    let asking = async {
        let mut client = Client::new(client);
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            client.open(id, &[("streamtype", kind)]).await;
        }
        client.write(3, b"ahoy", false).await;
        client.send(&Frame::Ping(1)).await;
        client.write(3, b"", true).await;
        let mut said: Vec<(u32, String)> = Vec::new();
        let (mut is_pinged, mut is_ended) = (false, false);
        while let Some(frame) = client.next().await {
            match frame {
                Frame::Data { id, bytes, .. } if !bytes.is_empty() => {
                    said.push((id, String::from_utf8(bytes.to_vec()).expect("the other side is there")));
                }
                Frame::Ping(1) => is_pinged = true,
                Frame::GoAway => is_ended = true,
                _ => {}
            }
        }
        said.sort();
        let expected = [(1, SUCCESS), (5, "ahoy"), (7, "read to its end")].map(|(id, text)| (id, text.to_owned()));
        assert_eq!(said, expected);
        assert!(is_pinged && is_ended);
    };
    tokio::join!(serving, repeat(node), asking);
}

#[tokio::test]
async fn a_websocket_client_runs_a_command_and_is_told_its_end_before_the_farewell() {
    let (client, server) = tokio::io::duplex(1024);
    let (ours, node) = Duplex::pair(4);
    let serving = async {
        remote_command::over_websocket(websocket::open(server).await, "v5.channel.k8s.io", WANTED, ours).await;
    };
    let asking = async {
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        assert_eq!(
            client.next().await.expect("the other side is there").expect("the other side is there"),
            Said::binary(vec![1]),
            "an empty message says that all is ready"
        );
        client.send(Said::binary(b"\0ahoy".to_vec())).await.expect("the other side is there");
        client.send(Said::binary(vec![255, 0])).await.expect("the other side is there");
        let mut said = Vec::new();
        while let Some(Ok(frame)) = client.next().await {
            said.push(frame);
        }
        assert_eq!(said[0], Said::binary(b"\x01ahoy".to_vec()));
        assert_eq!(said[1], Said::binary(b"\x02read to its end".to_vec()));
        assert_eq!(said[2], Said::binary([b"\x03", SUCCESS.as_bytes()].concat()));
        assert!(matches!(&said[3], Said::Close(Some(farewell)) if u16::from(farewell.code) == 1000), "{said:?}");
    };
    tokio::join!(serving, repeat(node), asking);
}

#[tokio::test]
async fn a_client_that_goes_ends_the_command() {
    let (client, server) = tokio::io::duplex(1024);
    let (ours, mut node) = Duplex::<Message>::pair(4);
    let serving = async {
        remote_command::over_websocket(websocket::open(server).await, "v4.channel.k8s.io", WANTED, ours).await;
    };
    drop(client);
    let ended = async { while node.receiver.recv().await.is_some() {} };
    tokio::join!(serving, ended);
    assert!(node.sender.is_closed());
}

/// Port 7 says once more what it hears; the others are closed.
struct Echo;

impl Ports for Echo {
    fn connect(&self, port: u16) -> BoxFuture<'static, Result<Duplex<Bytes>, String>> {
        async move {
            if port != 7 {
                return Err(format!("port {port} is closed"));
            }
            let (ours, theirs) = Duplex::pair(4);
            tokio::spawn(async move {
                let Duplex { sender, mut receiver } = theirs;
                while let Some(bytes) = receiver.recv().await {
                    if sender.send(bytes).await.is_err() {
                        return;
                    }
                }
            });
            Ok(ours)
        }
        .boxed()
    }
}

#[tokio::test]
async fn connections_are_forwarded_one_after_the_other_and_a_closed_port_is_told() {
    let (client, server) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(server);
    let serving = port_forward::over_spdy(reader, writer, Arc::new(Echo));
    let asking = async {
        let mut client = Client::new(client);
        for request in 0..3u32 {
            let id = request.to_string();
            let (error, data) = (4 * request + 1, 4 * request + 3);
            client.open(error, &[("streamtype", "error"), ("port", "7"), ("requestid", &id)]).await;
            client.open(data, &[("streamtype", "data"), ("port", "7"), ("requestid", &id)]).await;
            client.write(error, b"", true).await;
            client.write(data, b"echo", true).await;
            assert_eq!(client.read(data).await, "echo");
        }
        client.open(21, &[("streamtype", "error"), ("port", "9"), ("requestid", "9")]).await;
        client.open(23, &[("streamtype", "data"), ("port", "9"), ("requestid", "9")]).await;
        assert_eq!(client.read(21).await, "port 9 is closed");
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn the_older_protocol_forwards_by_channels() {
    let (client, server) = tokio::io::duplex(1024);
    let serving = async {
        port_forward::over_websocket(websocket::open(server).await, &[7, 9], Arc::new(Echo)).await;
    };
    let asking = async {
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Said::binary(b"\0echo".to_vec())).await.expect("the other side is there");
        let mut said = Vec::new();
        for _ in 0..6 {
            let Said::Binary(bytes) =
                client.next().await.expect("the other side is there").expect("the other side is there")
            else {
                panic!("a binary message")
            };
            said.push(bytes.to_vec());
        }
        said.sort();
        let expected: [&[u8]; 6] =
            [b"\0\x07\0", b"\0echo", b"\x01\x07\0", b"\x02\x09\0", b"\x03\x09\0", b"\x03port 9 is closed"];
        assert_eq!(said, expected);
        client.close(None).await.expect("the other side is there");
    };
    tokio::join!(serving, asking);
}

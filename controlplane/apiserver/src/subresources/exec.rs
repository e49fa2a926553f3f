//! `pods/exec` and `pods/attach`: a command in a container, or the container itself, on the client's terminal.

use bytes::Bytes;
use futures_util::FutureExt;
use http::Response;
use http_body_util::BodyExt;
use shoal_api::Status;
use shoal_streams::remote_command::{self, SPDY_PROTOCOLS, WEBSOCKET_FALLBACK, WEBSOCKET_PROTOCOLS, Wanted};
use shoal_streams::{Channel, Decoder, Duplex, Message, encode, websocket};
use tokio::sync::mpsc;

use super::streams::{self, Carrier, ClientIo, Protocols};
use crate::handler::Call;
use crate::{Body, body};

/// Messages that wait for one of the two connections.
const MESSAGES: usize = 8;

const PROTOCOLS: Protocols =
    Protocols { websocket: WEBSOCKET_PROTOCOLS, websocket_fallback: Some(WEBSOCKET_FALLBACK), spdy: SPDY_PROTOCOLS };

/// Runs a command (`exec`) or attaches to what runs (`attach`).
pub(crate) async fn answer(mut call: Call, subresource: &'static str) -> Result<Response<Body>, Status> {
    streams::require_create(&call, subresource)?;
    let (headers, carrier) = streams::negotiate(&call.headers, &PROTOCOLS)?;
    let wanted = wanted(&call, subresource)?;
    let place = streams::place(&call).await?;
    let name = call.name()?;
    let container = streams::container(&call, &place.pod, name)?;
    let path = path(&call, subresource, name, &container, wanted);
    let (to_node, request_body) = body::channel(MESSAGES);
    let from_node =
        streams::ask_node(call.shared.config.node_requests.as_ref(), &place.node, path, request_body).await?;
    streams::switch(&mut call, headers, move |io| session(io, carrier, wanted, to_node, from_node).boxed())
}

fn wanted(call: &Call, subresource: &str) -> Result<Wanted, Status> {
    let wanted = Wanted {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        tty: call.query.flag("tty"),
    };
    if subresource == "exec" && call.query.all("command").all(str::is_empty) {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(wanted)
}

fn path(call: &Call, subresource: &str, name: &str, container: &str, wanted: Wanted) -> String {
    let flags = [("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr), ("tty", wanted.tty)];
    let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| format!("{flag}=true"));
    let words = call.query.all("command").map(|word| format!("command={}", streams::encode(word)));
    let query: Vec<String> = flags.chain(words).collect();
    let namespace = call.namespace().unwrap_or_default();
    format!("/{subresource}/{namespace}/{name}/{container}?{}", query.join("&"))
}

/// Translates between the client and the node until one of them ends.
async fn session(io: ClientIo, carrier: Carrier, wanted: Wanted, to_node: mpsc::Sender<Bytes>, from_node: Body) {
    let (client, node) = Duplex::pair(MESSAGES);
    let served = async {
        match carrier {
            Carrier::WebSocket(protocol) => {
                remote_command::over_websocket(websocket::open(io).await, protocol, wanted, client).await;
            }
            Carrier::Spdy(protocol) => {
                let (reader, writer) = tokio::io::split(io);
                remote_command::over_spdy(reader, writer, protocol, wanted, client).await;
            }
        }
    };
    let Duplex { sender, receiver } = node;
    let translated = async {
        tokio::join!(send_all(receiver, to_node), receive_all(from_node, sender));
    };
    // The client's side decides: it ends when the node has said all, or when the client goes.
    tokio::select! {
        () = served => {}
        () = async { translated.await; std::future::pending::<()>().await } => {}
    }
}

async fn send_all(mut messages: mpsc::Receiver<Message>, node: mpsc::Sender<Bytes>) {
    while let Some(message) = messages.recv().await {
        if node.send(encode(&message)).await.is_err() {
            return;
        }
    }
}

async fn receive_all(mut body: Body, client: mpsc::Sender<Message>) {
    let mut decoder = Decoder::default();
    let mut is_ended = false;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        decoder.push(&bytes);
        while let Ok(Some(message)) = decoder.next_message() {
            is_ended |= message.channel == Channel::Error;
            if client.send(message).await.is_err() {
                return;
            }
        }
    }
    if !is_ended {
        let lost = Status::service_unavailable("the connection to the node was lost");
        let text = serde_json::to_vec(&lost).unwrap_or_default();
        // The client may be gone too.
        let _ = client.send(Message::new(Channel::Error, text)).await;
    }
}

//! WebSocket as a carrier: the server's side of the handshake, and a connection as plain bytes for what is tunnelled in it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
pub use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::MAX_MESSAGE;

/// How long a client may take to answer our farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open connection.
pub type Socket<S> = WebSocketStream<S>;

/// Whether a request asks for a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A handshake that cannot be answered; the text says which header and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// RFC 6455, section 4.2.1.
    #[error("{SEC_WEBSOCKET_VERSION}: 13 is the only version")]
    Version,
    /// RFC 6455, section 4.2.1.
    #[error("{SEC_WEBSOCKET_KEY}: required")]
    Key,
    /// None of the client's is ours.
    #[error("{SEC_WEBSOCKET_PROTOCOL}: none of {offered:?} is known here, but {known}")]
    Protocol {
        /// The client's.
        offered: Vec<String>,
        /// Ours.
        known: String,
    },
}

/// The headers of the answer 101, and the protocol that is spoken: the first of `known` that the client offers. A client that offers
/// none gets `fallback`, if there is one.
///
/// # Errors
/// [`HandshakeError`].
pub fn accept(
    headers: &HeaderMap,
    known: &[&'static str],
    fallback: Option<&'static str>,
) -> Result<(HeaderMap, &'static str), HandshakeError> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_owned()))
        .filter(|name| !name.is_empty())
        .collect();
    let chosen = known.iter().copied().find(|known| offered.iter().any(|offered| offered == known));
    let spoken = chosen.or_else(|| fallback.filter(|_| offered.is_empty()));
    let spoken = spoken.ok_or_else(|| HandshakeError::Protocol { offered, known: known.join(", ") })?;
    let mut answer = HeaderMap::new();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| HandshakeError::Key)?;
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if chosen.is_some() {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(spoken));
    }
    Ok((answer, spoken))
}

/// The connection, after its handshake.
pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> Socket<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE + 1))
        .max_frame_size(Some(MAX_MESSAGE + 1))
        .max_write_buffer_size(4 * MAX_MESSAGE);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Says farewell, and waits a moment for the client's, so that it reads all that was sent before.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) {
    let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let closing = async {
        // A client that is gone needs no farewell.
        if socket.close(Some(farewell)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL, closing).await;
}

/// The binary messages of a connection as one stream of bytes each way.
pub fn tunnel<S>(socket: Socket<S>) -> (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket.split();
    (StreamReader::new(incoming(stream)), SinkWriter::new(CopyToBytes::new(outgoing(sink))))
}

fn incoming<S>(stream: SplitStream<Socket<S>>) -> Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(stream.filter_map(async |frame| match frame {
        Ok(Frame::Binary(bytes)) if !bytes.is_empty() => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    }))
}

fn outgoing<S>(sink: SplitSink<Socket<S>, Frame>) -> Pin<Box<dyn Sink<Bytes, Error = io::Error> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(sink.sink_map_err(io::Error::other).with(async |bytes: Bytes| Ok(Frame::Binary(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocols: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // The example of RFC 6455, section 1.3.
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        if !protocols.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols).unwrap());
        }
        headers
    }

    #[test]
    fn our_preference_decides_among_the_clients_protocols() {
        let (answer, spoken) = accept(&request("old, new"), &["new", "old"], None).unwrap();
        assert_eq!(spoken, "new");
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer[SEC_WEBSOCKET_PROTOCOL], "new");
    }

    #[test]
    fn a_client_without_a_protocol_gets_the_fallback_and_no_header() {
        let (answer, spoken) = accept(&request(""), &["new", "old"], Some("old")).unwrap();
        assert_eq!(spoken, "old");
        assert!(!answer.contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn what_cannot_be_spoken_is_refused_with_what_can() {
        let refused = accept(&request("other"), &["new"], Some("new")).unwrap_err();
        assert_eq!(refused.to_string(), "sec-websocket-protocol: none of [\"other\"] is known here, but new");
        let mut old = request("new");
        old.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(accept(&old, &["new"], None), Err(HandshakeError::Version));
    }
}

//! One plain HTTP request, as a user's `curl` would make it.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// `GET http://ADDRESS/PATH` over a connection of its own, with a deadline of five seconds.
///
/// # Errors
/// When nothing answers there in time.
pub fn get(address: &str, path: &str) -> anyhow::Result<Answer> {
    send(address, hyper::Request::get(path), &[])
}

/// Any request over a connection of its own, with a deadline of five seconds.
///
/// # Errors
/// When nothing answers there in time.
pub fn send(address: &str, request: http::request::Builder, body: &[u8]) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = request.header("host", address).body(Full::new(Bytes::copy_from_slice(body)))?;
    let exchange = async {
        let stream =
            tokio::net::TcpStream::connect(address).await.with_context(|| format!("failed to connect to {address}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.with_context(|| format!("failed to ask {address}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.context("failed to read the answer")?.to_bytes();
        anyhow::Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), exchange).await })?
}

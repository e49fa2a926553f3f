//! One forwarded connection: bytes from a client to a port of a pod of this node, and back.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use shoal_link::http::Body;
use shoal_link::tasks::spawn_connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::session::answer;
use crate::context::Context;
use crate::kubelet_api::Refusal;
use crate::pod::spec;

/// Bytes that are read at a time.
const PIECE: usize = 32 << 10;

/// Connects; the request's body goes to the port, the answer's body is what comes back.
///
/// # Errors
/// What the client is told when there is no connection.
pub async fn port_forward(
    context: &Arc<Context>,
    pod: &Pod,
    query: &str,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let port =
        query.split('&').find_map(|pair| pair.strip_prefix("port=")?.parse::<u16>().ok()).filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        (StatusCode::BAD_REQUEST, "BadRequest", "port: a number from 1 to 65535 is required".to_owned())
    })?;
    let name = spec::name(pod);
    let refused = |why: String| (StatusCode::BAD_GATEWAY, "InternalError", format!("pod {name:?}, port {port}: {why}"));
    let address = context.address(spec::uid(pod)).ok_or_else(|| refused("the pod is not running".to_owned()))?;
    // As the pod itself, so that what listens for its own pod only is reached too.
    let from = SocketAddr::new(address, 0);
    let connection = context.network.connect_pod(from, SocketAddr::new(address, port)).await;
    let connection = connection.map_err(|error| refused(error.to_string()))?;
    let (sender, response) = answer();
    spawn_connection("port forward", async move {
        let (mut reader, mut writer) = tokio::io::split(connection);
        let up = async move {
            let mut body = body;
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(bytes) = frame.into_data() else { continue };
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            // Half of the connection is closed; the other may still speak.
            let _ = writer.shutdown().await;
        };
        let down = async {
            let mut buffer = vec![0; PIECE];
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                if sender.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                    return;
                }
            }
        };
        let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        tokio::select! {
            () = &mut up => tokio::select! {
                () = &mut down => {}
                () = sender.closed() => {}
            },
            () = &mut down => {}
            () = sender.closed() => {}
        }
    });
    Ok(response)
}

//! The health service of gRPC, asked of a container: `grpc.health.v1.Health/Check`.
//!
//! One call with one message each way, so that it needs no gRPC library: a message is a zero byte, its length, then protobuf.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shoal_link::tasks::spawn_connection;
use shoal_network::Network;

/// The most bytes of an answer.
const ANSWER: usize = 4 << 10;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Asks; anything but `SERVING` is a failure.
///
/// # Errors
/// A sentence.
pub async fn check(network: &Network, address: SocketAddr, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("service {service:?} at {address}: {error}");
    let stream =
        network.connect_pod(SocketAddr::new(address.ip(), 0), address).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    spawn_connection("grpc probe", async move {
        let _ = connection.await;
    });
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "kube-probe/1.35")
        .body(Full::new(question(service)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(failed(&format_args!("HTTP status {}", head.status.as_u16())));
    }
    let answer = Limited::new(body, ANSWER).collect().await.map_err(|error| failed(&error))?;
    let trailers = answer.trailers().cloned().unwrap_or_default();
    let code =
        grpc_status(&trailers).or_else(|| grpc_status(&head.headers)).ok_or_else(|| failed(&"no grpc-status"))?;
    if code != "0" {
        return Err(failed(&format_args!("gRPC status {code}")));
    }
    match status(&answer.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(failed(&format_args!("it says status {other}, not SERVING"))),
        None => Err(failed(&"an answer that is no HealthCheckResponse")),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("grpc-status")?.to_str().ok()?.to_owned())
}

/// A `HealthCheckRequest`: field 1 is the service's name.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// The status of a framed `HealthCheckResponse`: field 1, which is absent when it is 0 (UNKNOWN).
fn status(answer: &[u8]) -> Option<u64> {
    let (head, message) = answer.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut rest = message.get(..length).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question("ab")[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[5..8], [10, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_is_read_and_what_is_none_is_not() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 5, 0x12, 1, b'x', 8, 2]), Some(2));
        for broken in [&[][..], &[0, 0, 0, 0, 9, 8], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]] {
            assert_eq!(status(broken), None, "{broken:?}");
        }
    }
}

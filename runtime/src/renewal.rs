//! Asking a server for a new certificate.

use http::Request;
use http_body_util::BodyExt;
use shoal_client::bytes_body;
use shoal_link::renew::{PATH, RenewReply, RenewRequest};

use crate::uplink::Uplink;

/// Has a certificate request signed by a server.
///
/// # Errors
/// A sentence: no server answered, or it refused.
pub async fn sign(uplink: &Uplink, request: Vec<u8>) -> Result<Vec<u8>, String> {
    let body = serde_json::to_vec(&RenewRequest { request }).map_err(|error| error.to_string())?;
    let request = Request::post(PATH).header(http::header::CONTENT_TYPE, "application/json").body(bytes_body(body));
    let response =
        uplink.request(request.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("the server answered {status}"));
    }
    let reply: RenewReply = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(reply.certificate)
}

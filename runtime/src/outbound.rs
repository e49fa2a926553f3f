//! A guest's outgoing requests: to Services and pods through the network, to the outside where the pod's policy allows it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use shoal_network::{Body, Destination, Network, NetworkError, destination};
use tokio::net::TcpStream;

use crate::limits::OUTSIDE_CONNECT;
use crate::outbound_policy::AllowedHosts;

/// Where one pod's requests go.
pub struct PodOutbound {
    /// The pod's namespace.
    pub namespace: String,
    /// What its annotation grants.
    pub allowed: AllowedHosts,
    /// The pods' network.
    pub network: Arc<Network>,
    /// Requests to the outside.
    pub outside: Outside,
}

/// Why a request was not sent or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// It says not where to go.
    #[error("{0}")]
    Invalid(String),
    /// The pod's policy does not allow it.
    #[error("requests to {0} are not allowed; see the annotation shoal.dev/allowed-outbound-hosts")]
    Denied(String),
    /// Nobody bears the name.
    #[error("{0} is not known")]
    NameNotFound(String),
    /// Nobody took it.
    #[error("{0}")]
    Refused(String),
    /// It broke under way.
    #[error("{0}")]
    Broken(String),
}

impl PodOutbound {
    /// Sends a request of the pod where it belongs.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn route(&self, request: Request<Body>) -> Result<Response<Body>, OutboundError> {
        let Some((scheme, host, port)) = target(request.uri(), request.headers().get(HOST)) else {
            return Err(OutboundError::Invalid("the request names no host".to_owned()));
        };
        let permitted = |host: &str| self.allowed.permit(&scheme, host, port);
        let found = destination(&self.network.table(), &self.namespace, &host);
        match found {
            Destination::Service(name) => {
                let full = format!("{}.{}.svc.cluster.local", name.name, name.namespace);
                if name.namespace != self.namespace && !permitted(&host) && !permitted(&full) {
                    return Err(OutboundError::Denied(host));
                }
                self.network.call_service(&name, port, request).await.map_err(failed)
            }
            Destination::Pod(address) => {
                if !permitted(&host) && !self.network.local().contains(address) {
                    return Err(OutboundError::Denied(host));
                }
                self.network.call_pod(SocketAddr::new(address, port), request).await.map_err(failed)
            }
            Destination::Unknown => Err(OutboundError::NameNotFound(host)),
            Destination::Outside if permitted(&host) => self.outside.send(&scheme, &host, port, request).await,
            // A name of one label is a Service's or nobody's.
            Destination::Outside if !host.contains('.') && !host.contains(':') => {
                Err(OutboundError::NameNotFound(host))
            }
            Destination::Outside => Err(OutboundError::Denied(host)),
        }
    }
}

fn failed(error: NetworkError) -> OutboundError {
    match error {
        NetworkError::Broken(source) => OutboundError::Broken(source.to_string()),
        error => OutboundError::Refused(error.to_string()),
    }
}

/// Scheme, host and port of a request.
fn target(uri: &Uri, host_header: Option<&HeaderValue>) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str().unwrap_or("http").to_owned();
    let authority: http::uri::Authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => host_header?.to_str().ok()?.parse().ok()?,
    };
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, authority.host().to_owned(), port))
}

/// Requests that leave the cluster. Cheap to clone.
#[derive(Clone, Default)]
pub struct Outside;

impl Outside {
    async fn send(
        &self,
        scheme: &str,
        host: &str,
        port: u16,
        request: Request<Body>,
    ) -> Result<Response<Body>, OutboundError> {
        if scheme != "http" {
            return Err(OutboundError::Refused(format!("{scheme} to the outside is not supported")));
        }
        let bare = host.trim_matches(['[', ']']);
        let connect = TcpStream::connect((bare, port));
        let stream = match tokio::time::timeout(OUTSIDE_CONNECT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(OutboundError::Refused(format!("{host}:{port}: {error}"))),
            Err(_) => {
                return Err(OutboundError::Refused(format!("{host}:{port}: no answer within {OUTSIDE_CONNECT:?}")));
            }
        };
        shoal_network::send_http(stream, request).await.map_err(|error| OutboundError::Broken(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_where_it_goes_in_its_uri_or_its_host_header() {
        let host = HeaderValue::from_static("back:8080");
        let of = |uri: &'static str, host: Option<&HeaderValue>| target(&Uri::from_static(uri), host);
        assert_eq!(of("https://a.example/x", None), Some(("https".into(), "a.example".into(), 443)));
        assert_eq!(of("/x", Some(&host)), Some(("http".into(), "back".into(), 8080)));
        assert_eq!(of("/x", None), None);
    }
}

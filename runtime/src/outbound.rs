//! A guest's outgoing requests: to Services and pods through the network, to the outside where the pod's policy allows it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt;
use shoal_network::{Body, Destination, Network, NetworkError, PodNames, destination};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limits::OUTSIDE_CONNECT;
use crate::outbound_policy::AllowedHosts;
use crate::world_names::WorldNames;

/// Where one pod's requests go.
pub struct PodOutbound {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's own address.
    pub address: Option<IpAddr>,
    /// What its annotation grants.
    pub allowed: AllowedHosts,
    /// The pods' network.
    pub network: Arc<Network>,
    /// Requests to the outside.
    pub outside: Outside,
    /// What it adds to names, and knows by itself.
    pub names: PodNames,
    /// Whom it asks for all others.
    pub world: WorldNames,
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
        let alias = self.alias(&host);
        let found = destination(&self.network.table(), &self.namespace, alias.as_ref().unwrap_or(&host));
        match found {
            Destination::Service(name) => {
                let full = format!("{}.{}.svc.cluster.local", name.name, name.namespace);
                if name.namespace != self.namespace && !permitted(&host) && !permitted(&full) {
                    return Err(OutboundError::Denied(host));
                }
                self.network.call_service(&name, port, request).await.map_err(failed)
            }
            Destination::Pod(address) => {
                // As for sockets: itself, the pods of its namespace's Services, and what is granted.
                let is_own = self.address == Some(address) || self.network.table().is_pod_of(&self.namespace, address);
                if !is_own && !permitted(&host) && !permitted(&address.to_string()) {
                    return Err(OutboundError::Denied(host));
                }
                self.network.call_pod(SocketAddr::new(address, port), request).await.map_err(failed)
            }
            Destination::Unknown => Err(OutboundError::NameNotFound(host)),
            Destination::Outside if permitted(&host) => {
                let at = alias.as_ref().unwrap_or(&host).trim_matches(['[', ']']);
                let to = async {
                    let addresses = self.world.look_up(at).await.map_err(|error| error.to_string())?;
                    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
                };
                self.outside.send(&scheme, &host, port, to, request).await
            }
            // A name of one label is a Service's or nobody's.
            Destination::Outside if alias.is_none() && !host.contains('.') && !host.contains(':') => {
                Err(OutboundError::NameNotFound(host))
            }
            Destination::Outside => Err(OutboundError::Denied(host)),
        }
    }

    /// The address that the pod itself has for a host.
    fn alias(&self, host: &str) -> Option<String> {
        let lower = host.to_ascii_lowercase();
        let (_, address) = self.names.hosts.iter().find(|(name, _)| *name == lower)?;
        Some(address.to_string())
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

/// Requests that leave the cluster: by HTTP/1.1, and by HTTPS to whom the system's certificate authorities (those of
/// `SSL_CERT_FILE`, where that is set) vouch for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Outside {
    /// Made with the first request that needs it: reading the system's authorities takes a while.
    tls: Arc<OnceLock<TlsConnector>>,
}

impl Outside {
    /// Sends a request to `host`, which is at the first of the addresses `to` that takes connections.
    async fn send(
        &self,
        scheme: &str,
        host: &str,
        port: u16,
        to: impl Future<Output = Result<Vec<SocketAddr>, String>>,
        request: Request<Body>,
    ) -> Result<Response<Body>, OutboundError> {
        let bare = host.trim_matches(['[', ']']);
        let refused = |reason: &dyn std::fmt::Display| OutboundError::Refused(format!("{host}:{port}: {reason}"));
        let connect = async {
            let to = to.await.map_err(|error| refused(&error))?;
            let stream = TcpStream::connect(&to[..]).await.map_err(|error| refused(&error))?;
            // What is small is waited for: do not hold the last segment back.
            let _ = stream.set_nodelay(true);
            match scheme {
                "http" => Ok(MaybeTls::Plain(stream)),
                "https" => {
                    let name = ServerName::try_from(bare.to_owned()).map_err(|error| refused(&error))?;
                    let stream = self.tls()?.connect(name, stream).await.map_err(|error| refused(&error))?;
                    Ok(MaybeTls::Tls(Box::new(stream)))
                }
                _ => Err(OutboundError::Invalid(format!("{scheme} is neither http nor https"))),
            }
        };
        let connected = tokio::time::timeout(OUTSIDE_CONNECT, connect).await;
        let stream = connected.unwrap_or_else(|_| Err(refused(&format!("no answer within {OUTSIDE_CONNECT:?}"))))?;
        let sent = match stream {
            MaybeTls::Plain(stream) => shoal_network::send_http(stream, request).await,
            MaybeTls::Tls(stream) => shoal_network::send_http(*stream, request).await,
        };
        sent.map_err(|error| OutboundError::Broken(error.to_string()))
    }

    fn tls(&self) -> Result<&TlsConnector, OutboundError> {
        if let Some(connector) = self.tls.get() {
            return Ok(connector);
        }
        let config = ClientConfig::with_platform_verifier().map_err(|error| {
            OutboundError::Refused(format!("the system's certificate authorities cannot be read: {error}"))
        })?;
        Ok(self.tls.get_or_init(|| TlsConnector::from(Arc::new(config))))
    }
}

enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt, Empty};
    use shoal_link::ca::{CertificateAuthority, Subject};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers one request by HTTPS, as `localhost`; its address and the CA to trust.
    async fn https() -> (SocketAddr, rustls::pki_types::CertificateDer<'static>) {
        shoal_link::install_crypto();
        let ca = CertificateAuthority::create("outside").expect("a CA");
        let identity = shoal_link::PeerIdentity { common_name: "outside".to_owned(), organizations: Vec::new() };
        let names = vec!["localhost".to_owned()];
        let validity = Duration::from_secs(600);
        let subject = Subject { identity, member: true, names, addresses: Vec::new(), validity };
        let source = shoal_link::IdentitySource::new(ca.issue(&subject).expect("an identity"));
        let mut config = shoal_link::tls_server_config(&source).expect("a configuration");
        config.alpn_protocols.clear();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                assert!(request[..length].starts_with(b"GET /x HTTP/1.1\r\n"), "{request:?}");
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
                let _ = stream.shutdown().await;
            }
        });
        (address, ca.certificate().clone())
    }

    async fn get(outside: &Outside, port: u16) -> Result<String, OutboundError> {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        let request = Request::get(format!("https://localhost:{port}/x")).body(body).expect("a request");
        let to = std::future::ready(Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]));
        let response = outside.send("https", "localhost", port, to, request).await?;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn https_reaches_whom_an_authority_vouches_for_and_nobody_else() {
        let (address, ca) = https().await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).expect("a CA");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let trusting = Outside::default();
        assert!(trusting.tls.set(TlsConnector::from(Arc::new(config))).is_ok());
        assert_eq!(get(&trusting, address.port()).await, Ok("secret".to_owned()));

        let config =
            ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let distrustful = Outside::default();
        assert!(distrustful.tls.set(TlsConnector::from(Arc::new(config))).is_ok());
        let refused = get(&distrustful, address.port()).await;
        assert!(matches!(&refused, Err(OutboundError::Refused(why)) if why.contains("certificate")), "{refused:?}");
    }

    #[tokio::test]
    async fn a_pod_of_the_own_node_is_reached_like_one_of_another() {
        let network = crate::test_network::network();
        let [own, neighbour]: [IpAddr; 2] = [[10, 64, 0, 2].into(), [10, 64, 0, 3].into()];
        network.local().add(own);
        network.local().add(neighbour);
        let node = shoal_network::NodeNetwork {
            node: "w1".into(),
            first: [10, 64, 0, 0].into(),
            last: [10, 64, 0, 255].into(),
        };
        network.set_table(shoal_network::Table::new(Vec::new(), []).with_networks([node]));
        let ask = async |grants: &str, to: IpAddr| {
            let outbound = PodOutbound {
                namespace: "shop".to_owned(),
                address: Some(own),
                allowed: AllowedHosts::parse(grants),
                network: Arc::clone(&network),
                outside: Outside::default(),
                names: PodNames::default(),
                world: WorldNames::default(),
            };
            let body = Empty::new().map_err(|never| match never {}).boxed();
            let request = Request::get(format!("http://{to}:80/")).body(body).expect("a request");
            outbound.route(request).await.expect_err("nobody listens there")
        };
        assert!(matches!(ask("", neighbour).await, OutboundError::Denied(_)));
        assert!(matches!(ask("10.64.0.3", neighbour).await, OutboundError::Refused(_)));
        assert!(matches!(ask("", own).await, OutboundError::Refused(_)));
    }

    #[test]
    fn a_request_says_where_it_goes_in_its_uri_or_its_host_header() {
        let host = HeaderValue::from_static("back:8080");
        let of = |uri: &'static str, host: Option<&HeaderValue>| target(&Uri::from_static(uri), host);
        assert_eq!(of("https://a.example/x", None), Some(("https".into(), "a.example".into(), 443)));
        assert_eq!(of("/x", Some(&host)), Some(("http".into(), "back".into(), 8080)));
        assert_eq!(of("/x", None), None);
    }
}

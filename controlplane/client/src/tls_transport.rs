//! To the API over TCP and TLS, as a kubeconfig says: HTTP/2, one connection, dialled again when it is lost.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::transport::{Body, Transport, TransportError};
use crate::{Kubeconfig, limits};

/// The way of a program that has a kubeconfig.
pub struct TlsTransport {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Vec<Uri>,
    tls: tokio_rustls::TlsConnector,
    authorization: Option<HeaderValue>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    server: usize,
    sender: Option<SendRequest<Body>>,
}

/// A kubeconfig is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A certificate or key in it is none.
    #[error("use the certificates of the kubeconfig: {0}")]
    Credentials(String),
    /// A server in it is no URL.
    #[error("use {0:?} as the URL of a server")]
    Server(String),
}

impl TlsTransport {
    /// A transport to the servers of `config`; nothing is dialled yet.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(config: &Kubeconfig) -> Result<Self, SetupError> {
        let servers = config
            .servers
            .iter()
            .map(|server| server.parse::<Uri>().ok().filter(|uri| uri.host().is_some()).ok_or(server));
        let servers = servers.collect::<Result<Vec<_>, _>>().map_err(|server| SetupError::Server(server.clone()))?;
        if servers.is_empty() {
            return Err(SetupError::Server(String::new()));
        }
        let authorization = config.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let mut authorization =
            authorization.transpose().map_err(|error| SetupError::Credentials(error.to_string()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let tls = Arc::new(tls(config)?).into();
        Ok(Self { shared: Arc::new(Shared { servers, tls, authorization, current: Mutex::default() }) })
    }
}

fn tls(config: &Kubeconfig) -> Result<ClientConfig, SetupError> {
    let failed = |error: &dyn std::fmt::Display| SetupError::Credentials(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(config.ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| failed(&error))?.with_root_certificates(roots);
    let mut tls = if config.certificate_pem.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_slice_iter(config.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(config.key_pem.as_bytes()).map_err(|error| failed(&error))?;
        builder.with_client_auth_cert(chain.map_err(|error| failed(&error))?, key).map_err(|error| failed(&error))?
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

impl Shared {
    async fn sender(&self) -> Result<(Uri, SendRequest<Body>), TransportError> {
        let mut current = self.current.lock().await;
        if let Some(sender) = current.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((self.servers[current.server].clone(), sender.clone()));
        }
        let mut reasons = Vec::new();
        for offset in 0..self.servers.len() {
            let index = (current.server + offset) % self.servers.len();
            let server = &self.servers[index];
            let dialled = tokio::time::timeout(limits::DIAL_TIMEOUT, self.dial(server)).await;
            match dialled.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(sender) => {
                    *current = Current { server: index, sender: Some(sender.clone()) };
                    return Ok((server.clone(), sender));
                }
                Err(error) => reasons.push(format!("{server}: {error}")),
            }
        }
        Err(TransportError::Unreachable(reasons.join("; ")))
    }

    async fn dial(&self, server: &Uri) -> Result<SendRequest<Body>, crate::BoxError> {
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((host.as_str(), server.port_u16().unwrap_or(443))).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(host)?, stream).await?;
        let (sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        shoal_link::tasks::spawn_connection("connection to the API", async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to the API broke off");
            }
        });
        Ok(sender)
    }
}

impl Transport for TlsTransport {
    fn send(&self, mut request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (server, mut sender) = shared.sender().await?;
            let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let authority = server.authority().map_or("", http::uri::Authority::as_str);
            let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build();
            *request.uri_mut() = uri.map_err(|error| TransportError::Unreachable(error.to_string()))?;
            if let Some(authorization) = &shared.authorization {
                request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            }
            sender.ready().await.map_err(|error| TransportError::Unreachable(error.to_string()))?;
            match sender.try_send_request(request).await {
                Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed())),
                // A request that comes back was never sent.
                Err(error) if error.message().is_some() => {
                    Err(TransportError::Unreachable(error.into_error().to_string()))
                }
                Err(error) => Err(TransportError::Unknown(error.into_error().to_string())),
            }
        })
    }
}

//! One API server over TLS, with a cluster of its own in a temporary directory, to try clients against.
//!
//! `cargo run --release -p shoal-apiserver --example serve -- 127.0.0.1:6443 /tmp/kubeconfig` writes a kubeconfig and
//! serves until Ctrl-C: no nodes, no controllers, no scheduler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use shoal_apiserver::{ApiServer, Body, BoxError, Config, NodeRequests, NodeUnreachable, ServiceAccountKey};
use shoal_store::{Member, PeerIo, PeerStream, Peers, Store};
use tokio_util::sync::CancellationToken;

struct Alone;

impl Peers for Alone {
    fn open(&self, _to: &Member, _kind: PeerStream) -> BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>> {
        Box::pin(async { Err(std::io::Error::other("there are no other servers")) })
    }
}

impl NodeRequests for Alone {
    fn send(&self, node: &str, _request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, NodeUnreachable>> {
        let node = node.to_owned();
        Box::pin(async { Err(NodeUnreachable { node, reason: "there are no nodes".to_owned() }) })
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(kubeconfig)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve ADDRESS KUBECONFIG".into());
    };
    let directory = tempfile::tempdir()?;
    let member =
        Member { id: 1, name: "s1".to_owned(), link_address: "127.0.0.1:1".to_owned(), api_address: address.clone() };
    let disk = Arc::new(shoal_store::Folder::open(directory.path())?);
    let config = shoal_store::Config::new(disk, shoal_store::seal::Keyring::generate()?, member);
    let store = Store::open(config, Arc::new(Alone)).await?;
    store.initialize().await?;
    let server = ApiServer::new(Config {
        store: store.clone(),
        server_name: "s1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service_account_key: Arc::new(ServiceAccountKey::from_pem(&ServiceAccountKey::generate_pem()?)?),
        event_ttl: Duration::from_secs(3600),
        node_requests: Arc::new(Alone),
    });
    server.bootstrap(&[address.parse()?]).await?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let tls = certificates(&address, Path::new(&kubeconfig))?;
    let stop = CancellationToken::new();
    let serving = server.serve_tls(listener, Arc::new(tls), stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        _ = tokio::signal::ctrl_c() => {
            server.stop().await;
            stop.cancel();
            serving.await;
        }
    }
    store.shutdown().await;
    Ok(())
}

/// Makes a CA, the server's certificate and an administrator's, which goes into the kubeconfig.
fn certificates(address: &str, kubeconfig: &Path) -> Result<ServerConfig, BoxError> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "example");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let server = server.signed_by(&server_key, &ca)?;

    let admin_key = KeyPair::generate()?;
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "shoal-admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let admin = admin.signed_by(&admin_key, &ca)?;

    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"https://{address}\", certificate-authority-data: {}}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        STANDARD.encode(ca.pem()),
        STANDARD.encode(admin.pem()),
        STANDARD.encode(admin_key.serialize_pem()),
    );
    std::fs::write(kubeconfig, text)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let chain: Vec<CertificateDer<'static>> = vec![server.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

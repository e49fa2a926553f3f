//! A network of a node that knows nobody, for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::{Endpoint, IdentitySource, NODES, PeerIdentity, Pool};
use shoal_network::Network;

/// A network with a link of its own. Must be called on a thread of a runtime.
pub fn network() -> Arc<Network> {
    shoal_link::install_crypto();
    let ca = CertificateAuthority::create("test").expect("a CA");
    let identity = PeerIdentity { common_name: "system:node:w1".to_owned(), organizations: vec![NODES.to_owned()] };
    let validity = Duration::from_secs(600);
    let subject = Subject { identity, member: true, names: Vec::new(), addresses: Vec::new(), validity };
    let source = IdentitySource::new(ca.issue(&subject).expect("an identity"));
    let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &source).expect("an endpoint");
    Network::new(Pool::new(endpoint))
}

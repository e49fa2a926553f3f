//! Who is asked for names that are not of the cluster: the node's own resolver, and the servers that a pod names.
//!
//! With `dnsPolicy: None` those servers alone are asked; otherwise they are asked for what the node's resolver does not find. They are
//! asked from the node, by UDP and then TCP, with the pod's options.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use k8s_openapi::api::core::v1::Pod;

use crate::limits::{OUTSIDE_NAMES, POD_NAMES_KEPT};

/// Where servers of names listen.
const PORT: u16 = 53;
/// The most that a pod's options may say, as resolv.conf(5) has it.
const MOST_SECONDS: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

/// Whom a pod asks. Cheap to clone.
#[derive(Clone, Default)]
pub struct WorldNames(Option<Arc<Own>>);

/// No address was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Nobody has the name.
    #[error("the name is not known")]
    Unknown,
    /// Nobody said whether anybody has it.
    #[error("nobody answers for names")]
    NoAnswer,
}

struct Own {
    servers: Vec<SocketAddr>,
    options: ResolverOpts,
    /// Whether it is to be asked by TCP only.
    is_by_tcp: bool,
    /// Whether nobody else is asked.
    is_only: bool,
    /// Made with the first question.
    resolver: OnceLock<TokioResolver>,
}

impl WorldNames {
    /// Whom this pod wants to be asked.
    pub fn of(pod: &Pod) -> WorldNames {
        let Some(spec) = pod.spec.as_ref() else { return WorldNames::default() };
        let Some(config) = spec.dns_config.as_ref() else { return WorldNames::default() };
        let addresses = config.nameservers.iter().flatten().filter_map(|server| server.parse::<IpAddr>().ok());
        let servers: Vec<SocketAddr> = addresses.map(|address| SocketAddr::new(address, PORT)).collect();
        let options = config.options.iter().flatten();
        let options =
            options.filter_map(|option| Some((option.name.as_deref()?, option.value.as_deref().unwrap_or(""))));
        WorldNames::asking(servers, options, spec.dns_policy.as_deref() == Some("None"))
    }

    fn asking<'a>(
        servers: Vec<SocketAddr>,
        options: impl Iterator<Item = (&'a str, &'a str)>,
        is_only: bool,
    ) -> WorldNames {
        if servers.is_empty() {
            return WorldNames::default();
        }
        let mut resolver = ResolverOpts::default();
        resolver.ndots = 0;
        resolver.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        resolver.use_hosts_file = ResolveHosts::Never;
        resolver.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        resolver.try_tcp_on_error = true;
        resolver.cache_size = POD_NAMES_KEPT;
        let mut is_by_tcp = false;
        for (name, value) in options {
            match (name, value.parse::<u64>()) {
                ("timeout", Ok(seconds)) => resolver.timeout = Duration::from_secs(seconds.clamp(1, MOST_SECONDS)),
                ("attempts", Ok(number)) => {
                    resolver.attempts = usize::try_from(number).unwrap_or(MOST_ATTEMPTS).clamp(1, MOST_ATTEMPTS);
                }
                ("rotate", _) => resolver.server_ordering_strategy = ServerOrderingStrategy::RoundRobin,
                ("edns0", _) => resolver.edns0 = true,
                ("use-vc", _) => is_by_tcp = true,
                // What names it tries is another's business, and the rest is the C library's.
                _ => {}
            }
        }
        let own = Own { servers, options: resolver, is_by_tcp, is_only, resolver: OnceLock::new() };
        WorldNames(Some(Arc::new(own)))
    }

    /// The addresses of `host`, which may be an address itself.
    ///
    /// # Errors
    /// [`NotFound`].
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, NotFound> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let Some(own) = &self.0 else { return ask_system(host).await };
        if !own.is_only
            && let Ok(found) = ask_system(host).await
        {
            return Ok(found);
        }
        own.look_up(host).await
    }
}

impl Own {
    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, NotFound> {
        let resolver = self.resolver().map_err(|error| told(host, &error))?;
        let whole = format!("{}.", host.trim_end_matches('.'));
        // How long it takes is limited by what the pod says of time and attempts.
        let found = resolver.lookup_ip(whole).await.map_err(|error| told(host, &error))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err(NotFound::Unknown) } else { Ok(addresses) }
    }

    fn resolver(&self) -> Result<&TokioResolver, NetError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let servers = self.servers.iter().map(|server| {
            let mut ways = if self.is_by_tcp { vec![] } else { vec![ConnectionConfig::udp()] };
            ways.push(ConnectionConfig::tcp());
            for way in &mut ways {
                way.port = server.port();
            }
            // A server that has nothing does not speak for the next one.
            NameServerConfig::new(server.ip(), false, ways)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(self.options.clone()).build()?;
        Ok(self.resolver.get_or_init(|| resolver))
    }
}

fn told(host: &str, error: &NetError) -> NotFound {
    tracing::debug!(host, %error, "a pod's servers of names gave no address");
    if error.is_no_records_found() { NotFound::Unknown } else { NotFound::NoAnswer }
}

/// Asks the system's resolver. It does not say whether a name is not there or nobody could be asked.
async fn ask_system(host: &str) -> Result<Vec<IpAddr>, NotFound> {
    let found = tokio::time::timeout(OUTSIDE_NAMES, tokio::net::lookup_host((host, 0))).await;
    let found = found.map_err(|_| NotFound::NoAnswer)?.map_err(|_| NotFound::Unknown)?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    /// The type of a record with an address of IP 4.
    const A: u16 = 1;
    const NAME_ERROR: u8 = 3;

    /// Answers for `known`, and that there is no other.
    async fn server(known: &'static [u8], address: Ipv4Addr) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let at = socket.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut packet = vec![0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let name_end = 12 + packet[12..length].iter().position(|byte| *byte == 0).expect("a name") + 1;
                let question = &packet[12..name_end + 4];
                let kind = u16::from_be_bytes([packet[name_end], packet[name_end + 1]]);
                let is_known = packet[12..name_end].to_ascii_lowercase() == known;
                let answers = u8::from(is_known && kind == A);
                let code = if is_known { 0 } else { NAME_ERROR };
                // Its id; a response to a recursive question; one question, so many answers.
                let mut answer = vec![packet[0], packet[1], 0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0];
                answer.extend_from_slice(question);
                if answers == 1 {
                    // The question's name, type A of the internet, for a minute, four bytes.
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                    answer.extend_from_slice(&address.octets());
                }
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        at
    }

    #[tokio::test]
    async fn a_pod_s_own_servers_are_asked_one_after_another() {
        let [first, second] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let servers = vec![server(b"\x02db\x04corp\x00", first).await, server(b"\x03web\x04corp\x00", second).await];
        let options = [("timeout", "1"), ("attempts", "1"), ("ndots", "7")];
        let names = WorldNames::asking(servers, options.into_iter(), true);
        assert_eq!(names.look_up("db.corp").await, Ok(vec![IpAddr::from(first)]));
        assert_eq!(names.look_up("web.corp.").await, Ok(vec![IpAddr::from(second)]));
        assert_eq!(names.look_up("no.corp").await, Err(NotFound::Unknown));
        assert_eq!(names.look_up("192.0.2.9").await, Ok(vec![IpAddr::from([192, 0, 2, 9])]));
    }

    #[tokio::test]
    async fn beside_the_node_s_they_are_asked_for_what_it_does_not_find() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let servers = vec![server(b"\x02db\x04corp\x00", address).await];
        let names = WorldNames::asking(servers, std::iter::empty(), false);
        assert_eq!(names.look_up("db.corp").await, Ok(vec![IpAddr::from(address)]));
        let local = names.look_up("localhost").await.expect("the node's own");
        assert!(local.iter().all(IpAddr::is_loopback), "{local:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.expect("a socket").local_addr().expect("an address");
        let options = [("timeout", "1"), ("attempts", "1")];
        let names = WorldNames::asking(vec![gone], options.into_iter(), true);
        assert_eq!(names.look_up("db.corp").await, Err(NotFound::NoAnswer));
    }

    #[test]
    fn a_pod_says_whom() {
        let of = |spec: serde_json::Value| {
            let pod = serde_json::json!({"spec": spec});
            WorldNames::of(&serde_json::from_value(pod).expect("a pod")).0
        };
        assert!(of(serde_json::json!({"containers": [], "dnsConfig": {"searches": ["corp"]}})).is_none());
        let config = serde_json::json!({"nameservers": ["192.0.2.53", "::1"], "options": [{"name": "timeout", "value": "99"}, {"name": "use-vc"}]});
        let own = of(serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config})).expect("servers");
        assert_eq!(own.servers, ["192.0.2.53:53".parse().expect("one"), "[::1]:53".parse().expect("one")]);
        assert!(own.is_only && own.is_by_tcp);
        assert_eq!(own.options.timeout, Duration::from_secs(MOST_SECONDS));
    }
}

//! Where a pod's outgoing requests may go. Pure.
//!
//! Services of the pod's own namespace: always. Everything else only where the pod's annotation
//! `shoal.dev/allowed-outbound-hosts` names it: a list, divided by commas or spaces, of `host`, `*.domain`, `*`, each with
//! an optional scheme before and `:port` behind. `http://` and `https://` allow requests, `tcp://` and `udp://` sockets; no
//! scheme, or `*://`, allows all four.

use k8s_openapi::api::core::v1::Pod;

/// The annotation that grants more than the own namespace.
pub const ALLOWED_HOSTS: &str = "shoal.dev/allowed-outbound-hosts";

/// What the annotation grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
}

impl AllowedHosts {
    /// Reads the pod's annotation; what is no pattern grants nothing.
    pub fn of(pod: &Pod) -> AllowedHosts {
        let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(ALLOWED_HOSTS));
        AllowedHosts::parse(annotation.map_or("", String::as_str))
    }

    /// Reads a list of patterns.
    pub fn parse(list: &str) -> AllowedHosts {
        let patterns = list.split([',', ' ', '\n', '\t']).filter(|text| !text.is_empty());
        AllowedHosts(patterns.filter_map(Pattern::parse).collect())
    }

    /// Whether anything of this host is allowed, so that its name may be looked up.
    pub fn name(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|pattern| pattern.is_of(&host))
    }

    /// Whether a request to `host` may be sent, or a socket connected to it.
    pub fn permit(&self, scheme: &str, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|pattern| pattern.permits(scheme, &host, port))
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme.to_ascii_lowercase()), rest));
        let scheme = scheme.filter(|scheme| scheme != "*");
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (rest, None),
        };
        (!host.is_empty()).then(|| Pattern { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_of(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some("") => true,
            Some(domain) => domain.starts_with('.') && host.ends_with(domain) && host.len() > domain.len(),
            None => self.host == host,
        }
    }

    fn permits(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.is_of(host) && self.port.is_none_or(|p| p == port) && self.scheme.as_deref().is_none_or(|s| s == scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_grant_what_they_name_and_no_more() {
        let list = "api.example.com, https://*.example.org, http://db:5432 tcp://queue:5672 *://any.example:1";
        let allowed = AllowedHosts::parse(list);
        for (scheme, host, port, wanted) in [
            ("http", "api.example.com", 80, true),
            ("https", "API.example.com.", 8443, true),
            ("https", "x.api.example.com", 443, false),
            ("https", "a.example.org", 443, true),
            ("http", "a.example.org", 80, false),
            ("https", "example.org", 443, false),
            ("https", "evilexample.org", 443, false),
            ("http", "db", 5432, true),
            ("http", "db", 80, false),
            ("tcp", "db", 5432, false),
            ("tcp", "queue", 5672, true),
            ("udp", "queue", 5672, false),
            ("tcp", "api.example.com", 25, true),
            ("tcp", "a.example.org", 443, false),
            ("udp", "any.example", 1, true),
        ] {
            assert_eq!(allowed.permit(scheme, host, port), wanted, "{scheme}://{host}:{port}");
        }
        assert!(AllowedHosts::parse("*").permit("https", "anything", 1));
        assert!(!AllowedHosts::parse("").permit("https", "anything", 1));
        assert!(allowed.name("A.example.org.") && allowed.name("queue") && !allowed.name("example.net"));
        assert!(!AllowedHosts::parse("host:notaport").permit("http", "host", 80));
    }
}

//! The variables that tell a container of the Services (Kubernetes, "Service": environment variables).

use k8s_openapi::api::core::v1::Service;

/// The variables of the Services that a pod of `namespace` sees: its own namespace's and `default/kubernetes`; without
/// `links` only the latter.
pub fn service_environment<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut seen: Vec<&Service> = services.into_iter().filter(|s| is_seen(s, namespace, links)).collect();
    seen.sort_by_key(|s| (s.metadata.namespace.clone(), s.metadata.name.clone()));
    seen.into_iter().flat_map(of_service).collect()
}

fn is_seen(service: &Service, namespace: &str, links: bool) -> bool {
    let of = service.metadata.namespace.as_deref().unwrap_or_default();
    let is_master = of == "default" && service.metadata.name.as_deref() == Some("kubernetes");
    is_master || (links && of == namespace)
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), address.is_empty() || address == "None") else { return Vec::new() };
    let prefix = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            variables.push((format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string()));
        }
    }
    let protocol = |p: &k8s_openapi::api::core::v1::ServicePort| p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    variables.push((format!("{prefix}_PORT"), format!("{}://{host}:{}", protocol(first).to_lowercase(), first.port)));
    for port in ports {
        let kind = protocol(port);
        let stem = format!("{prefix}_PORT_{}_{kind}", port.port);
        variables.push((stem.clone(), format!("{}://{host}:{}", kind.to_lowercase(), port.port)));
        variables.push((format!("{stem}_PROTO"), kind.to_lowercase()));
        variables.push((format!("{stem}_PORT"), port.port.to_string()));
        variables.push((format!("{stem}_ADDR"), address.to_owned()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, address: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]},
        }))
        .expect("service")
    }

    #[test]
    fn a_service_gives_the_variables_that_programs_read() {
        let variables = service_environment(
            &[service("shop", "my-cart", "10.96.0.3"), service("shop", "headless", "None")],
            "shop",
            true,
        );
        let expected = [
            ("MY_CART_SERVICE_HOST", "10.96.0.3"),
            ("MY_CART_SERVICE_PORT", "80"),
            ("MY_CART_SERVICE_PORT_HTTP", "80"),
            ("MY_CART_PORT", "tcp://10.96.0.3:80"),
            ("MY_CART_PORT_80_TCP", "tcp://10.96.0.3:80"),
            ("MY_CART_PORT_80_TCP_PROTO", "tcp"),
            ("MY_CART_PORT_80_TCP_PORT", "80"),
            ("MY_CART_PORT_80_TCP_ADDR", "10.96.0.3"),
        ];
        assert_eq!(variables, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn without_links_only_the_api_is_told() {
        let services = [
            service("shop", "cart", "10.96.0.3"),
            service("default", "kubernetes", "10.96.0.1"),
            service("other", "x", "10.96.0.4"),
        ];
        let names: Vec<String> =
            service_environment(&services, "shop", false).into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| name.starts_with("KUBERNETES_")) && !names.is_empty());
        assert!(!service_environment(&services, "shop", true).iter().any(|(name, _)| name.starts_with("X_")));
    }
}

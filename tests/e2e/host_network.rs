//! Pods that share their node's address: where the worker allows it, and not where it does not.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::ensure;
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, WORKERS, answered, example};
use crate::node::{OWN, OWN_ADDRESS, remove_own, start_own};
use crate::sockets::greeting;

/// A pod with its node's network on this node; `container` is more of its container.
fn pod(name: &str, node: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}, case: host-network}}}}\nspec:\n  \
         hostNetwork: true\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n{container}---\n"
    )
}

fn service(name: &str, port: u16, node_port: u16, protocols: &[&str]) -> String {
    let ports = protocols.iter().map(|protocol| {
        format!("{{name: {}, port: {port}, nodePort: {node_port}, protocol: {protocol}}}", protocol.to_lowercase())
    });
    let ports: Vec<String> = ports.collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, labels: {{case: host-network}}}}\n\
         spec: {{type: NodePort, selector: {{app: {name}}}, ports: [{}]}}\n---\n",
        ports.join(", ")
    )
}

/// Sends a datagram until it comes back from where it was sent to.
fn repeats(address: (&str, u16)) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    eventually("a datagram comes back", PATIENCE, || {
        socket.send_to(b"over", address)?;
        let mut answer = [0; 16];
        let (length, from) = socket.recv_from(&mut answer)?;
        ensure!(&answer[..length] == b"over" && from.port() == address.1, "{answer:?} of {from}");
        Ok(())
    })
}

pub fn a_pod_shares_its_node_s_address_where_the_worker_allows_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    for name in ["echo", "hello", "teller"] {
        cluster.shoal(&["push", &example(name, &format!("{name}.wasm")).to_string_lossy(), &format!("{name}:1")])?;
    }
    let kubectl = &cluster.kubectl;
    let of = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.{path}}}")]);
    kubectl.ok_with(&["apply", "-f", "-"], &pod("adrift", "worker-1", "    image: hello:1\n"))?;
    eventually("it is refused where nobody allowed it", PATIENCE, || {
        ensure!(of("adrift", "status.reason")? == "UnsupportedPodSpec", "not yet");
        let events = kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=adrift"])?;
        ensure!(events.contains("spec.hostNetwork: ") && events.contains("--allow-host-network"), "{events}");
        Ok(())
    })?;
    let other_port = "    image: hello:1\n    ports: [{containerPort: 80, hostPort: 81}]\n";
    let refused = kubectl.fails_with(&["apply", "-f", "-"], &pod("torn", OWN, other_port))?;
    ensure!(refused.contains("must match `containerPort` when `hostNetwork` is true"), "{refused}");

    start_own(cluster, &["--allow-host-network", "--eviction-hard", ""])?;
    let anchor = "    image: echo:1\n    args: [serve, \"7077\"]\n    env: [{name: POD_NAME, value: anchor}]\n    \
                  ports: [{containerPort: 7077}]\n";
    let beacon = "    image: hello:1\n    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}\n    env:\n    \
                  - {name: POD_NAME, value: beacon}\n    \
                  - {name: GREETING, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n";
    let manifest = pod("anchor", OWN, anchor)
        + &pod("beacon", OWN, beacon)
        + &service("anchor", 7_077, 30_141, &["TCP", "UDP"])
        + &service("beacon", 8_080, 30_142, &["TCP"]);
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/anchor", "pod/beacon", "--timeout=60s"])?;
    for pod in ["anchor", "beacon"] {
        let addresses =
            of(pod, "status.podIP")? + " " + &of(pod, "status.podIPs[*].ip")? + " " + &of(pod, "status.hostIP")?;
        ensure!(addresses == format!("{OWN_ADDRESS} {OWN_ADDRESS} {OWN_ADDRESS}"), "{addresses}");
    }
    ensure!(of("anchor", "spec.containers[0].ports[0].hostPort")? == "7077", "the port is the node's");
    let slices = kubectl.ok(&["get", "endpointslices", "-l", "kubernetes.io/service-name=anchor"])?;
    ensure!(slices.contains(OWN_ADDRESS), "{slices}");

    // What it names, what it only listens at, and a function's port: at the node itself, and through the Service from another one.
    for place in [(OWN_ADDRESS, 7_077), (WORKERS[0], 30_141)] {
        eventually("the process greets", PATIENCE, || {
            let said = greeting(place)?;
            ensure!(said == "echo of anchor\n", "{place:?} said {said:?}");
            Ok(())
        })?;
        repeats(place)?;
    }
    for place in [format!("{OWN_ADDRESS}:8080"), format!("{}:30142", WORKERS[1])] {
        let answer = eventually("the function answers", PATIENCE, || answered(&place, "/"))?;
        ensure!(answer.body == format!("{OWN_ADDRESS} from beacon\n"), "{place} said {answer:?}");
    }
    let raw = |pod: &str, path: &str| {
        kubectl.ok(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy{path}")])
    };
    ensure!(raw("beacon", "/")?.contains("from beacon"), "the proxy finds it");
    let variables = kubectl.ok(&["exec", "anchor", "--", "env"])?;
    ensure!(variables.contains(&format!("HOSTNAME={OWN}\n")), "{variables}");

    // A pod of another node reaches it by its Service. (By the node's address it could not here, where that is of the loopback.)
    let teller = "apiVersion: v1\nkind: Pod\nmetadata: {name: teller, labels: {case: host-network}}\nspec:\n  nodeName: worker-2\n  \
                  terminationGracePeriodSeconds: 1\n  containers: [{name: main, image: 'teller:1', env: [{name: ECHO, value: 'anchor:7077'}]}]\n";
    kubectl.ok_with(&["apply", "-f", "-"], teller)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/teller", "--timeout=60s"])?;
    eventually("it is heard", PATIENCE, || {
        let heard = raw("teller", "/ahoy")?;
        ensure!(heard.contains("echo of anchor\nahoy"), "{heard}");
        Ok(())
    })?;

    // One port of a node has one pod, also where nothing was named.
    kubectl.ok_with(&["apply", "-f", "-"], &pod("late", OWN, "    image: hello:1\n"))?;
    eventually("the port is another one's", PATIENCE, || {
        let waiting = of("late", "status.containerStatuses[0].state.waiting")?;
        ensure!(waiting.contains("another pod has port 8080 of the node"), "{waiting}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod", "beacon", "--timeout=60s"])?;
    eventually("it gets the port of the one that is gone", PATIENCE, || {
        let answer = answered(&format!("{OWN_ADDRESS}:8080"), "/")?;
        ensure!(answer.body == "Hello from a function\n", "{answer:?}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pods,services", "-l", "case=host-network", "--timeout=60s"])?;
    remove_own(cluster)
}

//! Processes that talk by TCP and UDP: to each other by name from worker to worker, and with the world through node ports.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::ensure;
use shoal_tests::{Cluster, Tool, eventually};

use crate::examples::{PATIENCE, WORKERS, example};
use crate::streams::Forward;

const FAR: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: far}}
spec:
  nodeName: worker-2
  hostname: far-0
  subdomain: crowd
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: echo:1
      args: [serve, "7"]
      env: [{name: POD_NAME, value: far}]
      ports: [{name: echo, containerPort: 7}, {name: echo-udp, containerPort: 7, protocol: UDP}]
      readinessProbe: {tcpSocket: {port: echo}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec:
  type: NodePort
  selector: {app: far}
  ports:
    - {name: echo, port: 70, targetPort: echo, nodePort: 30107}
    - {name: echo-udp, port: 70, targetPort: echo-udp, protocol: UDP, nodePort: 30107}
---
apiVersion: v1
kind: Service
metadata: {name: crowd}
spec: {clusterIP: None, selector: {app: far}, ports: [{port: 7}]}
"#;

/// A pod on worker 1 that asks and ends. The worker hears of Services and endpoints a little later than kubectl does: one that
/// asks too early asks again, unless it is to fail.
fn asker(name: &str, namespace: &str, arguments: &str) -> String {
    let policy = if namespace == "default" { "OnFailure" } else { "Never" };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: asker}}}}\nspec:\n  \
         nodeName: worker-1\n  restartPolicy: {policy}\n  containers: [{{name: echo, image: 'echo:1', args: {arguments}}}]\n---\n"
    )
}

fn said(kubectl: &Tool, pod: &str, namespace: &str, phase: &str) -> anyhow::Result<String> {
    let phase = format!("--for=jsonpath={{.status.phase}}={phase}");
    kubectl.ok(&["wait", &phase, &format!("pod/{pod}"), "-n", namespace, "--timeout=60s"])?;
    kubectl.ok(&["logs", pod, "-n", namespace])
}

pub fn processes_talk_by_name_from_worker_to_worker(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("echo", "echo.wasm").to_string_lossy(), "echo:1"])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], FAR)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/far", "--timeout=60s"])?;
    for service in ["far", "crowd"] {
        eventually("the pod is an endpoint", PATIENCE, || {
            let path = "jsonpath={.subsets[*].addresses[*].targetRef.name}";
            ensure!(kubectl.ok(&["get", "endpoints", service, "-o", path])? == "far", "{service} has no endpoint");
            Ok(())
        })?;
    }
    let cluster_ip = kubectl.ok(&["get", "service", "far", "-o", "jsonpath={.spec.clusterIP}"])?;
    let pod_ip = kubectl.ok(&["get", "pod", "far", "-o", "jsonpath={.status.podIP}"])?;
    let askers = asker("by-tcp", "default", "[ask, 'far:70', hello]")
        + &asker("by-udp", "default", "[ask-udp, 'far.default.svc:70', hello]")
        + &asker("by-hostname", "default", "[ask, 'far-0.crowd:7', hello]")
        + &asker("by-resolve", "default", "[resolve, crowd.default.svc.cluster.local]")
        + "apiVersion: v1\nkind: Namespace\nmetadata: {name: strangers}\n---\n"
        + &asker("stranger", "strangers", "[ask, 'far.default:70', hello]")
        + &asker("outsider", "strangers", "[resolve, www.example.com]");
    kubectl.ok_with(&["apply", "-f", "-"], &askers)?;
    let by_tcp = said(kubectl, "by-tcp", "default", "Succeeded")?;
    ensure!(by_tcp.contains(&format!("connected to {cluster_ip}:70 from 10.")), "{by_tcp}");
    ensure!(by_tcp.contains("echo of far\nhello\n"), "{by_tcp}");
    let by_udp = said(kubectl, "by-udp", "default", "Succeeded")?;
    ensure!(by_udp == format!("{cluster_ip}:70 answered hello\n"), "{by_udp}");
    let by_hostname = said(kubectl, "by-hostname", "default", "Succeeded")?;
    ensure!(by_hostname.contains(&format!("connected to {pod_ip}:7 from 10.")), "{by_hostname}");
    let resolved = said(kubectl, "by-resolve", "default", "Succeeded")?;
    ensure!(resolved == format!("{pod_ip}\n"), "{resolved}");
    // The pod sees who asked.
    let asker_ip = kubectl.ok(&["get", "pod", "by-tcp", "-o", "jsonpath={.status.podIP}"])?;
    let log = kubectl.ok(&["logs", "far"])?;
    ensure!(log.contains(&format!("connected from {asker_ip}:")), "{asker_ip} is not in:\n{log}");
    // Other namespaces and the world are for those whose annotation says so.
    let stranger = said(kubectl, "stranger", "strangers", "Failed")?;
    ensure!(stranger.contains("Permission denied"), "{stranger}");
    let outsider = said(kubectl, "outsider", "strangers", "Failed")?;
    ensure!(outsider.starts_with("echo: "), "{outsider}");
    kubectl.ok(&["delete", "pods", "-A", "-l", "app=asker", "--timeout=60s"])?;
    kubectl.ok(&["delete", "namespace", "strangers", "--timeout=60s"])?;
    Ok(())
}

pub fn node_ports_carry_any_protocol(_: &mut Cluster) -> anyhow::Result<()> {
    for worker in WORKERS {
        eventually("the process greets and repeats", PATIENCE, || {
            let mut stream = TcpStream::connect((worker, 30_107))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // It speaks first, as a mail server does.
            let mut greeting = [0; 12];
            stream.read_exact(&mut greeting)?;
            ensure!(&greeting == b"echo of far\n", "{greeting:?}");
            stream.write_all(b"over and out")?;
            stream.shutdown(Shutdown::Write)?;
            let mut rest = String::new();
            stream.read_to_string(&mut rest)?;
            ensure!(rest == "over and out", "{rest:?}");
            Ok(())
        })?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        eventually("a datagram comes back", PATIENCE, || {
            socket.send_to(b"over", (worker, 30_107))?;
            let mut answer = [0; 16];
            let (length, from) = socket.recv_from(&mut answer)?;
            ensure!(&answer[..length] == b"over" && from.port() == 30_107, "{answer:?} of {from}");
            Ok(())
        })?;
    }
    Ok(())
}

pub fn a_process_that_serves_is_drained(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((WORKERS[1], 30_107))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0; 12])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok(&["delete", "pod/far", "--grace-period=600", "--wait=false"])?;
    eventually("nobody else is let in", PATIENCE, || {
        let mut late = TcpStream::connect((WORKERS[1], 30_107))?;
        late.set_read_timeout(Some(PATIENCE))?;
        late.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        late.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        // It may be broken off.
        let _ = late.read_to_string(&mut answer);
        ensure!(!answer.contains("echo of far"), "it greets: {answer:?}");
        Ok(())
    })?;
    // Who was there before finishes, and with him the pod.
    stream.write_all(b"the last word")?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    ensure!(rest == "the last word", "{rest:?}");
    kubectl.ok(&["wait", "--for=delete", "pod/far", "--timeout=60s"])?;
    kubectl.ok(&["delete", "service/far", "service/crowd", "--timeout=60s"])?;
    Ok(())
}

/// A process of WASI 0.3 on worker 2, and its Service.
const CHOIR: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: choir, labels: {app: choir}}
spec:
  nodeName: worker-2
  terminationGracePeriodSeconds: 1
  containers:
    - name: chorus
      image: chorus:1
      args: [serve, "7"]
      env: [{name: POD_NAME, value: choir}]
      ports: [{name: echo, containerPort: 7}, {name: echo-udp, containerPort: 7, protocol: UDP}]
      readinessProbe: {tcpSocket: {port: echo}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: choir}
spec:
  type: NodePort
  selector: {app: choir}
  ports:
    - {name: echo, port: 70, targetPort: echo, nodePort: 30117}
    - {name: echo-udp, port: 70, targetPort: echo-udp, protocol: UDP, nodePort: 30117}
---
apiVersion: v1
kind: Namespace
metadata: {name: audience}
---
"#;

/// A pod of WASI 0.3 on worker 1 that asks and ends; `allowed` is what it may reach beside its own namespace.
fn listener(name: &str, namespace: &str, allowed: &str, arguments: &str) -> String {
    asker(name, namespace, arguments).replace("echo:1", "chorus:1").replace(
        "labels: {app: asker}",
        &format!("labels: {{app: asker}}, annotations: {{shoal.dev/allowed-outbound-hosts: '{allowed}'}}"),
    )
}

/// Says something to whoever greets there, and hears it come back.
fn converse(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"over and out")?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    ensure!(heard == "chorus of choir\nover and out", "{address}: {heard:?}");
    Ok(())
}

pub fn processes_of_wasi_0_3_have_the_same_sockets(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("chorus", "chorus.wasm").to_string_lossy(), "chorus:1"])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok_with(&["apply", "-f", "-"], CHOIR)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/choir", "--timeout=60s"])?;
    for worker in WORKERS {
        eventually("the process greets and repeats", PATIENCE, || converse(&format!("{worker}:30117")))?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        eventually("a datagram comes back", PATIENCE, || {
            socket.send_to(b"over", (worker, 30_117))?;
            let mut answer = [0; 16];
            let (length, from) = socket.recv_from(&mut answer)?;
            ensure!(&answer[..length] == b"over" && from.port() == 30_117, "{answer:?} of {from}");
            Ok(())
        })?;
    }
    let forward = Forward::start(kubectl, &[], &["pod/choir", ":7"])?;
    converse(&forward.addresses[0])?;
    drop(forward);

    let cluster_ip = kubectl.ok(&["get", "service", "choir", "-o", "jsonpath={.spec.clusterIP}"])?;
    let allowed = "choir.default:70";
    let listeners = listener("sung-by-tcp", "default", "", "[ask, 'choir:70', hello]")
        + &listener("sung-by-udp", "default", "", "[ask-udp, 'choir.default.svc:70', hello]")
        + &listener("resolved", "default", "", "[resolve, choir.default.svc.cluster.local]")
        + &listener("invited", "audience", allowed, "[ask, 'choir.default:70', hello]")
        + &listener("uninvited", "audience", "", "[ask, 'choir.default:70', hello]");
    kubectl.ok_with(&["apply", "-f", "-"], &listeners)?;
    let by_tcp = said(kubectl, "sung-by-tcp", "default", "Succeeded")?;
    ensure!(by_tcp.contains(&format!("connected to {cluster_ip}:70 from 10.")), "{by_tcp}");
    ensure!(by_tcp.contains("chorus of choir\nhello\n"), "{by_tcp}");
    let by_udp = said(kubectl, "sung-by-udp", "default", "Succeeded")?;
    ensure!(by_udp == format!("{cluster_ip}:70 answered hello\n"), "{by_udp}");
    let resolved = said(kubectl, "resolved", "default", "Succeeded")?;
    ensure!(resolved == format!("{cluster_ip}\n"), "{resolved}");
    let invited = said(kubectl, "invited", "audience", "Succeeded")?;
    ensure!(invited.contains("chorus of choir\nhello\n"), "{invited}");
    let uninvited = said(kubectl, "uninvited", "audience", "Failed")?;
    ensure!(uninvited.contains("AccessDenied"), "{uninvited}");
    kubectl.ok(&["delete", "pods", "-A", "-l", "app=asker", "--timeout=60s"])?;

    // Who is connected when the pod is deleted finishes, and with him the pod.
    let mut stream = TcpStream::connect((WORKERS[1], 30_117))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0; 16])?;
    kubectl.ok(&["delete", "pod/choir", "--grace-period=600", "--wait=false"])?;
    eventually("nobody else is let in", PATIENCE, || {
        ensure!(converse("127.0.1.2:30117").is_err(), "somebody is");
        Ok(())
    })?;
    stream.write_all(b"the last word")?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    ensure!(rest == "the last word", "{rest:?}");
    kubectl.ok(&["wait", "--for=delete", "pod/choir", "--timeout=60s"])?;
    kubectl.ok(&["delete", "service/choir", "namespace/audience", "--timeout=60s"])?;
    Ok(())
}

/// A pod that wants a port of its node; `place` is more of its specification.
fn berth(name: &str, port: u16, place: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: berth}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n{place}  containers:\n  - name: echo\n    image: echo:1\n    args: [serve, \"7\"]\n    \
         env: [{{name: POD_NAME, value: {name}}}]\n    ports:\n    - {{containerPort: 7, hostPort: {port}}}\n    \
         - {{containerPort: 7, hostPort: {port}, protocol: UDP}}\n---\n"
    )
}

/// What a process says first to whoever connects.
pub fn greeting(address: (&str, u16)) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

pub fn host_ports_lead_to_their_pods_and_are_had_once(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("echo", "echo.wasm").to_string_lossy(), "echo:1"])?;
    let kubectl = &cluster.kubectl;
    let of = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.{path}}}")]);
    kubectl.ok_with(&["apply", "-f", "-"], &(berth("berth-1", 18_107, "") + &berth("berth-2", 18_107, "")))?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pods", "-l", "app=berth", "--timeout=60s"])?;
    for pod in ["berth-1", "berth-2"] {
        let node = of(pod, "status.hostIP")?;
        eventually("the process greets", PATIENCE, || {
            let said = greeting((&node, 18_107))?;
            ensure!(said == format!("echo of {pod}\n"), "{node} said {said:?}");
            Ok(())
        })?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        eventually("a datagram comes back", PATIENCE, || {
            socket.send_to(b"over", (node.as_str(), 18_107))?;
            let mut answer = [0; 16];
            let (length, from) = socket.recv_from(&mut answer)?;
            ensure!(&answer[..length] == b"over" && from.port() == 18_107, "{answer:?} of {from}");
            Ok(())
        })?;
    }
    // Both nodes have it: a third pod waits, and one that is put onto a node is refused there.
    let third = berth("berth-3", 18_107, "") + &berth("berth-4", 18_107, "  nodeName: worker-1\n");
    kubectl.ok_with(&["apply", "-f", "-"], &third)?;
    eventually("nobody has room for the third", PATIENCE, || {
        let told = of("berth-3", "status.conditions[?(@.type=='PodScheduled')].message")?;
        ensure!(told.contains("2 node(s) didn't have free ports for the requested pod ports"), "{told:?}");
        ensure!(
            of("berth-4", "status.reason")? == "NodePorts" && of("berth-4", "status.phase")? == "Failed",
            "refused"
        );
        Ok(())
    })?;
    let freed = of("berth-1", "status.hostIP")?;
    kubectl.ok(&["delete", "pod/berth-1", "pod/berth-4", "--timeout=60s"])?;
    eventually("the third has the port of the first", PATIENCE, || {
        ensure!(greeting((&freed, 18_107))? == "echo of berth-3\n", "not yet");
        Ok(())
    })?;
    // Somebody else of the machine has the port: the pod runs, and gets it later.
    let occupied = TcpListener::bind("127.0.1.1:18108")?;
    kubectl.ok_with(&["apply", "-f", "-"], &berth("berth-5", 18_108, "  nodeName: worker-1\n"))?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/berth-5", "--timeout=60s"])?;
    eventually("the conflict is told", PATIENCE, || {
        let told = kubectl.ok(&["describe", "pod", "berth-5"])?;
        ensure!(told.contains("HostPortConflict") && told.contains("127.0.1.1:18108"), "{told}");
        Ok(())
    })?;
    drop(occupied);
    eventually("the port is had once it is free", PATIENCE, || {
        ensure!(greeting(("127.0.1.1", 18_108))? == "echo of berth-5\n", "not yet");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pods", "-l", "app=berth", "--timeout=60s"])?;
    Ok(())
}

//! What the design promises when processes die: no acknowledged write is lost, functions go on answering, pods move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use shoal_tests::{Cluster, Tool, eventually, get};

use crate::examples::{PATIENCE, WORKERS, answered};
use crate::kubectl::running;

pub fn a_killed_leader_loses_no_acknowledged_write(cluster: &mut Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader("server-1")?;
    let survivor = cluster.names("server")?.into_iter().find(|name| *name != leader).context("no other server")?;
    let url = cluster.api_url(&survivor)?;
    let kubectl = cluster.kubectl.clone();
    let create = |number: usize| {
        let arguments = ["--server", &url, "create", "configmap", &format!("write-{number}"), "--from-literal=a=b"];
        kubectl.run(&arguments).map(|output| output.code == 0)
    };

    let mut acknowledged = Vec::new();
    let requests = Requests::start();
    for number in 0..30 {
        if number == 10 {
            cluster.signal(&leader, Signal::KILL)?;
        }
        if create(number)? {
            acknowledged.push(number);
        }
    }
    let (asked, failed) = requests.stop();
    ensure!(acknowledged.iter().any(|number| *number > 10), "no write was acknowledged after the leader died");
    ensure!(asked > 0 && failed == 0, "{failed} of {asked} requests to functions failed while the leader was replaced");
    let new = eventually("another leader", PATIENCE, || {
        let holder = cluster.leader(&survivor)?;
        ensure!(holder != leader, "the lease still names {leader}");
        Ok(holder)
    })?;
    let listed = cluster.kubectl.ok(&["--server", &cluster.api_url(&new)?, "get", "configmaps", "-o", "name"])?;
    for number in &acknowledged {
        ensure!(listed.contains(&format!("configmap/write-{number}\n")), "write-{number} was acknowledged and is gone");
    }
    cluster.up(3, 2)?;
    Ok(())
}

pub fn any_server_answers_and_a_restarted_one_catches_up(cluster: &mut Cluster) -> anyhow::Result<()> {
    for server in cluster.names("server")? {
        let url = cluster.api_url(&server)?;
        let listed = eventually("the server answers", PATIENCE, || {
            cluster.kubectl.ok(&["--server", &url, "get", "configmaps", "-o", "name"])
        })?;
        ensure!(listed.contains("configmap/write-0\n"), "{server} does not have the writes:\n{listed}");
        let name = format!("by-{server}");
        cluster.kubectl.ok(&["--server", &url, "create", "configmap", &name, "--from-literal=a=b"])?;
        let log = cluster.kubectl.ok(&["--server", &url, "logs", "deployment/hello", "--tail=1"]);
        ensure!(log.is_ok(), "{server} cannot fetch a log: {log:?}");
    }
    Ok(())
}

pub fn a_killed_worker_s_pods_move(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    cluster.signal("worker-2", Signal::KILL)?;
    eventually("the node is seen to be gone", PATIENCE, || {
        let row = kubectl.ok(&["get", "node", "worker-2", "--no-headers"])?;
        ensure!(row.contains("NotReady"), "{row}");
        Ok(())
    })?;
    eventually("all pods run on the worker that is left", Duration::from_secs(90), || {
        let nodes = kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "app=hello",
            "--field-selector=status.phase=Running,spec.nodeName=worker-1",
            "-o",
            "name",
        ])?;
        ensure!(nodes.lines().count() == 3, "{nodes}");
        kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=1s"])
    })?;
    for _ in 0..10 {
        answered("127.0.1.1:30080", "/")?;
    }
    cluster.up(3, 2)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "node/worker-2", "--timeout=60s"])?;
    eventually("the worker that came back passes requests on", PATIENCE, || answered("127.0.1.2:30080", "/"))?;
    Ok(())
}

/// Who hears no worker at all is more likely deaf than without workers.
pub fn pods_stay_when_no_worker_is_to_be_heard(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let workers = cluster.names("worker")?;
    let before = eventually("the pods of before are gone", PATIENCE, || {
        let before = pods(kubectl)?;
        ensure!(before.split_whitespace().count() == 3, "{before}");
        Ok(before)
    })?;
    for worker in &workers {
        cluster.signal(worker, Signal::STOP)?;
    }
    let tainted = eventually("both nodes are seen to be silent", PATIENCE, || {
        let taints = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*]}"])?;
        ensure!(taints.matches("node.kubernetes.io/unreachable").count() >= 2, "{taints}");
        Ok(taints)
    });
    let during = pods(kubectl)?;
    for worker in &workers {
        cluster.signal(worker, Signal::CONT)?;
    }
    let tainted = tainted?;
    ensure!(!tainted.contains("NoExecute"), "pods are sent away: {tainted}");
    kubectl.ok(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"])?;
    eventually("both workers answer again", PATIENCE, || {
        WORKERS.iter().try_for_each(|worker| answered(&format!("{worker}:30080"), "/").map(drop))
    })?;
    let after = pods(kubectl)?;
    ensure!(before == during && before == after, "pods were replaced:\n{before}\n{during}\n{after}");
    Ok(())
}

pub fn functions_answer_with_every_server_dead(cluster: &mut Cluster) -> anyhow::Result<()> {
    // Pods on both workers, so that requests cross from one to the other.
    cluster.kubectl.ok(&["rollout", "restart", "deployment/hello"])?;
    cluster.kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let before = pods(&cluster.kubectl)?;
    for server in cluster.names("server")? {
        cluster.signal(&server, Signal::KILL)?;
    }
    let requests = Requests::start();
    for _ in 0..100 {
        for worker in WORKERS {
            answered(&format!("{worker}:30080"), "/")?;
        }
    }
    let (asked, failed) = requests.stop();
    ensure!(asked > 0 && failed == 0, "{failed} of {asked} requests failed while every server was dead");
    // A worker that starts again without any server has its pods from its own disk.
    cluster.signal("worker-1", Signal::KILL)?;
    cluster.restart_member("worker-1")?;
    eventually("the restarted worker answers without any server", PATIENCE, || answered("127.0.1.1:30080", "/"))?;

    cluster.up(3, 2)?;
    eventually("the cluster is whole again", PATIENCE, || {
        let nodes = cluster.kubectl.ok(&["get", "nodes", "--no-headers"])?;
        ensure!(nodes.lines().filter(|row| row.contains(" Ready ")).count() == 2, "{nodes}");
        ensure!(running(&cluster.kubectl, "app=hello")? == 3, "not three pods");
        Ok(())
    })?;
    let after = pods(&cluster.kubectl)?;
    ensure!(before == after, "pods were replaced although they went on running:\n{before}\n{after}");
    Ok(())
}

pub fn a_second_up_finds_everything_as_it_was(cluster: &mut Cluster) -> anyhow::Result<()> {
    let before =
        cluster.kubectl.ok(&["get", "configmaps,services,deployments", "-o", "jsonpath={.items[*].metadata.uid}"])?;
    cluster.shoal(&["down"])?;
    ensure!(get("127.0.1.1:30080", "/").is_err(), "something still answers after `shoal down`");
    cluster.up(3, 2)?;
    let after =
        cluster.kubectl.ok(&["get", "configmaps,services,deployments", "-o", "jsonpath={.items[*].metadata.uid}"])?;
    ensure!(before == after, "{before}\n{after}");
    eventually("hello answers again", PATIENCE, || answered("127.0.1.1:30080", "/"))?;
    Ok(())
}

/// The names and start counts of hello's pods.
fn pods(kubectl: &Tool) -> anyhow::Result<String> {
    kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=hello",
        "--sort-by=.metadata.name",
        "-o",
        "jsonpath={range .items[*]}{.metadata.uid} {end}",
    ])
}

/// Requests to the hello function, one after another on both workers, until they are stopped.
struct Requests {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Requests {
    fn start() -> Self {
        let (stop, asked, failed) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, asked, failed) = (stop.clone(), asked.clone(), failed.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let wanted = asked.fetch_add(1, Ordering::Relaxed) % WORKERS.len();
                    if answered(&format!("{}:30080", WORKERS[wanted]), "/").is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { stop, asked, failed, thread }
    }

    /// How many were asked, and how many of them were not answered with 200.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread does nothing that panics.
        let _ = self.thread.join();
        (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

//! Bringing a whole cluster up in order: the first server, the others, the workers; then waiting until all are ready.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use shoal_client::{Client, ListOptions};

use super::layout::{Cluster, Layout, Process, Role};
use super::process;
use crate::kubeconfig;
use crate::waiting::{Hopeless, until};

/// What the caller asks for; what is not said stays as it was, or is the usual.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// How many servers.
    pub servers: Option<u16>,
    /// How many workers.
    pub workers: Option<u16>,
    /// The first server's API port.
    pub api_port: Option<u16>,
}

/// What runs now; its text is for the person who started it.
#[derive(Debug)]
pub struct Started {
    cluster: Cluster,
    layout: Layout,
    took: Duration,
    fresh: usize,
}

impl fmt::Display for Started {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (servers, workers) = (self.cluster.of(Role::Server).count(), self.cluster.of(Role::Worker).count());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        if self.fresh == 0 {
            writeln!(
                formatter,
                "{servers} server{} and {workers} worker{} run already",
                plural(servers),
                plural(workers)
            )?;
        } else {
            let seconds = self.took.as_secs_f64();
            writeln!(
                formatter,
                "{servers} server{} and {workers} worker{} are ready after {seconds:.1} s",
                plural(servers),
                plural(workers)
            )?;
        }
        for process in &self.cluster.processes {
            writeln!(formatter, "  {:<10} {}", process.name, process.addresses.join(" "))?;
        }
        write!(formatter, "kubectl --kubeconfig {} get nodes", self.layout.kubeconfig().display())
    }
}

/// Starts what does not run of the cluster in `layout`, and what `wanted` adds to it; waits until the API answers and all nodes
/// are ready.
///
/// # Errors
/// When a member does not come up; the message holds the end of its log. What was started stays, and is in `cluster.json`.
pub async fn start(layout: &Layout, wanted: &Wanted) -> anyhow::Result<Started> {
    let begun = Instant::now();
    let mut cluster = layout.load()?;
    let plan = plan(&cluster, wanted)?;
    let mut fresh = restart(layout, &mut cluster).await?;

    for number in 1..=plan.servers {
        let arguments = server_arguments(layout, &plan, number);
        let addresses = vec![format!("https://127.0.0.1:{}", plan.api_port + number - 1)];
        let is_new = ensure_member(layout, &mut cluster, Role::Server, number, addresses, || {
            let mut arguments = arguments.clone();
            if number > 1 {
                arguments.extend(["--join".to_string(), link_address(&plan, 1), "--token-file".to_string()]);
                arguments.push(layout.directory().join("server.token").display().to_string());
            }
            arguments
        });
        fresh += usize::from(is_new.await?);
        if number == 1 {
            wait_for_server(layout, &cluster, number).await?;
            let admin = std::fs::read(layout.member("server-1").join("admin.kubeconfig"))
                .context("the first server wrote no admin.kubeconfig")?;
            layout.replace("admin.kubeconfig", &admin)?;
            for role in ["server", "worker"] {
                write_token(layout, role).await?;
            }
        } else {
            // One after another: a change of the servers waits for the one before it.
            wait_for_server(layout, &cluster, number).await?;
        }
    }
    let servers: Vec<String> = (1..=plan.servers).map(|number| link_address(&plan, number)).collect();
    for number in 1..=plan.workers {
        let address = Ipv4Addr::new(127, 0, 1, u8::try_from(number).context("there are too many workers")?);
        let is_new = ensure_member(layout, &mut cluster, Role::Worker, number, vec![address.to_string()], || {
            worker_arguments(layout, &servers, number, address)
        });
        fresh += usize::from(is_new.await?);
    }
    wait_for_nodes(layout, &cluster).await?;
    Ok(Started { cluster, layout: layout.clone(), took: begun.elapsed(), fresh })
}

/// Starts every known member that does not run, all at once: the servers need one another before any of them is ready.
async fn restart(layout: &Layout, cluster: &mut Cluster) -> anyhow::Result<usize> {
    let mut started = Vec::new();
    for known in cluster.processes.iter_mut().filter(|known| !process::is_alive(known)) {
        known.pid = process::start(layout, &known.name, &known.arguments)?;
        started.push(known.name.clone());
    }
    if !started.is_empty() {
        record(layout, cluster, &started).await?;
    }
    Ok(started.len())
}

/// Stays until the process is asked to end; says so when a member ends by itself.
#[expect(clippy::print_stderr, reason = "a verb talks to the person who calls it")]
pub async fn stay(layout: &Layout) -> anyhow::Result<()> {
    let cluster = layout.load()?;
    let mut missing: Vec<String> = Vec::new();
    let asked = crate::verbs::asked_to_end();
    tokio::pin!(asked);
    loop {
        tokio::select! {
            asked = &mut asked => return asked.map(drop),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        for process in &cluster.processes {
            if !missing.contains(&process.name) && !process::is_alive(process) {
                eprintln!("{} ended; its log is {}", process.name, layout.log(&process.name).display());
                eprintln!("to start it again: shoal {}", process.arguments.join(" "));
                missing.push(process.name.clone());
            }
        }
    }
}

/// What is to run.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    servers: u16,
    workers: u16,
    api_port: u16,
}

fn plan(cluster: &Cluster, wanted: &Wanted) -> anyhow::Result<Plan> {
    let have = |role| u16::try_from(cluster.of(role).count()).unwrap_or(u16::MAX);
    let count = |role, wanted: Option<u16>| -> anyhow::Result<u16> {
        let have = have(role);
        match wanted {
            Some(wanted) if wanted < have => {
                anyhow::bail!("the cluster has {have} of these already, and `up` only adds: ask for {have} or more")
            }
            Some(wanted) => Ok(wanted),
            None => Ok(if cluster.processes.is_empty() { 1 } else { have }),
        }
    };
    let present =
        cluster.of(Role::Server).next().and_then(|process| process.addresses.first()?.rsplit(':').next()?.parse().ok());
    let api_port = match (present, wanted.api_port) {
        (Some(present), Some(wanted)) if present != wanted => {
            anyhow::bail!("the cluster's first server has port {present}: leave --api-port out, or say {present}")
        }
        (present, wanted) => present.or(wanted).unwrap_or(6443),
    };
    let plan =
        Plan { servers: count(Role::Server, wanted.servers)?, workers: count(Role::Worker, wanted.workers)?, api_port };
    anyhow::ensure!(
        plan.api_port.checked_add(plan.servers).is_some(),
        "the port {} leaves no room for {} servers",
        plan.api_port,
        plan.servers
    );
    Ok(plan)
}

fn server_arguments(layout: &Layout, plan: &Plan, number: u16) -> Vec<String> {
    let name = format!("server-{number}");
    let address = format!("127.0.0.1:{}", plan.api_port + number - 1);
    let data = layout.member(&name).display().to_string();
    ["server", "--data-dir", &data, "--name", &name, "--api-address", &address, "--link-address", &address]
        .map(str::to_string)
        .to_vec()
}

fn worker_arguments(layout: &Layout, servers: &[String], number: u16, address: Ipv4Addr) -> Vec<String> {
    let name = format!("worker-{number}");
    let (data, token) = (layout.member(&name), layout.directory().join("worker.token"));
    let (data, token, address) = (data.display().to_string(), token.display().to_string(), address.to_string());
    ["worker", "--data-dir", &data, "--name", &name, "--join", &servers.join(","), "--token-file", &token]
        .into_iter()
        .chain(["--address", &address, "--profile", "lan"])
        // Several workers share this machine with whatever else runs on it: its disk and memory are not theirs to defend.
        .chain(["--eviction-hard", ""])
        .map(str::to_string)
        .collect()
}

fn link_address(plan: &Plan, number: u16) -> String {
    format!("127.0.0.1:{}", plan.api_port + number - 1)
}

/// Starts a member that the cluster does not have yet; answers whether it did.
async fn ensure_member(
    layout: &Layout,
    cluster: &mut Cluster,
    role: Role,
    number: u16,
    addresses: Vec<String>,
    arguments: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<bool> {
    let name = match role {
        Role::Server => format!("server-{number}"),
        Role::Worker => format!("worker-{number}"),
    };
    if cluster.processes.iter().any(|process| process.name == name) {
        return Ok(false);
    }
    let arguments = arguments();
    let pid = process::start(layout, &name, &arguments)?;
    cluster.processes.push(Process { name: name.clone(), role, pid, addresses, arguments });
    cluster.processes.sort_by_key(|process| (process.role == Role::Worker, process.name.len(), process.name.clone()));
    record(layout, cluster, &[name]).await?;
    Ok(true)
}

/// Writes down what runs now. What was just `started` and cannot be written down is stopped: nobody could find it again.
async fn record(layout: &Layout, cluster: &Cluster, started: &[String]) -> anyhow::Result<()> {
    let Err(error) = layout.save(cluster) else { return Ok(()) };
    let started: Vec<&Process> = cluster.processes.iter().filter(|process| started.contains(&process.name)).collect();
    process::stop(&started).await?;
    Err(error)
}

/// A join token, made through the API and kept for members that are added later.
async fn write_token(layout: &Layout, role: &str) -> anyhow::Result<()> {
    let file = format!("{role}.token");
    if layout.directory().join(&file).exists() {
        return Ok(());
    }
    let wish = serde_json::to_vec(&json!({"role": role, "ttlSeconds": 0}))?;
    let reply: Value = until("the cluster gives a join token", || async {
        let client = kubeconfig::client(&layout.kubeconfig())?;
        Ok(client.json(Method::POST, "/shoal/v1/tokens", Some(wish.clone())).await?)
    })
    .await?;
    layout.replace(&file, reply["token"].as_str().context("the cluster gave no token")?.as_bytes())
}

/// Waits until the server's own API says that it is ready.
async fn wait_for_server(layout: &Layout, cluster: &Cluster, number: u16) -> anyhow::Result<()> {
    let name = format!("server-{number}");
    let process =
        cluster.processes.iter().find(|process| process.name == name).context("the server was not started")?;
    let url = process.addresses.first().context("the server has no address")?.clone();
    let path = layout.member(&name).join("admin.kubeconfig");
    until(&format!("{name} is ready"), || async {
        alive(layout, process)?;
        let mut config = shoal_client::Kubeconfig::load(&path)?;
        config.servers = vec![url.clone()];
        let client = Client::new(std::sync::Arc::new(shoal_client::TlsTransport::new(&config)?));
        ready(&client).await
    })
    .await
}

async fn ready(client: &Client) -> anyhow::Result<()> {
    let request = http::Request::get("/readyz").body(shoal_client::empty_body())?;
    let answer = tokio::time::timeout(Duration::from_secs(2), client.raw(request)).await.context("no answer")??;
    anyhow::ensure!(answer.status().is_success(), "/readyz answers {}", answer.status());
    Ok(())
}

async fn wait_for_nodes(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    until("all nodes are ready", || async {
        for process in &cluster.processes {
            alive(layout, process)?;
        }
        let client = kubeconfig::client(&layout.kubeconfig())?;
        let nodes = client.list::<Node>("", &ListOptions::default()).await?.items;
        for worker in cluster.of(Role::Worker) {
            let node = nodes.iter().find(|node| node.metadata.name.as_ref() == Some(&worker.name));
            anyhow::ensure!(node.is_some_and(is_ready), "node {:?} is not ready", worker.name);
        }
        Ok(())
    })
    .await
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn alive(layout: &Layout, process: &Process) -> anyhow::Result<()> {
    if process::is_alive(process) {
        return Ok(());
    }
    let tail = process::log_tail(layout, &process.name, 8);
    Err(Hopeless(format!(
        "{} ended; its log, {}, ends with:\n{tail}",
        process.name,
        layout.log(&process.name).display()
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(servers: u16, workers: u16) -> Cluster {
        let process = |role, number: u16, port: u16| Process {
            name: format!("{number}"),
            role,
            pid: 1,
            addresses: vec![format!("https://127.0.0.1:{port}")],
            arguments: Vec::new(),
        };
        let servers = (0..servers).map(|number| process(Role::Server, number, 7000 + number));
        Cluster { processes: servers.chain((0..workers).map(|number| process(Role::Worker, number, 0))).collect() }
    }

    #[test]
    fn a_new_cluster_is_one_and_one() {
        let plan = plan(&Cluster::default(), &Wanted::default()).expect("a plan");
        assert_eq!(plan, Plan { servers: 1, workers: 1, api_port: 6443 });
    }

    #[test]
    fn a_second_up_keeps_what_is_there_and_adds_what_is_asked() {
        let kept = plan(&cluster(3, 2), &Wanted::default()).expect("a plan");
        assert_eq!(kept, Plan { servers: 3, workers: 2, api_port: 7000 });
        let more =
            plan(&cluster(1, 1), &Wanted { servers: Some(3), workers: Some(2), api_port: None }).expect("a plan");
        assert_eq!(more, Plan { servers: 3, workers: 2, api_port: 7000 });
    }

    #[test]
    fn fewer_members_or_another_port_are_refused_with_the_remedy() {
        let error =
            plan(&cluster(3, 2), &Wanted { servers: Some(1), ..Wanted::default() }).expect_err("fewer").to_string();
        assert!(error.contains("ask for 3 or more"), "{error}");
        let error =
            plan(&cluster(1, 1), &Wanted { api_port: Some(9), ..Wanted::default() }).expect_err("a port").to_string();
        assert!(error.contains("7000"), "{error}");
    }
}

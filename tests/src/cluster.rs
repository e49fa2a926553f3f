//! A cluster of real processes in a temporary folder, started by `shoal up --detach` and stopped when it is dropped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{Tool, Tools, eventually};

/// The cluster, and the tools set up for it.
pub struct Cluster {
    binary: PathBuf,
    folder: tempfile::TempDir,
    /// kubectl for this cluster, as its admin.
    pub kubectl: Tool,
    /// Helm for this cluster, as its admin.
    pub helm: Tool,
    api_port: u16,
}

impl Cluster {
    /// Starts `servers` and `workers` with the program at `binary` and waits until all are ready.
    ///
    /// # Errors
    /// When `shoal up` fails; the message holds what it printed.
    pub fn start(binary: &Path, tools: &Tools, servers: u16, workers: u16) -> anyhow::Result<Self> {
        let cluster = Self::empty(binary, tools, servers)?;
        cluster.up(servers, workers)?;
        Ok(cluster)
    }

    /// A cluster without members, and room for so many servers: [`Cluster::add_server`].
    ///
    /// # Errors
    /// When there is no room.
    pub fn empty(binary: &Path, tools: &Tools, servers: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let kubeconfig = folder.path().join("cluster/admin.kubeconfig");
        Ok(Self {
            binary: binary.to_path_buf(),
            kubectl: tools.tool("kubectl", &kubeconfig, folder.path()),
            helm: tools.tool("helm", &kubeconfig, folder.path()),
            folder,
            api_port: free_ports(servers)?,
        })
    }

    /// The port of the first server; the others have the next ones.
    pub fn first_port(&self) -> u16 {
        self.api_port
    }

    /// Starts a server with these arguments beside its name and its folder; it belongs to the cluster as if `up` had made it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_server(&self, name: &str, api_address: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let folder = self.data().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let folder = folder.to_str().context("a folder whose name is no text")?;
        let own = ["server", "--name", name, "--data-dir", folder, "--api-address", api_address];
        let all = [&own, arguments].concat();
        let row = serde_json::json!({
            "name": name,
            "role": "server",
            "pid": 0,
            "addresses": [format!("https://{api_address}")],
            "arguments": all,
        });
        let mut rows = self.processes().unwrap_or_default();
        rows.push(row);
        self.save(&rows)?;
        self.restart_member(name)
    }

    /// Starts a worker with these arguments beside its name and its folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_worker(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let folder = self.data().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let folder = folder.to_str().context("a folder whose name is no text")?;
        let all = [&["worker", "--name", name, "--data-dir", folder, "--profile", "lan"], arguments].concat();
        let mut rows = self.processes()?;
        rows.push(serde_json::json!({"name": name, "role": "worker", "pid": 0, "addresses": [], "arguments": all}));
        self.save(&rows)?;
        self.restart_member(name)
    }

    /// Ends a member by this signal, waits until its process is over, and forgets it; its folder stays.
    ///
    /// # Errors
    /// When there is no such member, or it does not end.
    pub fn remove_member(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let mut rows = self.processes()?;
        let row = rows.iter().find(|row| row["name"] == name).with_context(|| format!("there is no {name}"))?;
        let pid =
            row["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("no process id")?;
        self.signal(name, signal)?;
        eventually("the process is over", Duration::from_secs(60), || {
            anyhow::ensure!(rustix::process::test_kill_process(pid).is_err(), "{name} still runs");
            Ok(())
        })?;
        rows.retain(|row| row["name"] != name);
        self.save(&rows)
    }

    fn save(&self, rows: &[Value]) -> anyhow::Result<()> {
        std::fs::write(self.data().join("cluster.json"), serde_json::json!({"processes": rows}).to_string())
            .context("failed to write cluster.json")
    }

    /// `shoal up --detach` on the same folder: starts what is not running.
    ///
    /// # Errors
    /// When it fails.
    pub fn up(&self, servers: u16, workers: u16) -> anyhow::Result<String> {
        let (servers, workers, port) = (servers.to_string(), workers.to_string(), self.api_port.to_string());
        self.shoal(&["up", "--servers", &servers, "--workers", &workers, "--api-port", &port, "--detach"])
    }

    /// Runs the program with this cluster's `--data-dir`; answers what it printed.
    ///
    /// # Errors
    /// When it ends with anything but 0.
    pub fn shoal(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let data = self.data();
        let data = data.to_str().context("a folder whose name is no text")?;
        self.run(&[&[arguments[0], "--data-dir", data], &arguments[1..]].concat(), &[])
    }

    /// Runs the program with just these arguments, and these variables beside its own; answers what it printed.
    ///
    /// # Errors
    /// When it ends with anything but 0.
    pub fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .env_remove("KUBECONFIG")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {}", self.binary.display()))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "`shoal {}` failed\n{stdout}{stderr}", arguments.join(" "));
        Ok(stdout.into_owned())
    }

    /// The folder of the cluster.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// The rows of `cluster.json`.
    ///
    /// # Errors
    /// When it is not there or not JSON.
    pub fn processes(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.data().join("cluster.json")).context("failed to read cluster.json")?;
        let cluster: Value = serde_json::from_str(&text)?;
        Ok(cluster["processes"].as_array().cloned().unwrap_or_default())
    }

    /// The names of the members of one role, `server` or `worker`.
    ///
    /// # Errors
    /// As [`Cluster::processes`].
    pub fn names(&self, role: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.processes()?;
        let of_role = rows.iter().filter(|row| row["role"] == role);
        Ok(of_role.filter_map(|row| row["name"].as_str().map(str::to_string)).collect())
    }

    /// Sends a signal to the member called `name`.
    ///
    /// # Errors
    /// When there is no such member or it does not run.
    pub fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let rows = self.processes()?;
        let row = rows.iter().find(|row| row["name"] == name).with_context(|| format!("there is no {name}"))?;
        let pid =
            row["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("no process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("failed to signal {name}"))
    }

    /// Starts the member called `name` again with the arguments that `cluster.json` keeps for it, and nothing else.
    ///
    /// # Errors
    /// When there is no such member or it cannot be started.
    pub fn restart_member(&self, name: &str) -> anyhow::Result<()> {
        let mut rows = self.processes()?;
        let row = rows.iter_mut().find(|row| row["name"] == name).with_context(|| format!("there is no {name}"))?;
        let arguments: Vec<String> = serde_json::from_value(row["arguments"].clone()).context("no arguments")?;
        let log = std::fs::File::options().create(true).append(true).open(self.data().join(format!("{name}.log")))?;
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        row["pid"] = child.id().into();
        self.save(&rows)?;
        // Only so that its exit status is taken when it ends.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Has the member called `name` started with these arguments, too, when it is started the next time.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn add_arguments(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut rows = self.processes()?;
        let row = rows.iter_mut().find(|row| row["name"] == name).with_context(|| format!("there is no {name}"))?;
        let present = row["arguments"].as_array_mut().context("no arguments")?;
        present.extend(arguments.iter().map(|argument| Value::from(*argument)));
        self.save(&rows)
    }

    /// The URL of a server's API.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn api_url(&self, server: &str) -> anyhow::Result<String> {
        let rows = self.processes()?;
        let row = rows.iter().find(|row| row["name"] == server).with_context(|| format!("there is no {server}"))?;
        Ok(row["addresses"][0].as_str().context("no address")?.to_string())
    }

    /// The name of the server that leads now, as the server called `asked` knows it.
    ///
    /// # Errors
    /// When none does within the time that an election takes.
    pub fn leader(&self, asked: &str) -> anyhow::Result<String> {
        let url = self.api_url(asked)?;
        eventually("a leader", Duration::from_secs(15), || {
            let query = [
                "--server",
                &url,
                "get",
                "lease",
                "-n",
                "kube-system",
                "kube-controller-manager",
                "-o",
                "jsonpath={.spec.holderIdentity}",
            ];
            let holder = self.kubectl.ok(&query)?;
            anyhow::ensure!(!holder.is_empty(), "the lease has no holder");
            Ok(holder)
        })
    }

    /// What the members wrote to their logs last, for a person who must find out why a test failed.
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for row in self.processes().unwrap_or_default() {
            let name = row["name"].as_str().unwrap_or_default();
            let log = std::fs::read_to_string(self.data().join(format!("{name}.log"))).unwrap_or_default();
            let all: Vec<&str> = log.lines().collect();
            text.push_str(&format!("--- {name}\n{}\n", all[all.len().saturating_sub(lines)..].join("\n")));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.shoal(&["down"]) {
            eprintln!("{error:?}");
        }
    }
}

/// Where the ports of clusters are looked for: below those that the system gives to outgoing connections, one of which could
/// have the port of a server that is down for a moment.
const PORTS: std::ops::Range<u16> = 20_000..29_000;

/// The first of `count` neighbouring ports that are free for TCP and UDP.
///
/// # Errors
/// When there are none.
pub fn free_ports(count: u16) -> anyhow::Result<u16> {
    let is_free = |port| {
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
            && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    // Several suites may look at once, each from a place of its own.
    let start = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start)).unwrap_or_default();
    let candidates = PORTS.skip(start.into()).chain(PORTS).step_by(usize::from(count) + 1);
    let found = candidates.take(200).find(|first| (*first..first + count).all(is_free));
    found.with_context(|| format!("found no {count} neighbouring free ports"))
}

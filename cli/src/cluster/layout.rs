//! Where a local cluster keeps its things, and `cluster.json`, its list of processes.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What a process of the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A control-plane node.
    Server,
    /// A node that runs pods.
    Worker,
}

/// One member of the cluster and the process that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `server-1`, `worker-2`: also the folder of its data and the name of its node.
    pub name: String,
    /// Server or worker.
    pub role: Role,
    /// The process id; it may have ended since.
    pub pid: u32,
    /// What it listens on: a server's API as `https://…`, a worker's node address.
    pub addresses: Vec<String>,
    /// The arguments that start it again.
    pub arguments: Vec<String>,
}

/// `cluster.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Servers first, each kind by number.
    pub processes: Vec<Process>,
}

impl Cluster {
    /// The members of one role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.role == role)
    }
}

/// The folder of a local cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// The cluster in `directory`, made if it is missing; readable by its owner only.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder
            .create(directory)
            .with_context(|| format!("failed to make the data directory {}", directory.display()))?;
        let directory = directory.canonicalize().with_context(|| format!("failed to open {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// The cluster that must be in `directory` already.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(
            directory.join("cluster.json").exists(),
            "there is no cluster in {}: `shoal up --data-dir {}` makes one",
            directory.display(),
            directory.display()
        );
        Self::create(directory)
    }

    /// The folder itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The data of the member called `name`.
    pub fn member(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The log of the member called `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Hands what `shoal restore` left here to the first server, which founds the cluster with it.
    ///
    /// # Errors
    /// When there is a first server already, or the folder cannot be moved.
    pub fn take_over_restored(&self) -> anyhow::Result<()> {
        let restored = self.directory.join("restored");
        if !restored.exists() {
            return Ok(());
        }
        let first = self.member("server-1");
        anyhow::ensure!(
            !first.join("member.json").exists(),
            "{} holds a restored cluster, and server-1 is a member of another one: restore into a folder of its own",
            self.directory.display()
        );
        std::fs::create_dir_all(&first).with_context(|| format!("failed to make {}", first.display()))?;
        let to = first.join("restored");
        std::fs::rename(&restored, &to).with_context(|| format!("failed to move {}", restored.display()))
    }

    /// What `kubectl --kubeconfig` takes.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// The list of processes; empty before the first start.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(&self) -> anyhow::Result<Cluster> {
        let path = self.directory.join("cluster.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("failed to read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Cluster::default()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    /// Replaces the list of processes, so that a reader sees the old one or the new one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(cluster)?;
        text.push(b'\n');
        self.replace("cluster.json", &text)
    }

    /// Writes `name` in the folder beside its old version and puts it in its place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn replace(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let failed = || format!("failed to write {}", path.display());
        let mut beside = tempfile::NamedTempFile::new_in(&self.directory).with_context(failed)?;
        beside.write_all(content).with_context(failed)?;
        beside.as_file().sync_all().with_context(failed)?;
        beside.persist(&path).with_context(failed)?;
        Ok(())
    }

    /// Keeps a second `up` or `down` out of the folder until the answer is dropped.
    ///
    /// # Errors
    /// When another one is at work there.
    pub fn lock(&self) -> anyhow::Result<std::fs::File> {
        let path = self.directory.join("lock");
        let file = std::fs::File::create(&path).with_context(|| format!("failed to make {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            anyhow::anyhow!("another `shoal up` or `shoal down` is at work in {}", self.directory.display())
        })?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_processes_comes_back_as_it_was_saved() {
        let directory = tempfile::tempdir().expect("a folder");
        let layout = Layout::create(directory.path()).expect("a layout");
        assert_eq!(layout.load().expect("nothing yet"), Cluster::default());
        let server = Process {
            name: "server-1".to_string(),
            role: Role::Server,
            pid: 7,
            addresses: vec!["https://127.0.0.1:6443".to_string()],
            arguments: vec!["server".to_string()],
        };
        let cluster = Cluster { processes: vec![server] };
        layout.save(&cluster).expect("saved");
        assert_eq!(layout.load().expect("loaded"), cluster);
        let text = std::fs::read_to_string(layout.directory().join("cluster.json")).expect("the file");
        assert!(text.contains("\"role\": \"server\""), "{text}");
    }

    #[test]
    fn two_at_once_are_refused() {
        let directory = tempfile::tempdir().expect("a folder");
        let layout = Layout::create(directory.path()).expect("a layout");
        let held = layout.lock().expect("the first");
        assert!(layout.lock().is_err());
        drop(held);
        assert!(layout.lock().is_ok());
    }
}

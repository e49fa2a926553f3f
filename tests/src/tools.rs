//! kubectl and Helm as programs: found through `tests/kubernetes-tools`, run with the cluster's kubeconfig.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

/// The folder with kubectl and Helm.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Finds or installs both.
    ///
    /// # Errors
    /// When they are not there and cannot be installed; the message is the script's own.
    pub fn install() -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes-tools");
        let output = Command::new(&script).output().with_context(|| format!("failed to run {}", script.display()))?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Self { folder: PathBuf::from(String::from_utf8(output.stdout)?.trim()) })
    }

    /// No tools: for a cluster that is not driven with any.
    pub fn none() -> Self {
        Self { folder: PathBuf::new() }
    }

    /// A program of the folder, set up with `kubeconfig` and a cache of its own in `home`.
    pub fn tool(&self, name: &str, kubeconfig: &Path, home: &Path) -> Tool {
        Tool { program: self.folder.join(name), kubeconfig: kubeconfig.to_path_buf(), home: home.to_path_buf() }
    }
}

/// kubectl or Helm for one cluster.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What a program printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Tool {
    /// The command itself, for a test that reads along while it runs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env_remove("RUST_BACKTRACE");
        command
    }

    /// The same program for another cluster.
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_path_buf(), ..self.clone() }
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.run_with(arguments, "")
    }

    /// Runs it with `input` on its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        // A program that does not read its input closes it; that is its right.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and wants success; answers standard output.
    ///
    /// # Errors
    /// When it ends with anything but 0: the message holds the command and all that it printed.
    pub fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.ok_with(arguments, "")
    }

    /// [`Tool::ok`] with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Tool::ok`].
    pub fn ok_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let output = self.run_with(arguments, input)?;
        anyhow::ensure!(
            output.code == 0,
            "`{} {}` ended with {}\n{}{}",
            self.program.file_name().unwrap_or_default().to_string_lossy(),
            arguments.join(" "),
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// Runs it and wants failure; answers standard error.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn fails_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let output = self.run_with(arguments, input)?;
        anyhow::ensure!(output.code != 0, "`{}` succeeded:\n{}", arguments.join(" "), output.stdout);
        Ok(output.stderr)
    }
}

//! `shoal backup`: the cluster's state in a file; and `shoal restore`: a new cluster from it.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use shoal_controlplane::Keyring;
use shoal_controlplane::backup::{self, Head, Opening};

use crate::kubeconfig::Target;

/// Where a passphrase is looked for before it is asked for.
const PASSPHRASE: &str = "SHOAL_BACKUP_PASSPHRASE";

/// Put the cluster's state into a file, and check such files.
#[derive(Args)]
pub struct Backup {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a backup of the running cluster.
    ///
    /// It is sealed with the cluster's encryption key. With a passphrase, which is taken from SHOAL_BACKUP_PASSPHRASE or asked for,
    /// it also holds the CA and the encryption keys, and nothing but the passphrase is needed to restore it.
    #[command(after_help = "Example:\n  SHOAL_BACKUP_PASSPHRASE=… shoal backup create cluster.shoal-backup")]
    Create {
        #[command(flatten)]
        target: Target,
        /// The file; it must not be there yet.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Read a backup to its end and check it.
    Verify {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        opening: OpeningArguments,
    },
}

/// What opens a backup.
#[derive(Args)]
pub struct OpeningArguments {
    /// The encryption keys of the cluster that it was made in, in place of a passphrase.
    #[arg(long, value_name = "FILE")]
    encryption_keys: Option<PathBuf>,
}

/// Make a data directory for a new cluster out of a backup; `shoal up` or `shoal server` on it is the next step.
///
/// The passphrase is taken from SHOAL_BACKUP_PASSPHRASE or asked for.
#[derive(Args)]
#[command(after_help = "\
Examples:
  shoal restore cluster.shoal-backup --data-dir /var/lib/shoal && shoal server --data-dir /var/lib/shoal
  shoal restore cluster.shoal-backup --data-dir ~/.shoal && shoal up --servers 3 --workers 2")]
pub struct Restore {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder, which must have no cluster yet.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    opening: OpeningArguments,
}

impl Backup {
    /// Writes or reads a backup.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Create { target, file } => create(&target, &file).await,
            Verb::Verify { file, opening } => verify(&file, &opening),
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what the verb is for")]
async fn create(target: &Target, file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!file.exists(), "{} is there already", file.display());
    let client = target.client()?;
    let passphrase = new_passphrase()?;
    if passphrase.is_none() {
        eprintln!(
            "without a passphrase neither the CA nor the encryption keys are in the backup: keep a copy of encryption.keys, which is \
             in every server's data directory, or it cannot be opened"
        );
    }
    let wish = serde_json::to_vec(&json!({ "passphrase": passphrase }))?;
    let request = Request::post("/shoal/v1/backup").body(shoal_client::bytes_body(wish))?;
    let response = client.raw(request).await.context("failed to ask for a backup")?;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        anyhow::bail!("the cluster made no backup: {status}: {}", String::from_utf8_lossy(&text));
    }
    let beside = file.with_extension("partial");
    let failed = || format!("failed to write {}", beside.display());
    let mut out = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let out =
        out.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string())).with_context(failed)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| anyhow::anyhow!("the backup broke off: {error}"))?;
        if let Some(bytes) = frame.data_ref() {
            out.write_all(bytes).with_context(failed)?;
        }
    }
    out.sync_all().with_context(failed)?;
    // What was not whole must never look like a backup.
    let (head, _) = read(&beside, None)?;
    std::fs::rename(&beside, file).with_context(|| format!("failed to write {}", file.display()))?;
    println!("{}: {}", file.display(), describe(&head));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the verb is for")]
fn verify(file: &Path, arguments: &OpeningArguments) -> anyhow::Result<()> {
    let (head, _) = read(file, None)?;
    println!("{}: {}", file.display(), describe(&head));
    match opening(&head, arguments, false)? {
        Some(opening) => {
            let (_, backup) = read(file, Some(&opening))?;
            let image = backup.context("the backup was not opened")?.image;
            println!("its checksum is right, and all of its {} keys can be read", image.len());
        }
        None => println!(
            "its checksum is right; give {PASSPHRASE} or --encryption-keys to have its content checked as well"
        ),
    }
    Ok(())
}

impl Restore {
    /// Writes the data directory.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub fn run(self) -> anyhow::Result<()> {
        let (head, _) = read(&self.file, None)?;
        let opening = opening(&head, &self.opening, true)?.context("a passphrase or the encryption keys are needed")?;
        let restored = shoal_controlplane::restore(&self.file, &self.data_dir, &opening)?;
        println!("restored {}", describe(&restored.head));
        if !restored.keeps_ca {
            println!(
                "the backup has no CA: the new cluster gets one of its own, and workers and users need new certificates"
            );
        }
        let directory = self.data_dir.display();
        println!("`shoal up --data-dir {directory}` or `shoal server --data-dir {directory}` starts the new cluster");
        Ok(())
    }
}

fn read(file: &Path, opening: Option<&Opening>) -> anyhow::Result<(Head, Option<backup::Backup>)> {
    let input = std::fs::File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
    backup::read(std::io::BufReader::with_capacity(1 << 20, input), opening)
        .with_context(|| format!("failed to read {}", file.display()))
}

fn describe(head: &Head) -> String {
    let with = if head.has_secrets() { "with" } else { "without" };
    format!(
        "made {}, revision {}, {} keys, {with} the CA and the encryption keys",
        head.created, head.revision, head.keys
    )
}

/// What was given to open a backup; asked for when `needed` and there is somebody to ask.
fn opening(head: &Head, arguments: &OpeningArguments, needed: bool) -> anyhow::Result<Option<Opening>> {
    if let Some(path) = &arguments.encryption_keys {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let ring = Keyring::parse(&text).with_context(|| format!("failed to understand {}", path.display()))?;
        return Ok(Some(Opening::Keys(ring)));
    }
    if !head.has_secrets() {
        anyhow::ensure!(
            !needed,
            "the backup was made without a passphrase: --encryption-keys names the keys of the cluster that it was made in"
        );
        return Ok(None);
    }
    if let Some(passphrase) = given_passphrase()? {
        return Ok(Some(Opening::Passphrase(passphrase)));
    }
    if std::io::stdin().is_terminal() {
        return Ok(Some(Opening::Passphrase(rpassword::prompt_password("Passphrase of the backup: ")?)));
    }
    anyhow::ensure!(!needed, "the backup needs its passphrase: set {PASSPHRASE}");
    Ok(None)
}

fn given_passphrase() -> anyhow::Result<Option<String>> {
    match std::env::var(PASSPHRASE) {
        Ok(passphrase) => {
            anyhow::ensure!(!passphrase.is_empty(), "{PASSPHRASE} is empty: unset it, or choose a passphrase");
            Ok(Some(passphrase))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(PASSPHRASE)),
    }
}

/// The passphrase for a new backup; `None` when none is wanted, or there is nobody to ask.
fn new_passphrase() -> anyhow::Result<Option<String>> {
    if let Some(passphrase) = given_passphrase()? {
        return Ok(Some(passphrase));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let passphrase = rpassword::prompt_password("Passphrase for the backup (empty for none): ")?;
    if passphrase.is_empty() {
        return Ok(None);
    }
    let again = rpassword::prompt_password("Once more: ")?;
    anyhow::ensure!(passphrase == again, "the two are not the same");
    Ok(Some(passphrase))
}

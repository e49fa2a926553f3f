//! Backups of a running cluster: on request, and by themselves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use shoal_store::backup::{self, BackupStream};

use crate::config::Backups;
use crate::limits;
use crate::restore::Secrets;
use crate::server::Core;

const ENDING: &str = ".shoal-backup";

/// Begins a backup of what is acknowledged now; with a passphrase the CA and the encryption keys are in it too.
pub(crate) async fn create(core: &Arc<Core>, passphrase: Option<String>) -> anyhow::Result<BackupStream> {
    core.store.read_barrier().await?;
    let core = core.clone();
    // A passphrase is hashed for a while.
    let begun = tokio::task::spawn_blocking(move || {
        let keys = &core.keys;
        let secrets = Secrets {
            ca_certificate: keys.authority.certificate_pem().to_string(),
            ca_key: keys.authority.key_pem().to_string(),
            service_account_key: keys.service_account_key.clone(),
            encryption_keys: keys.ring.render(),
        };
        let secrets = serde_json::to_vec(&secrets)?;
        let passphrase = passphrase.as_deref().map(|passphrase| (passphrase, &secrets[..]));
        anyhow::Ok(backup::create(core.store.image(), Timestamp::now().to_string(), &keys.ring, passphrase)?)
    });
    begun.await?
}

/// Makes backups by themselves, for ever.
pub(crate) async fn keep_making(core: Arc<Core>, wish: Backups) {
    loop {
        let names = match names(&wish.directory) {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the backups cannot be looked at");
                Vec::new()
            }
        };
        let wait = next(&names, Timestamp::now(), wish.every);
        if wait.is_zero() {
            match make(&core, &wish).await {
                Ok(path) => tracing::info!(file = %path.display(), "a backup was made"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "a backup could not be made"),
            }
        }
        // Clocks are set, and files come and go: look again now and then.
        tokio::time::sleep(wait.clamp(limits::RETRY_BACKUP, limits::LOOK_AT_BACKUPS)).await;
    }
}

async fn make(core: &Arc<Core>, wish: &Backups) -> anyhow::Result<PathBuf> {
    let stream = create(core, wish.passphrase.clone()).await?;
    let (directory, keep) = (wish.directory.clone(), wish.keep);
    let name = name(Timestamp::now());
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
        let path = directory.join(name);
        write(&path, stream)?;
        for surplus in surplus(names(&directory)?, keep) {
            std::fs::remove_file(directory.join(&surplus)).with_context(|| format!("failed to remove {surplus}"))?;
        }
        anyhow::Ok(path)
    });
    written.await?
}

/// Writes a backup beside its place, and puts it there when it is whole and on stable storage.
fn write(path: &Path, stream: BackupStream) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("partial");
    let written = || {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        for part in stream {
            file.write_all(&part?)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())
    };
    written().map_err(|error: std::io::Error| {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&beside);
        anyhow::Error::new(error).context(format!("failed to write {}", path.display()))
    })
}

/// Sorts by time.
fn name(now: Timestamp) -> String {
    format!("{}{ENDING}", now.strftime("%Y%m%dT%H%M%SZ"))
}

/// The time in a backup's name.
fn time(name: &str) -> Option<Timestamp> {
    let text = name.strip_suffix(ENDING)?;
    jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|at| at.timestamp())
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let failed = || format!("failed to list {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(failed)?.file_name().to_string_lossy().into_owned();
        names.extend(time(&name).is_some().then_some(name));
    }
    names.sort();
    Ok(names)
}

/// How long it is until the next backup is due.
fn next(names: &[String], now: Timestamp, every: Duration) -> Duration {
    let Some(last) = names.iter().filter_map(|name| time(name)).filter(|last| *last <= now).max() else {
        return Duration::ZERO;
    };
    every.saturating_sub(now.duration_since(last).unsigned_abs())
}

/// The oldest ones, above what is kept.
fn surplus(mut names: Vec<String>, keep: usize) -> Vec<String> {
    names.sort();
    names.truncate(names.len().saturating_sub(keep));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_when_the_last_is_old_enough_and_the_oldest_go() {
        let now: Timestamp = "2026-05-06T07:08:09Z".parse().expect("a time");
        let hour = Duration::from_secs(3600);
        assert_eq!(name(now), "20260506T070809Z.shoal-backup");
        assert_eq!(time(&name(now)), Some(now));
        assert_eq!(next(&[], now, hour), Duration::ZERO);
        let earlier = |seconds: u64| name(now - Duration::from_secs(seconds));
        assert_eq!(next(&[earlier(7200), earlier(600)], now, hour), Duration::from_secs(3000));
        assert_eq!(next(&[earlier(4000)], now, hour), Duration::ZERO);
        // One from the future, by a clock that was wrong, keeps nobody from making one.
        assert_eq!(next(&[name(now + hour)], now, hour), Duration::ZERO);
        let names = vec![earlier(1), earlier(3), earlier(2)];
        assert_eq!(surplus(names.clone(), 2), [earlier(3)]);
        assert_eq!(surplus(names, 5), [""; 0]);
        assert_eq!(time("notes.txt"), None);
    }
}

//! What a container leaves of its end: the file at its `terminationMessagePath`, or the end of its log.
//!
//! A guest sees directories only, so the file is in one: a volume's, where the path leads into one that may be written, else one of
//! the container's own, mounted in the place of the path's parent. Functions get one only where their pod names a path, since
//! none of their instances ends a container.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};

use crate::logs::read::{LogOptions, LogReader};
use crate::logs::{ContainerLog, LogDirectory};
use crate::mount::Mount;
use crate::pod::{Happening, spec};

/// Where a pod keeps these directories, beside its volumes: no volume can have this name.
const OWN: &str = ".ended";
/// The path where the pod names none.
const DEFAULT_PATH: &str = "/dev/termination-log";
/// The longest message of a container, in bytes (Kubernetes).
const LONGEST: usize = 4096;
/// The longest of all messages of a pod together.
const LONGEST_TOGETHER: usize = 12 * 1024;
/// How much of the end of a log is taken: lines, and bytes of those.
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;

/// Where the directories of a pod's containers are, below the folder of its volumes.
pub fn own_directory(volume_root: &Path, container: &str) -> PathBuf {
    volume_root.join(OWN).join(container)
}

/// Where one run of a container leaves its last words.
#[derive(Debug, Clone)]
pub struct LastWords {
    /// None where nothing can be written.
    file: Option<Place>,
    longest: usize,
    /// Where the log is, if its end is a message too.
    log: Option<(LogDirectory, u32)>,
}

/// A file in a directory that a guest may write.
#[derive(Debug, Clone)]
struct Place {
    /// The directory that is mounted.
    mounted: PathBuf,
    /// Where in it the file's own directory is.
    folder: PathBuf,
    name: String,
}

impl LastWords {
    /// Makes the file anew, and mounts its directory if it is the container's own. Blocks on the disk shortly.
    ///
    /// # Errors
    /// A sentence: the path cannot be.
    pub fn prepare(
        pod: &Pod,
        definition: &Container,
        volume_root: &Path,
        is_process: bool,
        mounts: &mut Vec<Mount>,
        log: (LogDirectory, u32),
    ) -> Result<LastWords, String> {
        let count = spec::every_container(pod).count().max(1);
        let falls_back = definition.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let mut words =
            LastWords { file: None, longest: LONGEST.min(LONGEST_TOGETHER / count), log: falls_back.then_some(log) };
        if !is_process && path(definition) == DEFAULT_PATH {
            return Ok(words);
        }
        let (folder, name) = split(path(definition))?;
        let own = own_directory(volume_root, &definition.name);
        let failed = |error: io::Error| format!("terminationMessagePath {:?}: {error}", path(definition));
        let place = match holder(mounts, &folder) {
            Some((mount, _)) if mount.is_read_only => return Ok(words),
            Some((mount, folder)) => Place { mounted: mount.host.clone(), folder, name },
            None => {
                fs::create_dir_all(&own).map_err(failed)?;
                mounts.push(Mount { host: own.clone(), guest: folder, is_read_only: false });
                Place { mounted: own, folder: PathBuf::new(), name }
            }
        };
        place.make().map_err(failed)?;
        words.file = Some(place);
        Ok(words)
    }

    /// The end of a run with what it left to say. Whatever else is known of the end stands only where it left nothing.
    pub async fn complete(self, log: Arc<ContainerLog>, mut ended: Happening) -> Happening {
        if let Happening::Ended { exit_code, message, .. } = &mut ended {
            let has_failed = *exit_code != 0;
            let read = tokio::task::spawn_blocking(move || {
                // Its last line may have no end.
                log.close();
                self.read(has_failed)
            });
            if let Ok(Some(words)) = read.await {
                *message = Some(words);
            }
        }
        ended
    }

    fn read(&self, has_failed: bool) -> Option<String> {
        let written = self.file.as_ref().and_then(|place| place.read(self.longest).ok());
        let written = written.filter(|bytes| !bytes.is_empty());
        let bytes = written.or_else(|| {
            let (directory, restart) = self.log.as_ref().filter(|_| has_failed)?;
            read_end(directory, *restart, self.longest.min(LOG_BYTES)).ok().filter(|bytes| !bytes.is_empty())
        });
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Mounts the container's own directory for a command beside it, if it has one.
pub fn show(definition: &Container, volume_root: &Path, mounts: &mut Vec<Mount>) {
    let own = own_directory(volume_root, &definition.name);
    if let Ok((folder, _)) = split(path(definition))
        && own.is_dir()
        && holder(mounts, &folder).is_none()
    {
        mounts.push(Mount { host: own, guest: folder, is_read_only: false });
    }
}

fn path(definition: &Container) -> &str {
    definition.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH)
}

/// The path as its parent and its name.
fn split(path: &str) -> Result<(String, String), String> {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let is_plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
    match parts.split_first() {
        Some((Component::RootDir, [folders @ .., Component::Normal(name)])) if folders.iter().all(is_plain) => {
            let folder: PathBuf = [Component::RootDir].iter().chain(folders).collect();
            Ok((folder.to_string_lossy().into_owned(), name.to_string_lossy().into_owned()))
        }
        _ => Err(format!("terminationMessagePath {path:?} must be an absolute path of a file, without \"..\"")),
    }
}

/// The mount that has the guest's directory in it, the deepest, and where in it.
fn holder<'a>(mounts: &'a [Mount], folder: &str) -> Option<(&'a Mount, PathBuf)> {
    let within = |mount: &'a Mount| Some((mount, Path::new(folder).strip_prefix(&mount.guest).ok()?.to_owned()));
    mounts.iter().filter_map(within).min_by_key(|(_, rest)| rest.components().count())
}

// The guest may have put anything there: no link is followed, and nothing that is no file is waited for.
impl Place {
    /// An empty file in the place of whatever an earlier run left there.
    fn make(&self) -> io::Result<()> {
        let folder = self.open_folder(true)?;
        match unlinkat(&folder, &self.name, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&folder, &self.name, flags, Mode::from_raw_mode(0o666))?;
        Ok(())
    }

    /// The beginning of the file.
    fn read(&self, most: usize) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(self.open_folder(false)?, &self.name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn open_folder(&self, create: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = rustix::fs::open(&self.mounted, flags, Mode::empty())?;
        for part in self.folder.iter() {
            if create {
                match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                    Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
                    _ => {}
                }
            }
            folder = openat(&folder, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(folder)
    }
}

/// The last lines of a run's log, as they were printed.
fn read_end(directory: &LogDirectory, restart: u32, most: usize) -> io::Result<Vec<u8>> {
    let options = LogOptions { tail_lines: Some(LOG_LINES), ..LogOptions::default() };
    let mut reader = LogReader::new(directory.files(restart), directory.file(restart), options)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next_chunk()?.filter(|chunk| !chunk.is_empty()) {
        bytes.extend_from_slice(&chunk);
        bytes.drain(..bytes.len().saturating_sub(most));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::logs::Stream;

    struct Run {
        root: tempfile::TempDir,
        log: Arc<ContainerLog>,
        logs: LogDirectory,
    }

    fn run() -> Run {
        let root = tempfile::tempdir().expect("a directory");
        let logs = LogDirectory::new(&root.path().join("logs"), "uid", "c");
        Run { log: ContainerLog::open(&logs, 0).expect("a log"), logs, root }
    }

    impl Run {
        fn prepare(&self, container: &serde_json::Value, mounts: &mut Vec<Mount>) -> Result<LastWords, String> {
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).expect("a pod");
            let definition = spec::containers(&pod)[0].clone();
            LastWords::prepare(&pod, &definition, self.root.path(), true, mounts, (self.logs.clone(), 0))
        }

        async fn ended(&self, words: LastWords, exit_code: i32) -> Option<String> {
            let (container, id, reason) = ("c".to_owned(), "1".to_owned(), "Error".to_owned());
            let ended = Happening::Ended { container, id, exit_code, reason, message: Some("trap".to_owned()) };
            match words.complete(self.log.clone(), ended).await {
                Happening::Ended { message, .. } => message,
                _ => None,
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_there_is_the_message() {
        let run = run();
        let mut mounts = Vec::new();
        let words = run.prepare(&json!({"name": "c"}), &mut mounts).expect("a place");
        assert_eq!(mounts[0].guest, "/dev");
        fs::write(mounts[0].host.join("termination-log"), "x".repeat(LONGEST + 1)).expect("written");
        assert_eq!(run.ended(words, 0).await.map(|message| message.len()), Some(LONGEST));
        let again = run.prepare(&json!({"name": "c"}), &mut Vec::new()).expect("a place");
        assert_eq!(run.ended(again, 1).await.as_deref(), Some("trap"), "of a run before");
    }

    #[tokio::test]
    async fn the_file_may_be_in_a_volume_and_leads_nowhere_else() {
        let run = run();
        let volume = run.root.path().join("v");
        fs::create_dir(&volume).expect("a volume");
        let mut mounts = vec![Mount { host: volume.clone(), guest: "/tmp".to_owned(), is_read_only: false }];
        let container = json!({"name": "c", "terminationMessagePath": "/tmp/deep/end"});
        let words = run.prepare(&container, &mut mounts).expect("a place");
        assert_eq!(mounts.len(), 1);
        fs::write(volume.join("deep/end"), "bye").expect("written");
        assert_eq!(run.ended(words.clone(), 3).await.as_deref(), Some("bye"));
        fs::write(run.root.path().join("secret"), "secret").expect("written");
        fs::remove_file(volume.join("deep/end")).expect("removed");
        std::os::unix::fs::symlink("../../secret", volume.join("deep/end")).expect("a link");
        assert_eq!(run.ended(words.clone(), 3).await.as_deref(), Some("trap"));
        fs::rename(volume.join("deep"), volume.join("elsewhere")).expect("renamed");
        fs::write(run.root.path().join("end"), "secret").expect("written");
        std::os::unix::fs::symlink("..", volume.join("deep")).expect("a link");
        assert_eq!(run.ended(words, 3).await.as_deref(), Some("trap"));
        for path in ["dev/log", "/", "/a/../b"] {
            assert!(
                run.prepare(&json!({"name": "c", "terminationMessagePath": path}), &mut Vec::new()).is_err(),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn the_end_of_the_log_is_the_message_of_who_fails_silently() {
        let run = run();
        let container = json!({"name": "c", "terminationMessagePolicy": "FallbackToLogsOnError"});
        for number in 0..200 {
            run.log.write(Stream::Stderr, format!("line {number}\n").as_bytes());
        }
        run.log.write(Stream::Stderr, b"without end");
        let words = run.prepare(&container, &mut Vec::new()).expect("a place");
        assert_eq!(run.ended(words.clone(), 0).await.as_deref(), Some("trap"), "it has not failed");
        let told = run.ended(words, 1).await.unwrap_or_default();
        assert!(told.starts_with("line 121\n") && told.ends_with("line 199\nwithout end\n"), "{told}");
    }
}

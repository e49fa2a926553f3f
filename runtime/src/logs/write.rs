//! Writing a container's log, and telling followers of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::line;
use crate::limits::{LOG_FILE_BYTES, LOG_FILES, LOG_LINE_BYTES};

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The output.
    Stdout,
    /// The errors.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Where the logs of one container of one pod are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirectory(PathBuf);

impl LogDirectory {
    /// Below `root`, by pod uid and container name.
    pub fn new(root: &Path, pod_uid: &str, container: &str) -> LogDirectory {
        LogDirectory(root.join(pod_uid).join(container))
    }

    /// The current file of a run.
    pub fn file(&self, restart: u32) -> PathBuf {
        self.0.join(format!("{restart}.log"))
    }

    /// The files of a run, the oldest first.
    pub fn files(&self, restart: u32) -> Vec<PathBuf> {
        let current = self.file(restart);
        let rotated = self.rotated(restart).into_iter().map(|(_, path)| path);
        rotated.chain(current.exists().then_some(current.clone())).collect()
    }

    fn rotated(&self, restart: u32) -> Vec<(u64, PathBuf)> {
        let prefix = format!("{restart}.log.");
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut rotated: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| Some((entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?, entry.path())))
            .collect();
        rotated.sort();
        rotated
    }

    /// Removes the runs before `restart - 1`: the current and the previous one are kept.
    pub fn forget_before(&self, restart: u32) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let run = entry.file_name().to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
            if run.is_some_and(|run| run.saturating_add(1) < restart) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The log of one run of a container. Dropping it does not write what is left of an unfinished line: [`Self::close`] does.
pub struct ContainerLog {
    path: PathBuf,
    state: Mutex<Output>,
    written: watch::Sender<LogProgress>,
}

/// How far a log is; followers wait for it to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogProgress {
    /// Counts writes.
    pub writes: u64,
    /// The run is over: nothing follows.
    pub is_closed: bool,
}

struct Output {
    file: File,
    bytes: u64,
    rotations: u64,
    unfinished: [Vec<u8>; 2],
    has_failed: bool,
}

impl ContainerLog {
    /// Opens the file of a run, and goes on with it if it is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &LogDirectory, restart: u32) -> io::Result<Arc<ContainerLog>> {
        fs::create_dir_all(&directory.0)?;
        directory.forget_before(restart);
        let path = directory.file(restart);
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        let rotations = directory.rotated(restart).last().map_or(0, |(number, _)| *number);
        let output = Output { file, bytes, rotations, unfinished: [Vec::new(), Vec::new()], has_failed: false };
        Ok(Arc::new(ContainerLog { path, state: Mutex::new(output), written: watch::Sender::default() }))
    }

    /// Takes what the guest wrote; whole lines are in the file when this returns.
    ///
    /// A file that cannot be written is reported once; the guest goes on.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut output = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = output.lines(stream, bytes, Timestamp::now());
        if lines.is_empty() {
            return;
        }
        self.append(&mut output, &lines);
    }

    /// Writes what is left of unfinished lines and tells followers that the run is over.
    pub fn close(&self) {
        let mut output = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut output.unfinished[stream as usize]);
            if !rest.is_empty() {
                line::format(&mut lines, Timestamp::now(), stream.name(), false, &rest);
            }
        }
        self.append(&mut output, &lines);
        self.written.send_modify(|progress| progress.is_closed = true);
    }

    /// Changes with every write, and says when the run is over.
    pub fn progress(&self) -> watch::Receiver<LogProgress> {
        self.written.subscribe()
    }

    fn append(&self, output: &mut Output, lines: &[u8]) {
        let result = self.rotate_if_full(output).and_then(|()| output.file.write_all(lines));
        match result {
            Ok(()) => output.bytes += lines.len() as u64,
            Err(error) if !output.has_failed => {
                output.has_failed = true;
                tracing::warn!(path = %self.path.display(), %error, "writing a container log failed");
            }
            Err(_) => {}
        }
        self.written.send_modify(|progress| progress.writes += 1);
    }

    fn rotate_if_full(&self, output: &mut Output) -> io::Result<()> {
        if output.bytes < LOG_FILE_BYTES {
            return Ok(());
        }
        output.rotations += 1;
        let rotated = |number: u64| PathBuf::from(format!("{}.{number}", self.path.display()));
        fs::rename(&self.path, rotated(output.rotations))?;
        output.file = append(&self.path)?;
        output.bytes = 0;
        if let Some(oldest) = output.rotations.checked_sub(LOG_FILES as u64 - 1) {
            let _ = fs::remove_file(rotated(oldest));
        }
        Ok(())
    }
}

impl Output {
    /// The whole lines that `bytes` completes, formatted; the rest waits.
    fn lines(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let unfinished = &mut self.unfinished[stream as usize];
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            unfinished.extend_from_slice(text);
            while unfinished.len() > LOG_LINE_BYTES {
                let rest = unfinished.split_off(LOG_LINE_BYTES);
                line::format(&mut lines, now, stream.name(), true, unfinished);
                *unfinished = rest;
            }
            if is_whole {
                line::format(&mut lines, now, stream.name(), false, unfinished);
                unfinished.clear();
            }
        }
        lines
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(directory: &LogDirectory, restart: u32) -> Vec<String> {
        let mut bytes = Vec::new();
        for file in directory.files(restart) {
            bytes.extend(fs::read(file).expect("read"));
        }
        let lines = bytes.split(|b| *b == b'\n').filter_map(line::parse);
        lines
            .map(|l| {
                format!("{} {}{}", l.stream, String::from_utf8_lossy(l.text), if l.is_partial { "..." } else { "" })
            })
            .collect()
    }

    #[test]
    fn lines_are_put_together_by_stream() {
        let root = tempfile::tempdir().expect("directory");
        let directory = LogDirectory::new(root.path(), "uid", "c");
        let log = ContainerLog::open(&directory, 0).expect("open");
        log.write(Stream::Stdout, b"hel");
        log.write(Stream::Stderr, b"oops\n");
        log.write(Stream::Stdout, b"lo\nwor");
        assert_eq!(texts(&directory, 0), ["stderr oops", "stdout hello"]);
        log.close();
        assert_eq!(texts(&directory, 0), ["stderr oops", "stdout hello", "stdout wor"]);
        assert!(log.progress().borrow().is_closed);
    }

    #[test]
    fn a_full_file_is_rotated_and_few_are_kept() {
        let root = tempfile::tempdir().expect("directory");
        let directory = LogDirectory::new(root.path(), "uid", "c");
        let log = ContainerLog::open(&directory, 0).expect("open");
        let line = [vec![b'x'; LOG_LINE_BYTES - 1], vec![b'\n']].concat();
        for _ in 0..(LOG_FILES as u64 + 2) * LOG_FILE_BYTES / LOG_LINE_BYTES as u64 {
            log.write(Stream::Stdout, &line);
        }
        assert_eq!(directory.files(0).len(), LOG_FILES);
        assert_eq!(directory.files(0).last(), Some(&directory.file(0)));
    }

    #[test]
    fn a_very_long_line_is_written_in_parts() {
        let root = tempfile::tempdir().expect("directory");
        let directory = LogDirectory::new(root.path(), "uid", "c");
        let log = ContainerLog::open(&directory, 1).expect("open");
        log.write(Stream::Stdout, &[vec![b'x'; LOG_LINE_BYTES + 1], vec![b'\n']].concat());
        let lines = texts(&directory, 1);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("...") && lines[1] == "stdout x");
    }
}

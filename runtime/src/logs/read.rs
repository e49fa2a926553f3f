//! Reading a container's log as `kubectl logs` asks for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::line;
use crate::limits::LOG_CHUNK_BYTES;

/// What is asked for: the query of a log request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on while the container writes.
    pub follow: bool,
    /// The run before the current one.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<usize>,
    /// Only lines not older.
    pub since: Option<Timestamp>,
    /// No more bytes than these.
    pub limit_bytes: Option<usize>,
    /// Only one of the streams.
    pub stream: Option<&'static str>,
}

impl LogOptions {
    /// Reads the query of a request (Kubernetes' `PodLogOptions`).
    ///
    /// # Errors
    /// A sentence that names the parameter.
    pub fn parse(query: &str, now: Timestamp) -> Result<LogOptions, String> {
        let mut options = LogOptions::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value);
            let number = || value.parse::<usize>().map_err(|_| format!("{name}: {value:?} is no count"));
            match name {
                "follow" => options.follow = is_true(&value),
                "previous" => options.previous = is_true(&value),
                "timestamps" => options.timestamps = is_true(&value),
                "tailLines" => options.tail_lines = Some(number()?),
                "limitBytes" => options.limit_bytes = Some(number()?),
                "sinceSeconds" => {
                    let seconds = i64::try_from(number()?).unwrap_or(i64::MAX);
                    options.since =
                        Some(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
                }
                "sinceTime" => {
                    options.since = Some(value.parse().map_err(|_| format!("sinceTime: {value:?} is no time"))?)
                }
                "stream" => options.stream = stream(&value)?,
                _ => {}
            }
        }
        Ok(options)
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "" | "1" | "true" | "True" | "TRUE" | "t" | "T")
}

fn stream(value: &str) -> Result<Option<&'static str>, String> {
    match value {
        "All" => Ok(None),
        "Stdout" => Ok(Some("stdout")),
        "Stderr" => Ok(Some("stderr")),
        _ => Err(format!("stream: {value:?} is none of All, Stdout, Stderr")),
    }
}

/// Turns `%XX` and `+` back.
pub fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one run's files from their beginning, then what is added, in chunks. Blocks on files only.
pub struct LogReader {
    options: LogOptions,
    files: VecDeque<PathBuf>,
    current: PathBuf,
    open: Option<BufReader<File>>,
    unread: Vec<u8>,
    at_line_start: bool,
    left: usize,
}

impl LogReader {
    /// A reader of `files`, the oldest first, placed as the options say. `current` is the file that is being written.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(files: Vec<PathBuf>, current: PathBuf, options: LogOptions) -> io::Result<LogReader> {
        let left = options.limit_bytes.unwrap_or(usize::MAX);
        let tail = options.tail_lines;
        let mut reader = LogReader {
            options,
            files: files.into(),
            current,
            open: None,
            unread: Vec::new(),
            at_line_start: true,
            left,
        };
        if let Some(lines) = tail {
            reader.skip_to_tail(lines)?;
        }
        Ok(reader)
    }

    /// The next lines; empty if there are none now. `None` when the byte limit is reached.
    ///
    /// # Errors
    /// What the file system says.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = Vec::new();
        while chunk.len() < LOG_CHUNK_BYTES && self.left > chunk.len() {
            if !self.read_line()? {
                break;
            }
            let line = std::mem::take(&mut self.unread);
            self.format(&line, &mut chunk);
        }
        let is_full = self.left <= chunk.len();
        chunk.truncate(self.left);
        self.left -= chunk.len();
        if is_full && chunk.is_empty() { Ok(None) } else { Ok(Some(chunk.into())) }
    }

    fn format(&mut self, bytes: &[u8], chunk: &mut Vec<u8>) {
        let Some(line) = line::parse(bytes.strip_suffix(b"\n").unwrap_or(bytes)) else { return };
        if self.options.since.is_some_and(|since| line.time < since)
            || self.options.stream.is_some_and(|s| s != line.stream)
        {
            return;
        }
        if self.options.timestamps && self.at_line_start {
            chunk.extend_from_slice(line.time_text.as_bytes());
            chunk.push(b' ');
        }
        chunk.extend_from_slice(line.text);
        self.at_line_start = !line.is_partial;
        if !line.is_partial {
            chunk.push(b'\n');
        }
    }

    /// Reads a whole line into `unread`; what is not whole yet stays there for the next time.
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.files.pop_front() else { return Ok(false) };
                match File::open(&path) {
                    Ok(file) => self.open = Some(BufReader::new(file)),
                    // Rotated away since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            let Some(reader) = self.open.as_mut() else { continue };
            reader.read_until(b'\n', &mut self.unread)?;
            if self.unread.ends_with(b"\n") {
                return Ok(true);
            }
            if self.files.is_empty() {
                if !was_rotated(reader.get_ref(), &self.current)? {
                    return Ok(false);
                }
                // A line may have been added between the read and the rename.
                reader.read_until(b'\n', &mut self.unread)?;
                if self.unread.ends_with(b"\n") {
                    return Ok(true);
                }
                self.files.push_back(self.current.clone());
            }
            self.open = None;
        }
    }

    /// Places the reader before the last `lines` lines of all files.
    fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut missing = lines;
        let mut kept = VecDeque::new();
        while let Some(path) = self.files.pop_back() {
            let (offset, found) = tail_offset(&path, missing, self.options.stream)?;
            missing -= found;
            if missing == 0 {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(offset))?;
                self.open = Some(BufReader::new(file));
                break;
            }
            kept.push_front(path);
        }
        self.files = kept;
        Ok(())
    }
}

/// Whether `open` is no longer the file that is written.
fn was_rotated(open: &File, current: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let Ok(now) = std::fs::metadata(current) else { return Ok(false) };
    Ok(now.ino() != open.metadata()?.ino())
}

/// Where the last `lines` whole lines of a file begin, and how many of them there are.
fn tail_offset(path: &Path, lines: usize, stream: Option<&str>) -> io::Result<(u64, usize)> {
    let mut file = BufReader::new(match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error),
    });
    if lines == 0 {
        return Ok((file.seek(SeekFrom::End(0))?, 0));
    }
    let mut starts: VecDeque<u64> = VecDeque::with_capacity(lines.min(1_024));
    let (mut offset, mut start, mut at_start) = (0u64, 0u64, true);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = file.by_ref().read_until(b'\n', &mut buffer)?;
        if read == 0 {
            break;
        }
        if at_start {
            start = offset;
        }
        offset += read as u64;
        let Some(line) = line::parse(buffer.strip_suffix(b"\n").unwrap_or(&buffer)) else { continue };
        at_start = !line.is_partial;
        if at_start && stream.is_none_or(|s| s == line.stream) {
            starts.push_back(start);
            if starts.len() > lines {
                starts.pop_front();
            }
        }
    }
    let first = starts.front().copied().unwrap_or(offset);
    Ok((first, starts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{ContainerLog, LogDirectory, Stream};

    fn log() -> (tempfile::TempDir, LogDirectory, std::sync::Arc<ContainerLog>) {
        let root = tempfile::tempdir().expect("directory");
        let directory = LogDirectory::new(root.path(), "uid", "c");
        let log = ContainerLog::open(&directory, 0).expect("open");
        log.write(Stream::Stdout, b"one\ntwo\n");
        log.write(Stream::Stderr, b"three\n");
        (root, directory, log)
    }

    fn reader(directory: &LogDirectory, query: &str) -> LogReader {
        let options = LogOptions::parse(query, Timestamp::now()).expect("options");
        LogReader::new(directory.files(0), directory.file(0), options).expect("reader")
    }

    fn text(reader: &mut LogReader) -> String {
        let bytes = reader.next_chunk().expect("read").unwrap_or_default();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[test]
    fn the_options_choose_what_is_shown() {
        let (_root, directory, _log) = log();
        for (query, wanted) in [
            ("", "one\ntwo\nthree\n"),
            ("tailLines=2", "two\nthree\n"),
            ("tailLines=0", ""),
            ("tailLines=99", "one\ntwo\nthree\n"),
            ("limitBytes=5", "one\nt"),
            ("sinceSeconds=3600", "one\ntwo\nthree\n"),
            ("sinceTime=2999-01-01T00%3A00%3A00Z", ""),
            ("stream=Stderr", "three\n"),
            ("stream=Stdout&tailLines=1", "two\n"),
        ] {
            assert_eq!(text(&mut reader(&directory, query)), wanted, "{query}");
        }
        let timed = text(&mut reader(&directory, "timestamps=true&tailLines=1"));
        assert!(timed.ends_with("Z three\n") && timed.len() == 30 + 1 + 6, "{timed}");
        assert!(LogOptions::parse("tailLines=-1", Timestamp::now()).is_err());
    }

    #[test]
    fn a_follower_sees_what_is_added() {
        let (_root, directory, log) = log();
        let mut reader = reader(&directory, "tailLines=1&follow=true");
        assert_eq!(text(&mut reader), "three\n");
        assert_eq!(text(&mut reader), "");
        log.write(Stream::Stdout, b"four\nfi");
        assert_eq!(text(&mut reader), "four\n");
        log.write(Stream::Stdout, b"ve\n");
        assert_eq!(text(&mut reader), "five\n");
    }

    #[test]
    fn a_follower_goes_on_in_the_next_file() {
        let (_root, directory, log) = log();
        let mut reader = reader(&directory, "follow=true");
        assert_eq!(text(&mut reader), "one\ntwo\nthree\n");
        std::fs::rename(directory.file(0), directory.file(0).with_extension("log.1")).expect("rename");
        drop(log);
        let next = ContainerLog::open(&directory, 0).expect("open");
        next.write(Stream::Stdout, b"four\n");
        assert_eq!(text(&mut reader), "four\n");
        assert_eq!(directory.files(0).len(), 2);
    }

    #[test]
    fn the_limit_ends_the_answer() {
        let (_root, directory, _log) = log();
        let mut reader = reader(&directory, "limitBytes=4");
        assert_eq!(text(&mut reader), "one\n");
        assert_eq!(reader.next_chunk().expect("read"), None);
    }
}

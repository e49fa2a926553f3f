//! Container images: the module is a file in one of their layers, which are tar archives laid one over the other.
//!
//! Of such an image the module alone is taken. What is read comes from a stranger, so that everything has a limit, and nothing is
//! unpacked but the one file that is looked for.

use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use tar::{Archive, EntryType};

use crate::limits::{LAYER_UNPACKED_BYTES, LINKS};

/// The beginning of a name that says that another is gone from the layers below.
const WHITEOUT: &str = ".wh.";
/// The name that says that everything of its directory is gone from the layers below.
const OPAQUE: &str = ".wh..wh..opq";
/// How a file of gzip begins, and one of zstd.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a layer says of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// It is here.
    File(T),
    /// It is elsewhere, by a link.
    Link(PathBuf),
    /// It is not in the layers below, whatever they hold.
    Gone,
    /// Nothing: the layer below is to be asked.
    Nothing,
}

/// Which layer is to be asked next for a file, and by which path: from the top down, and once more for each link.
pub(crate) struct Hunt {
    named: PathBuf,
    path: PathBuf,
    layers: usize,
    left: usize,
    links: usize,
}

impl Hunt {
    /// For the file at `path`, which is [`plain`], in so many layers.
    pub(crate) fn new(path: PathBuf, layers: usize) -> Self {
        Self { named: path.clone(), path, layers, left: layers, links: 0 }
    }

    /// The number of the layer, the lowest being 0, and what to look for in it.
    ///
    /// # Errors
    /// A sentence: it is nowhere.
    pub(crate) fn next(&mut self) -> Result<(usize, &Path), String> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| format!("the image's entrypoint /{} is in none of its layers", self.named.display()))?;
        Ok((self.left, &self.path))
    }

    /// Takes in what that layer says; answers what was found.
    ///
    /// # Errors
    /// A sentence: it is nowhere.
    pub(crate) fn note<T>(&mut self, found: Found<T>) -> Result<Option<T>, String> {
        match found {
            Found::File(file) => return Ok(Some(file)),
            Found::Nothing => {}
            Found::Gone => self.left = 0,
            Found::Link(_) if self.links == LINKS => {
                return Err(format!(
                    "the image's entrypoint /{} is a link that leads in circles",
                    self.named.display()
                ));
            }
            Found::Link(to) => {
                (self.path, self.left) = (to, self.layers);
                self.links += 1;
            }
        }
        Ok(None)
    }
}

/// A path in an image without a root and without `.` and `..`, which lead no further up than the root.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// Looks for the file at `path`, which is [`plain`], in a layer, packed or not; `take` reads it if it is there. Blocks.
///
/// # Errors
/// The layer cannot be read, or is longer than any that is read.
pub(crate) fn search<T>(
    layer: impl Read,
    path: &Path,
    mut take: impl FnMut(&mut dyn Read) -> io::Result<T>,
) -> io::Result<Found<T>> {
    let mut archive = Archive::new(Limited { inner: unpacked(layer)?, left: LAYER_UNPACKED_BYTES });
    let mut is_gone = false;
    for entry in archive.entries()? {
        let entry = entry?;
        let at = plain(&entry.path()?);
        let kind = entry.header().entry_type();
        if at == path && kind.is_file() {
            let left = entry.size();
            return take(&mut Whole { inner: entry, left }).map(Found::File);
        }
        if matches!(kind, EntryType::Symlink | EntryType::Link)
            && let Ok(rest) = path.strip_prefix(&at)
            && let Some(target) = entry.link_name()?
        {
            // A hard link names its target from the root.
            let from = if kind == EntryType::Symlink { at.parent().unwrap_or(Path::new("")) } else { Path::new("") };
            return Ok(Found::Link(plain(&from.join(target.as_ref()).join(rest))));
        }
        is_gone |= hides(&at, path);
    }
    Ok(if is_gone { Found::Gone } else { Found::Nothing })
}

/// Whether an entry says that what the layers below have at `path` is gone.
fn hides(entry: &Path, path: &Path) -> bool {
    let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { return false };
    let folder = entry.parent().unwrap_or(Path::new(""));
    match name.strip_prefix(WHITEOUT) {
        _ if name == OPAQUE => path.starts_with(folder),
        Some(hidden) => path.starts_with(folder.join(hidden)),
        None => false,
    }
}

/// The archive in a layer. What its media type says is not asked: the bytes say it themselves.
fn unpacked<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::new(layer);
    let mut start = [0; 4];
    let mut known = 0;
    while known < start.len() {
        match layer.read(&mut start[known..])? {
            0 => break,
            read => known += read,
        }
    }
    let whole = io::Cursor::new(start).take(known as u64).chain(layer);
    Ok(match start {
        _ if start[..2] == GZIP => Box::new(MultiGzDecoder::new(whole)),
        ZSTD => Box::new(StreamingDecoder::new(whole).map_err(io::Error::other)?),
        _ => Box::new(whole),
    })
}

/// Fails where less comes than was promised: an archive that breaks off in a file is otherwise a shorter file.
struct Whole<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(read)
        }
    }
}

/// Fails after so many bytes: a small file may unpack to an endless one.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(format!("it unpacks to more than {LAYER_UNPACKED_BYTES} bytes"))),
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    /// A layer of files (a path and what is in it) and symbolic links (a path and an arrow with the target).
    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, text) in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            match text.strip_prefix("-> ") {
                Some(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target).expect("a link");
                }
                None => {
                    header.set_size(text.len() as u64);
                    builder.append_data(&mut header, path, text.as_bytes()).expect("a file");
                }
            }
        }
        builder.into_inner().expect("an archive")
    }

    fn find(layer: &[u8], path: &str) -> Found<String> {
        let take = |file: &mut dyn Read| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        };
        search(layer, &plain(Path::new(path)), take).expect("a layer")
    }

    #[test]
    fn a_file_is_found_however_it_is_packed_and_written() {
        let plain = layer(&[("./etc/passwd", "x"), ("app/main.wasm", "module")]);
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&plain).expect("packed");
        let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
        for layer in [plain.clone(), packed.finish().expect("packed"), zstd] {
            assert_eq!(find(&layer, "/app/main.wasm"), Found::File("module".to_string()));
            assert_eq!(find(&layer, "/etc/./passwd"), Found::File("x".to_string()));
            assert_eq!(find(&layer, "/app"), Found::Nothing);
        }
        assert_eq!(find(&[], "/app"), Found::Nothing);
    }

    #[test]
    fn links_lead_on_and_never_out() {
        let links = layer(&[
            ("app/current", "-> ../releases/2"),
            ("main.wasm", "-> /app/current/main.wasm"),
            ("up", "-> ../../../etc"),
        ]);
        assert_eq!(find(&links, "main.wasm"), Found::Link("app/current/main.wasm".into()));
        assert_eq!(find(&links, "app/current/main.wasm"), Found::Link("releases/2/main.wasm".into()));
        assert_eq!(find(&links, "up/passwd"), Found::Link("etc/passwd".into()));
    }

    #[test]
    fn what_an_upper_layer_has_removed_is_gone() {
        let upper = layer(&[("app/.wh.main.wasm", ""), ("data/.wh..wh..opq", ""), ("data/new", "y")]);
        assert_eq!(find(&upper, "app/main.wasm"), Found::Gone);
        assert_eq!(find(&upper, "data/old"), Found::Gone);
        assert_eq!(find(&upper, "data/new"), Found::File("y".to_string()));
        assert_eq!(find(&upper, "app/main"), Found::Nothing);
    }

    #[test]
    fn what_is_no_layer_fails() {
        let take = |_: &mut dyn Read| Ok(());
        for bytes in [&b"no archive at all, which is longer than nothing"[..], &[0x1f, 0x8b, 9, 9, 9], &ZSTD] {
            assert!(search(bytes, Path::new("x"), take).is_err(), "{bytes:?}");
        }
    }
}

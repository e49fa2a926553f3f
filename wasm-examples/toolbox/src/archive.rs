//! `tar`, as `kubectl cp` uses it: to make and to read archives on the standard streams or in a file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

use crate::paths::absolute;
use crate::streams::Streams;
use crate::{Outcome, about, wrong};

/// What the options say.
#[derive(Default)]
struct Order {
    letters: String,
    file: Option<String>,
    directory: Option<String>,
    names: Vec<String>,
}

pub fn tar(arguments: &[String], streams: &mut Streams) -> Outcome {
    let order = Order::parse(arguments)?;
    let does = |letter| order.letters.contains(letter);
    match (does('c'), does('x'), does('t')) {
        (true, false, false) => create(&order, &mut streams.output),
        (false, true, false) => extract(&order, false, streams),
        (false, false, true) => extract(&order, true, streams),
        _ => Err(wrong("one of c, x and t is required")),
    }
}

impl Order {
    fn parse(arguments: &[String]) -> io::Result<Order> {
        let mut order = Order::default();
        let mut rest = arguments.iter().enumerate();
        while let Some((index, argument)) = rest.next() {
            let letters = match argument.strip_prefix('-') {
                Some(long) if long.starts_with('-') => {
                    return Err(wrong(format!(
                        "unknown option {argument}; there are: c, x, t, f FILE, C DIRECTORY, v, m, o, p"
                    )));
                }
                Some("") | None if index > 0 => {
                    order.names.push(argument.clone());
                    continue;
                }
                // The first word needs no dash.
                letters => letters.unwrap_or(argument),
            };
            for letter in letters.chars() {
                let mut value = || {
                    rest.next()
                        .map(|(_, value)| value.clone())
                        .ok_or_else(|| wrong(format!("-{letter}: a name is required")))
                };
                match letter {
                    'f' => order.file = Some(value()?),
                    'C' => order.directory = Some(value()?),
                    'c' | 'x' | 't' | 'v' | 'm' | 'o' | 'p' => order.letters.push(letter),
                    'z' | 'j' | 'J' => return Err(wrong(format!("-{letter}: archives are not compressed here"))),
                    other => {
                        return Err(wrong(format!("unknown option -{other}; there are: c, x, t, f, C, v, m, o, p")));
                    }
                }
            }
        }
        Ok(order)
    }

    /// A name, from the directory that was said.
    fn path(&self, name: &str) -> std::path::PathBuf {
        match &self.directory {
            Some(directory) if !name.starts_with('/') => absolute(&format!("{directory}/{name}")),
            _ => absolute(name),
        }
    }
}

fn create(order: &Order, output: &mut dyn Write) -> Outcome {
    if order.names.is_empty() {
        return Err(wrong("what to put into the archive is required"));
    }
    let out: Box<dyn Write + '_> = match order.file.as_deref() {
        None | Some("-") => Box::new(output),
        Some(file) => Box::new(File::create(absolute(file)).map_err(about(file))?),
    };
    let mut archive = Builder::new(io::BufWriter::with_capacity(32 << 10, out));
    for name in &order.names {
        add(&mut archive, &order.path(name), name.trim_start_matches('/')).map_err(about(name))?;
    }
    archive.into_inner()?.flush()?;
    Ok(0)
}

fn add(archive: &mut Builder<impl Write>, path: &Path, name: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mut header = Header::new_gnu();
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    header.set_mtime(modified.unwrap_or_default().as_secs());
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, format!("{}/", name.trim_end_matches('/')), io::empty())?;
        let mut inner: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        inner.sort_by_key(fs::DirEntry::file_name);
        for entry in inner {
            let inner = entry.file_name();
            let inner_name = format!("{}/{}", name.trim_end_matches('/'), inner.to_string_lossy());
            add(archive, &path.join(&inner), inner_name.trim_start_matches('/'))?;
        }
        return Ok(());
    }
    if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(metadata.len());
    // A file that grows under way must not break the archive, nor one that shrinks.
    let contents = File::open(path)?.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, name, contents)
}

fn extract(order: &Order, only_list: bool, streams: &mut Streams) -> Outcome {
    let Streams { input, output } = streams;
    let input: Box<dyn Read + '_> = match order.file.as_deref() {
        None | Some("-") => Box::new(input),
        Some(file) => Box::new(File::open(absolute(file)).map_err(about(file))?),
    };
    let mut archive = Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if only_list || order.letters.contains('v') {
            writeln!(output, "{name}")?;
        }
        if only_list {
            continue;
        }
        let path = order.path(name.trim_start_matches('/'));
        // A name must not lead out of the directory; from the root there is no way out.
        let root = absolute(order.directory.as_deref().unwrap_or("/"));
        if !path.starts_with(&root) || path == root {
            continue;
        }
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(about(&name))?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
                    fs::create_dir_all(parent).map_err(about(&name))?;
                }
                let mut file = File::create(&path).map_err(about(&name))?;
                io::copy(&mut entry, &mut file).map_err(about(&name))?;
            }
            _ => writeln!(io::stderr(), "tar: {name}: left out: neither a file nor a directory")?,
        }
    }
    Ok(0)
}

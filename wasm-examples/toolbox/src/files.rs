//! Commands on files.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::paths::{self, absolute};
use crate::streams::Streams;
use crate::text::timestamp;
use crate::{Outcome, about, options, wrong};

/// One line of a list.
struct Entry {
    name: String,
    metadata: Option<Metadata>,
}

pub fn list(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (letters, names) = options(arguments, "laAR1h")?;
    let here = [paths::directory().display().to_string()];
    let names = if names.is_empty() { &here } else { names };
    for name in names {
        let is_headed = names.len() > 1 || letters.contains('R');
        show(&absolute(name), name, &letters, is_headed, &mut streams.output).map_err(about(name))?;
    }
    Ok(0)
}

fn show(path: &Path, name: &str, letters: &str, is_headed: bool, out: &mut dyn Write) -> io::Result<()> {
    let entries = if paths::is_above(path) {
        paths::below(path)
            .into_iter()
            .map(|name| Entry { metadata: fs::metadata(path.join(&name)).ok(), name })
            .collect()
    } else if fs::metadata(path)?.is_dir() {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(Entry {
                name: entry.file_name().to_string_lossy().into_owned(),
                metadata: entry.metadata().ok(),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        entries
    } else {
        return line(&Entry { name: name.to_owned(), metadata: fs::symlink_metadata(path).ok() }, letters, out);
    };
    if is_headed {
        writeln!(out, "{name}:")?;
    }
    let is_shown = |entry: &&Entry| letters.contains(['a', 'A']) || !entry.name.starts_with('.');
    for entry in entries.iter().filter(is_shown) {
        line(entry, letters, out)?;
    }
    if letters.contains('R') {
        for entry in
            entries.iter().filter(is_shown).filter(|entry| entry.metadata.as_ref().is_none_or(Metadata::is_dir))
        {
            writeln!(out)?;
            let inner = format!("{}/{}", name.trim_end_matches('/'), entry.name);
            show(&path.join(&entry.name), &inner, letters, true, out)?;
        }
    }
    Ok(())
}

fn line(entry: &Entry, letters: &str, out: &mut dyn Write) -> io::Result<()> {
    if !letters.contains('l') {
        return writeln!(out, "{}", entry.name);
    }
    match &entry.metadata {
        Some(metadata) => {
            writeln!(out, "{} {:>10} {} {}", kind(metadata), metadata.len(), modified(metadata), entry.name)
        }
        None => writeln!(out, "d {:>10} {:20} {}", "-", "-", entry.name),
    }
}

fn kind(metadata: &Metadata) -> char {
    if metadata.is_dir() {
        'd'
    } else if metadata.is_symlink() {
        'l'
    } else {
        '-'
    }
}

fn modified(metadata: &Metadata) -> String {
    let seconds = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    timestamp(seconds.unwrap_or_default().as_secs())
}

pub fn stat(arguments: &[String], streams: &mut Streams) -> Outcome {
    for name in arguments {
        let metadata = fs::symlink_metadata(absolute(name)).map_err(about(name))?;
        writeln!(streams.output, "{} {} {} {name}", kind(&metadata), metadata.len(), modified(&metadata))?;
    }
    Ok(0)
}

pub fn make_directories(arguments: &[String]) -> Outcome {
    let (letters, names) = options(arguments, "p")?;
    for name in names {
        let path = absolute(name);
        if letters.contains('p') {
            if !paths::is_above(&path) {
                fs::create_dir_all(&path).map_err(about(name))?;
            }
        } else {
            fs::create_dir(&path).map_err(about(name))?;
        }
    }
    Ok(0)
}

pub fn remove(arguments: &[String]) -> Outcome {
    let (letters, names) = options(arguments, "rRf")?;
    for name in names {
        let path = absolute(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() && letters.contains(['r', 'R']) => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound && letters.contains('f') => {}
            removed => removed.map_err(about(name))?,
        }
    }
    Ok(0)
}

pub fn remove_directories(arguments: &[String]) -> Outcome {
    for name in arguments {
        fs::remove_dir(absolute(name)).map_err(about(name))?;
    }
    Ok(0)
}

pub fn touch(arguments: &[String]) -> Outcome {
    for name in arguments {
        fs::OpenOptions::new().create(true).append(true).open(absolute(name)).map_err(about(name))?;
    }
    Ok(0)
}

/// The sources and the target of a copy or a move; each source's place in it.
fn places<'a>(arguments: &'a [String], doing: &str) -> io::Result<Vec<(&'a str, std::path::PathBuf)>> {
    let Some((target, sources)) = arguments.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(wrong(format!("what to {doing}, and where to, is required")));
    };
    let target = absolute(target);
    let is_directory = target.is_dir();
    if sources.len() > 1 && !is_directory {
        return Err(wrong(format!("{}: not a directory", target.display())));
    }
    let place = |source: &'a String| {
        let name = Path::new(source).file_name().map(ToOwned::to_owned).unwrap_or_default();
        (source.as_str(), if is_directory { target.join(name) } else { target.clone() })
    };
    Ok(sources.iter().map(place).collect())
}

pub fn copy(arguments: &[String]) -> Outcome {
    let (letters, names) = options(arguments, "rRapf")?;
    for (source, place) in places(names, "copy")? {
        copy_one(&absolute(source), &place, letters.contains(['r', 'R', 'a'])).map_err(about(source))?;
    }
    Ok(0)
}

fn copy_one(source: &Path, place: &Path, is_deep: bool) -> io::Result<()> {
    if !fs::metadata(source)?.is_dir() {
        return fs::copy(source, place).map(|_| ());
    }
    if !is_deep {
        return Err(wrong("a directory; -r copies it"));
    }
    fs::create_dir_all(place)?;
    for entry in fs::read_dir(source)? {
        let name = entry?.file_name();
        copy_one(&source.join(&name), &place.join(&name), true)?;
    }
    Ok(())
}

pub fn rename(arguments: &[String]) -> Outcome {
    let (_, names) = options(arguments, "f")?;
    for (source, place) in places(names, "move")? {
        fs::rename(absolute(source), place).map_err(about(source))?;
    }
    Ok(0)
}

pub fn test(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_true = match words.as_slice() {
        ["!", rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
            return Ok(1 - test(&rest)?.min(1));
        }
        [] => false,
        [word] => !word.is_empty(),
        ["-d", name] => absolute(name).is_dir() || paths::is_above(&absolute(name)),
        ["-e", name] => absolute(name).exists() || paths::is_above(&absolute(name)),
        ["-f", name] => absolute(name).is_file(),
        ["-s", name] => fs::metadata(absolute(name)).is_ok_and(|metadata| metadata.len() > 0),
        ["-r" | "-w" | "-x", name] => absolute(name).exists(),
        ["-z", word] => word.is_empty(),
        ["-n", word] => !word.is_empty(),
        [left, "=" | "==", right] => left == right,
        [left, "!=", right] => left != right,
        [left, comparison, right] => {
            let number = |word: &str| word.parse::<i64>().map_err(|_| wrong(format!("{word}: a number is required")));
            let (left, right) = (number(left)?, number(right)?);
            match *comparison {
                "-eq" => left == right,
                "-ne" => left != right,
                "-lt" => left < right,
                "-le" => left <= right,
                "-gt" => left > right,
                "-ge" => left >= right,
                other => return Err(wrong(format!("{other}: no such comparison"))),
            }
        }
        _ => return Err(wrong("too many words")),
    };
    Ok(u8::from(!is_true))
}

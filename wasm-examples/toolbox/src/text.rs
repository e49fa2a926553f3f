//! Commands that print.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::shell::Shell;
use crate::streams::Streams;
use crate::{Outcome, about, options, paths, wrong};

/// Opens what a command reads: a file, or the input for a dash.
fn open<'a>(name: &str, streams: &'a mut Box<dyn Read>) -> io::Result<Box<dyn Read + 'a>> {
    if name == "-" {
        return Ok(Box::new(streams));
    }
    Ok(Box::new(File::open(paths::absolute(name)).map_err(about(name))?))
}

/// The names of files, or the input when there is none.
fn named(names: &[String]) -> Vec<&str> {
    if names.is_empty() { vec!["-"] } else { names.iter().map(String::as_str).collect() }
}

pub fn cat(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (_, names) = options(arguments, "u")?;
    let mut code = 0;
    let Streams { input, output } = streams;
    for name in named(names) {
        match open(name, input) {
            Ok(mut input) => {
                pass_on(&mut input, output)?;
            }
            // The others are still shown.
            Err(error) => {
                writeln!(io::stderr(), "cat: {error}")?;
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Copies all, each piece as soon as it is there: whoever types sees what he typed.
fn pass_on(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match input.read(&mut piece)? {
            0 => return Ok(()),
            length => output.write_all(&piece[..length])?,
        }
        output.flush()?;
    }
}

pub fn echo(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (end, words) = match arguments.split_first() {
        Some((first, words)) if first == "-n" => ("", words),
        _ => ("\n", arguments),
    };
    write!(streams.output, "{}{end}", words.join(" "))?;
    Ok(0)
}

pub fn environment(arguments: &[String], shell: &mut Shell, streams: &mut Streams) -> Outcome {
    if let Some(name) = arguments.first() {
        return match shell.variables().get(name) {
            Some(value) => {
                writeln!(streams.output, "{value}")?;
                Ok(0)
            }
            None => Ok(1),
        };
    }
    for (name, value) in shell.variables() {
        writeln!(streams.output, "{name}={value}")?;
    }
    Ok(0)
}

pub fn print_directory(streams: &mut Streams) -> Outcome {
    writeln!(streams.output, "{}", paths::directory().display())?;
    Ok(0)
}

pub fn sleep(arguments: &[String]) -> Outcome {
    for argument in arguments {
        let seconds: f64 = argument
            .trim_end_matches('s')
            .parse()
            .map_err(|_| wrong(format!("{argument}: a number of seconds is required")))?;
        let pause = Duration::try_from_secs_f64(seconds).map_err(|error| wrong(format!("{argument}: {error}")))?;
        std::thread::sleep(pause);
    }
    Ok(0)
}

/// The number of `-n NUMBER`, `-nNUMBER` or `-NUMBER`, and the names.
fn lines(arguments: &[String]) -> io::Result<(usize, &[String])> {
    let number = |text: &str| text.parse().map_err(|_| wrong(format!("{text}: a number of lines is required")));
    match arguments {
        [flag, count, names @ ..] if flag == "-n" => Ok((number(count)?, names)),
        [flag, names @ ..] if flag.len() > 1 && flag.starts_with('-') => {
            Ok((number(flag.trim_start_matches('-').trim_start_matches('n'))?, names))
        }
        names => Ok((10, names)),
    }
}

pub fn head(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (count, names) = lines(arguments)?;
    let Streams { input, output } = streams;
    for name in named(names) {
        let mut input = BufReader::new(open(name, input)?);
        for _ in 0..count {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            output.write_all(&line)?;
        }
    }
    Ok(0)
}

pub fn tail(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (count, names) = lines(arguments)?;
    let Streams { input, output } = streams;
    for name in named(names) {
        let mut input = BufReader::new(open(name, input)?);
        let mut kept = VecDeque::new();
        loop {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            kept.push_back(line);
            if kept.len() > count {
                kept.pop_front();
            }
        }
        for line in kept {
            output.write_all(&line)?;
        }
    }
    Ok(0)
}

pub fn count(arguments: &[String], streams: &mut Streams) -> Outcome {
    let (letters, names) = options(arguments, "clw")?;
    let Streams { input, output } = streams;
    for (index, name) in named(names).into_iter().enumerate() {
        let mut bytes = Vec::new();
        open(name, input)?.read_to_end(&mut bytes)?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        let all = [('l', lines), ('w', words), ('c', bytes.len())];
        let shown: Vec<String> = all
            .iter()
            .filter(|(letter, _)| letters.is_empty() || letters.contains(*letter))
            .map(|(_, count)| count.to_string())
            .collect();
        let name = names.get(index).map(|name| format!(" {name}")).unwrap_or_default();
        writeln!(output, "{}{name}", shown.join(" "))?;
    }
    Ok(0)
}

pub fn date(streams: &mut Streams) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    writeln!(streams.output, "{}", timestamp(now))?;
    Ok(0)
}

/// Seconds since 1970 as RFC 3339, in UTC.
pub fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Counted from a March, so that a leap day is the last of its year; 400 years are 146,097 days.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + turn;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

//! The commands that every container has: `kubectl exec` and `kubectl cp` run them in a fresh instance beside the container's own
//! program, with its directories, variables and network. The name of the command is the program's first argument.

mod archive;
mod files;
mod paths;
mod shell;
mod streams;
mod text;
mod words;

use std::io::{self, Write};

use streams::Streams;

/// What a command gives back: its exit code, or the reason why there is none.
type Outcome = io::Result<u8>;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let mut shell = shell::Shell::new(std::env::vars().collect());
    let code = run(&words, &mut shell, &mut Streams::standard());
    // The standard library's own exit tells success or failure, but no number.
    wasip2::cli::exit::exit_with_code(code);
}

/// Runs one command, with its name as the first word.
fn run(words: &[String], shell: &mut shell::Shell, streams: &mut Streams) -> u8 {
    let Some((name, arguments)) = words.split_first() else { return 0 };
    let name = name.rsplit('/').next().unwrap_or(name);
    match command(name, arguments, shell, streams).and_then(|code| streams.output.flush().map(|()| code)) {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            if error.kind() == io::ErrorKind::InvalidInput { 2 } else { 1 }
        }
    }
}

fn command(name: &str, arguments: &[String], shell: &mut shell::Shell, streams: &mut Streams) -> Outcome {
    match name {
        "cat" => text::cat(arguments, streams),
        "cp" => files::copy(arguments),
        "date" => text::date(streams),
        "echo" => text::echo(arguments, streams),
        "env" | "printenv" => text::environment(arguments, shell, streams),
        "false" => Ok(1),
        "head" => text::head(arguments, streams),
        "ls" => files::list(arguments, streams),
        "mkdir" => files::make_directories(arguments),
        "mv" => files::rename(arguments),
        "pwd" => text::print_directory(streams),
        "rm" => files::remove(arguments),
        "rmdir" => files::remove_directories(arguments),
        "sh" => shell.start(arguments, streams),
        "sleep" => text::sleep(arguments),
        "stat" => files::stat(arguments, streams),
        "tail" => text::tail(arguments, streams),
        "tar" => archive::tar(arguments, streams),
        "test" => files::test(arguments),
        "[" => match arguments.split_last() {
            Some((last, arguments)) if last == "]" => files::test(arguments),
            _ => Err(wrong("a ] is missing")),
        },
        "touch" => files::touch(arguments),
        "true" => Ok(0),
        "wc" => text::count(arguments, streams),
        _ => {
            let _ = writeln!(io::stderr(), "{name}: not found");
            Ok(127)
        }
    }
}

/// The command was written wrongly.
fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

/// The same error, with what it is about.
fn about(name: &str) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// The options (letters after a dash, before the first other word) and the rest. Letters that are not in `known` are an error.
fn options<'a>(arguments: &'a [String], known: &str) -> io::Result<(String, &'a [String])> {
    let mut letters = String::new();
    let mut rest = arguments;
    while let Some((first, after)) = rest.split_first() {
        if first == "--" {
            rest = after;
            break;
        }
        let Some(given) = first.strip_prefix('-').filter(|given| !given.is_empty()) else { break };
        if let Some(unknown) = given.chars().find(|letter| !known.contains(*letter)) {
            return Err(wrong(format!("unknown option -{unknown}; there are: {known}")));
        }
        letters.push_str(given);
        rest = after;
    }
    Ok((letters, rest))
}

//! `sh`, small: commands of the toolbox joined by `;`, `&&`, `||` and `|`, with quotes, variables and redirections. No control
//! flow, no functions, no other programs: there are none in a container here.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal, Read, Write};

use crate::streams::{Shared, Streams};
use crate::words::{self, Joint, Redirection, Statement};
use crate::{Outcome, about, paths, run, wrong};

/// What a shell remembers from command to command.
pub struct Shell {
    variables: BTreeMap<String, String>,
    last: u8,
    /// Set by `exit`.
    is_over: bool,
}

impl Shell {
    pub fn new(variables: BTreeMap<String, String>) -> Shell {
        Shell { variables, last: 0, is_over: false }
    }

    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Runs `-c TEXT`, a file, or what is typed.
    pub fn start(&mut self, arguments: &[String], streams: &mut Streams) -> Outcome {
        match arguments {
            [flag, text, ..] if matches!(flag.as_str(), "-c" | "-ec" | "-lc") => self.text(text, streams),
            [flag] if matches!(flag.as_str(), "-i" | "-l" | "-il") => self.lines(streams),
            [] => self.lines(streams),
            [name, ..] if !name.starts_with('-') => {
                let mut text = String::new();
                File::open(paths::absolute(name))
                    .and_then(|mut file| file.read_to_string(&mut text))
                    .map_err(about(name))?;
                self.text(&text, streams)
            }
            [flag, ..] => Err(wrong(format!("unknown option {flag}; there are: -c TEXT, -i, -l, a file, or nothing"))),
        }
    }

    fn text(&mut self, text: &str, streams: &mut Streams) -> Outcome {
        for statement in words::parse(text)? {
            if !self.is_over {
                self.statement(&statement, streams)?;
            }
        }
        Ok(self.last)
    }

    /// Reads line by line; a mistake in one does not end it.
    fn lines(&mut self, streams: &mut Streams) -> Outcome {
        let is_shown = io::stdin().is_terminal();
        let input = Shared::new(std::mem::replace(&mut streams.input, Box::new(io::empty())));
        let mut lines = BufReader::with_capacity(1, input.clone());
        while !self.is_over {
            if is_shown {
                write!(streams.output, "{} # ", paths::directory().display())?;
                streams.output.flush()?;
            }
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                break;
            }
            // What a command reads is what follows the line.
            streams.input = Box::new(input.clone());
            if let Err(error) = self.text(&line, streams) {
                writeln!(io::stderr(), "sh: {error}")?;
                self.last = 2;
            }
        }
        Ok(self.last)
    }

    fn statement(&mut self, statement: &Statement, streams: &mut Streams) -> io::Result<()> {
        let is_wanted = match statement.joint {
            Joint::Always => true,
            Joint::And => self.last == 0,
            Joint::Or => self.last != 0,
        };
        if !is_wanted {
            return Ok(());
        }
        // Each of a pipe's commands runs to its end before the next one reads.
        let mut carried: Option<Vec<u8>> = None;
        let count = statement.pipe.len();
        for (index, command) in statement.pipe.iter().enumerate() {
            let input: Box<dyn Read> = match carried.take() {
                Some(bytes) => Box::new(Cursor::new(bytes)),
                None => std::mem::replace(&mut streams.input, Box::new(io::empty())),
            };
            let buffer = Shared::new(Vec::new());
            let is_last = index + 1 == count;
            let output: Box<dyn Write> = if is_last {
                std::mem::replace(&mut streams.output, Box::new(io::sink()))
            } else {
                Box::new(buffer.clone())
            };
            let mut own = Streams { input, output };
            let done = self.command(command, &mut own);
            own.output.flush()?;
            if index == 0 {
                streams.input = own.input;
            }
            if is_last {
                streams.output = own.output;
            } else {
                carried = Some(buffer.take());
            }
            self.last = done?;
        }
        Ok(())
    }

    fn command(&mut self, command: &words::Command, streams: &mut Streams) -> io::Result<u8> {
        let value = |name: &str| match name {
            "?" => Some(self.last.to_string()),
            name => self.variables.get(name).cloned(),
        };
        let words: Vec<String> = command.words.iter().flat_map(|word| word.expand(&value)).collect();
        let set: Vec<(String, String)> =
            command.set.iter().map(|(name, word)| (name.clone(), word.text(&value))).collect();
        let redirected: Vec<(Redirection, String)> =
            command.redirected.iter().map(|(kind, word)| (*kind, word.text(&value))).collect();
        let (mut kept_input, mut kept_output) = (None, None);
        for (kind, name) in redirected {
            let path = paths::absolute(&name);
            let open = |options: &mut OpenOptions| options.open(&path).map_err(about(&name));
            match kind {
                Redirection::Input => {
                    let file = open(OpenOptions::new().read(true))?;
                    let before = std::mem::replace(&mut streams.input, Box::new(file));
                    kept_input.get_or_insert(before);
                }
                Redirection::Output | Redirection::Append => {
                    let is_append = kind == Redirection::Append;
                    let mut options = OpenOptions::new();
                    let file = open(options.create(true).write(true).append(is_append).truncate(!is_append))?;
                    let before = std::mem::replace(&mut streams.output, Box::new(file));
                    kept_output.get_or_insert(before);
                }
            }
        }
        let code = self.built_in(&words, &set, streams);
        if let Some(output) = kept_output {
            streams.output.flush()?;
            streams.output = output;
        }
        if let Some(input) = kept_input {
            streams.input = input;
        }
        code
    }

    fn built_in(&mut self, words: &[String], set: &[(String, String)], streams: &mut Streams) -> io::Result<u8> {
        let Some(name) = words.first() else {
            self.variables.extend(set.iter().cloned());
            return Ok(self.last);
        };
        match name.as_str() {
            "cd" => {
                let target = paths::absolute(words.get(1).map_or("/", String::as_str));
                if !target.is_dir() && !paths::is_above(&target) {
                    return Err(wrong(format!("cd: {}: no such directory", target.display())));
                }
                paths::change(target);
                Ok(0)
            }
            "exit" => {
                self.is_over = true;
                let code = words.get(1).map_or(Ok(self.last), |code| code.parse());
                code.map_err(|_| wrong(format!("exit: {}: a number from 0 to 255 is required", words[1])))
            }
            "export" => {
                for word in &words[1..] {
                    if let Some((name, value)) = word.split_once('=') {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
                Ok(0)
            }
            ":" => Ok(0),
            "if" | "for" | "while" | "until" | "case" | "function" => {
                Err(wrong(format!("{name}: this shell has no control flow: only ;, &&, ||, | and redirections")))
            }
            _ => {
                let before = self.variables.clone();
                self.variables.extend(set.iter().cloned());
                let code = run(words, self, streams);
                // A variable before a command is for that command alone.
                if !set.is_empty() {
                    self.variables = before;
                }
                Ok(code)
            }
        }
    }
}

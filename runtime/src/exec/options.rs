//! What a client asks for, from a request's query.

use crate::logs::read::percent_decode;

/// The options of exec and attach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The words of the command.
    pub command: Vec<String>,
    /// The client sends input.
    pub stdin: bool,
    /// The client wants the output.
    pub stdout: bool,
    /// The client wants the errors.
    pub stderr: bool,
    /// The streams are a terminal.
    pub tty: bool,
}

impl Options {
    /// Reads them; what is not known is left to others.
    pub fn parse(query: &str) -> Options {
        let mut options = Options::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let is_set = matches!(value, "1" | "true");
            match name {
                "command" => options.command.push(percent_decode(&value.replace('+', " "))),
                "stdin" => options.stdin = is_set,
                "stdout" => options.stdout = is_set,
                "stderr" => options.stderr = is_set,
                "tty" => options.tty = is_set,
                _ => {}
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_command_keep_their_order_and_their_signs() {
        let options = Options::parse("command=sh&command=-c&command=echo+%22a%26b%22&stdout=true&tty=1&stdin=false");
        assert_eq!(options.command, ["sh", "-c", "echo \"a&b\""]);
        assert!(options.stdout && options.tty && !options.stdin && !options.stderr);
    }
}

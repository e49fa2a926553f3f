//! The shell's language: a text becomes statements of commands of words.

use std::io;

use crate::wrong;

/// When a statement runs, by how the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    Always,
    And,
    Or,
}

/// Commands of which each reads what the one before it wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub joint: Joint,
    pub pipe: Vec<Command>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub set: Vec<(String, Word)>,
    pub words: Vec<Word>,
    pub redirected: Vec<(Redirection, Word)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirection {
    Input,
    Output,
    Append,
}

/// A word before its variables are put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A variable; one that is not in quotes is split at blanks.
    Variable {
        name: String,
        is_quoted: bool,
    },
}

impl Word {
    /// The word as one text.
    pub fn text(&self, value: &impl Fn(&str) -> Option<String>) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable { name, .. } => value(name).unwrap_or_default(),
        };
        self.0.iter().map(piece).collect()
    }

    /// The words that it becomes: none for an empty variable that is not in quotes.
    pub fn expand(&self, value: &impl Fn(&str) -> Option<String>) -> Vec<String> {
        match self.0.as_slice() {
            [Piece::Variable { name, is_quoted: false }] => {
                value(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
            }
            _ => vec![self.text(value)],
        }
    }

    fn push(&mut self, letter: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(letter),
            _ => self.0.push(Piece::Text(letter.to_string())),
        }
    }

    /// The name and the rest, if this is an assignment.
    fn assignment(&self) -> Option<(String, Word)> {
        let Some(Piece::Text(first)) = self.0.first() else { return None };
        let (name, rest) = first.split_once('=')?;
        let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        is_name.then(|| {
            let mut pieces = vec![Piece::Text(rest.to_owned())];
            pieces.extend(self.0[1..].iter().cloned());
            (name.to_owned(), Word(pieces))
        })
    }
}

enum Token {
    Word(Word),
    Sign(&'static str),
}

const SIGNS: [&str; 8] = ["&&", "||", ">>", ";", "|", ">", "<", "\n"];

/// Reads a text.
pub fn parse(text: &str) -> io::Result<Vec<Statement>> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut current = Statement { joint: Joint::Always, pipe: vec![Command::default()] };
    let mut redirection = None;
    for token in tokens(text)? {
        let command = current.pipe.last_mut().expect("a pipe has a command");
        match token {
            Token::Word(word) => match (redirection.take(), word.assignment()) {
                (Some(kind), _) => command.redirected.push((kind, word)),
                (None, Some(set)) if command.words.is_empty() => command.set.push(set),
                (None, _) => command.words.push(word),
            },
            Token::Sign(sign) => {
                if redirection.is_some() {
                    return Err(wrong(format!("a file is missing before {sign:?}")));
                }
                let is_empty = command.words.is_empty() && command.set.is_empty() && command.redirected.is_empty();
                redirection = match sign {
                    "<" => Some(Redirection::Input),
                    ">" => Some(Redirection::Output),
                    ">>" => Some(Redirection::Append),
                    _ => None,
                };
                if redirection.is_some() {
                    continue;
                }
                if is_empty && !matches!(sign, ";" | "\n") {
                    return Err(wrong(format!("a command is missing before {sign:?}")));
                }
                if sign == "|" {
                    current.pipe.push(Command::default());
                    continue;
                }
                let joint = match sign {
                    "&&" => Joint::And,
                    "||" => Joint::Or,
                    _ => Joint::Always,
                };
                let next = Statement { joint, pipe: vec![Command::default()] };
                let done = std::mem::replace(&mut current, next);
                if !is_empty {
                    statements.push(done);
                }
            }
        }
    }
    let last = current.pipe.last().expect("a pipe has a command");
    let is_empty = last.words.is_empty() && last.set.is_empty() && last.redirected.is_empty();
    if redirection.is_some() || (is_empty && (current.pipe.len() > 1 || current.joint != Joint::Always)) {
        return Err(wrong("the text ends where a word is required"));
    }
    if !is_empty {
        statements.push(current);
    }
    Ok(statements)
}

fn tokens(text: &str) -> io::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut word: Option<Word> = None;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
        if sign.is_some() || letter.is_whitespace() {
            tokens.extend(word.take().map(Token::Word));
            tokens.extend(sign.map(Token::Sign));
            rest = &rest[sign.map_or(letter.len_utf8(), str::len)..];
            continue;
        }
        if letter == '#' && word.is_none() {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        let current = word.get_or_insert_default();
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\'' => {
                let (inside, after) = rest.split_once('\'').ok_or_else(|| wrong("a ' is not closed"))?;
                inside.chars().for_each(|letter| current.push(letter));
                current.0.push(Piece::Text(String::new()));
                rest = after;
            }
            '"' => rest = quoted(rest, current)?,
            '\\' => {
                let escaped = rest.chars().next().ok_or_else(|| wrong("nothing follows the last \\"))?;
                current.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            '$' => rest = variable(rest, current, false)?,
            '`' | '&' | '(' | ')' => return Err(wrong(format!("{letter}: this shell does not know it"))),
            letter => current.push(letter),
        }
    }
    tokens.extend(word.map(Token::Word));
    Ok(tokens)
}

/// What stands in double quotes; returns what follows them.
fn quoted<'a>(text: &'a str, word: &mut Word) -> io::Result<&'a str> {
    // An empty pair of quotes is a word too.
    word.0.push(Piece::Text(String::new()));
    let mut rest = text;
    loop {
        let letter = rest.chars().next().ok_or_else(|| wrong("a \" is not closed"))?;
        rest = &rest[letter.len_utf8()..];
        match letter {
            '"' => return Ok(rest),
            '$' => rest = variable(rest, word, true)?,
            '\\' if rest.starts_with(['"', '\\', '$', '`']) => {
                word.push(rest.chars().next().unwrap_or_default());
                rest = &rest[1..];
            }
            letter => word.push(letter),
        }
    }
}

/// A variable's name after its `$`; returns what follows it.
fn variable<'a>(text: &'a str, word: &mut Word, is_quoted: bool) -> io::Result<&'a str> {
    if text.starts_with('(') {
        return Err(wrong("$(: this shell does not know it"));
    }
    let (name, rest) = if let Some(inside) = text.strip_prefix('{') {
        inside.split_once('}').ok_or_else(|| wrong("a ${ is not closed"))?
    } else if text.starts_with('?') {
        text.split_at(1)
    } else {
        let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
        text.split_at(end)
    };
    if name.is_empty() {
        word.push('$');
    } else {
        word.0.push(Piece::Variable { name: name.to_owned(), is_quoted });
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let value = |name: &str| (name == "A").then(|| "x y".to_owned());
        let statements = parse(text).unwrap();
        statements[0].pipe[0].words.iter().flat_map(|word| word.expand(&value)).collect()
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("echo 'a $A' \"b $A\" c\\ d '' e\"\"f"), ["echo", "a $A", "b x y", "c d", "", "ef"]);
    }

    #[test]
    fn a_variable_is_split_only_outside_of_quotes() {
        assert_eq!(words("echo $A $NONE \"${A}\""), ["echo", "x", "y", "x y"]);
    }

    #[test]
    fn statements_are_joined_and_redirected() {
        let statements = parse("A=1 ls /x > out | wc -l && true || false; date # a remark\npwd").unwrap();
        let joints: Vec<Joint> = statements.iter().map(|statement| statement.joint).collect();
        assert_eq!(joints, [Joint::Always, Joint::And, Joint::Or, Joint::Always, Joint::Always]);
        assert_eq!(statements[0].pipe.len(), 2);
        assert_eq!(statements[0].pipe[0].set.len(), 1);
        assert_eq!(statements[0].pipe[0].redirected[0].0, Redirection::Output);
    }

    #[test]
    fn what_is_not_finished_is_refused() {
        for text in ["'a", "\"a", "ls |", "ls &&", "| wc", "ls >", "a & b", "echo $(ls)", "echo `ls`"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("  ;; \n").unwrap(), []);
    }
}

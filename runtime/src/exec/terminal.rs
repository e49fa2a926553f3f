//! What a terminal's line discipline does, for guests that have none: echo, editing of a line, line ends, ^C and ^D.
//!
//! The client's own terminal is in raw mode; a guest reads whole lines, as programs on a terminal that was not changed do.

/// Interrupts (^C).
const INTERRUPT: u8 = 3;
/// Ends the input (^D).
const END: u8 = 4;
/// Erases a character: what the key for it sends, one or the other.
const ERASE: [u8; 2] = [8, 127];
/// Erases the line (^U).
const KILL: u8 = 21;
/// The most bytes of a line that is not yet ended; more are dropped, as terminals do.
const LONGEST: usize = 4096;

/// The line that is being typed.
#[derive(Debug, Default)]
pub struct Terminal {
    line: Vec<u8>,
}

/// What typing leads to, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    /// For the guest.
    pub input: Vec<u8>,
    /// For the client to see.
    pub echo: Vec<u8>,
    /// The input is over.
    pub is_end: bool,
    /// The guest is to be interrupted.
    pub is_interrupt: bool,
}

impl Terminal {
    /// Takes what was typed; what follows an end or an interrupt is dropped.
    pub fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    typed.echo.extend(b"\r\n");
                    self.line.push(b'\n');
                    typed.input.append(&mut self.line);
                }
                INTERRUPT => {
                    typed.echo.extend(b"^C\r\n");
                    self.line.clear();
                    typed.is_interrupt = true;
                    return typed;
                }
                END if self.line.is_empty() => {
                    typed.is_end = true;
                    return typed;
                }
                END => typed.input.append(&mut self.line),
                byte if ERASE.contains(&byte) => self.erase(&mut typed.echo),
                KILL => {
                    while !self.line.is_empty() {
                        self.erase(&mut typed.echo);
                    }
                }
                byte if self.line.len() < LONGEST => {
                    self.line.push(byte);
                    if byte < b' ' && byte != b'\t' {
                        typed.echo.extend([b'^', byte + b'@']);
                    } else {
                        typed.echo.push(byte);
                    }
                }
                _ => {}
            }
        }
        typed
    }

    /// Takes one character back, and on the screen the one or two signs that it was.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        // The bytes that continue a character of UTF-8 go with it.
        while let Some(byte) = self.line.pop() {
            if byte & 0xc0 == 0x80 {
                continue;
            }
            let signs = if byte < b' ' && byte != b'\t' { 2 } else { 1 };
            echo.extend(b"\x08 \x08".repeat(signs));
            return;
        }
    }
}

/// Output with the line ends of a terminal.
pub fn line_ends(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_given_when_it_is_ended_and_shown_as_it_is_typed() {
        let mut terminal = Terminal::default();
        let typed = terminal.take(b"ls");
        assert_eq!((typed.input, typed.echo), (vec![], b"ls".to_vec()));
        let typed = terminal.take(b" -l\rx");
        assert_eq!((typed.input, typed.echo), (b"ls -l\n".to_vec(), b" -l\r\nx".to_vec()));
    }

    #[test]
    fn a_character_is_erased_with_all_its_bytes() {
        let mut terminal = Terminal::default();
        terminal.take("aé".as_bytes());
        let typed = terminal.take(b"\x7f\x7f\x7f\r");
        assert_eq!(typed.input, b"\n");
        assert_eq!(typed.echo, b"\x08 \x08\x08 \x08\r\n");
    }

    #[test]
    fn an_end_gives_what_was_typed_and_the_next_one_ends() {
        let mut terminal = Terminal::default();
        let typed = terminal.take(b"ab\x04");
        assert_eq!((typed.input, typed.is_end), (b"ab".to_vec(), false));
        assert!(terminal.take(b"\x04").is_end);
    }

    #[test]
    fn an_interrupt_drops_the_line() {
        let mut terminal = Terminal::default();
        assert!(terminal.take(b"rm -r\x03").is_interrupt);
        assert_eq!(terminal.take(b"\r").input, b"\n");
    }
}

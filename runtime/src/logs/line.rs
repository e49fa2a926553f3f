//! One line of a CRI log file.

use jiff::Timestamp;

/// A line as it stands in the file, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The time as written.
    pub time_text: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The next line goes on with this one.
    pub is_partial: bool,
    /// What the program wrote.
    pub text: &'a [u8],
}

/// Takes a line apart; `None` if it is not of this format. `line` is without its newline.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time_text = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    Some(Line { time: time_text.parse().ok()?, time_text, stream, is_partial: tag == b"P", text })
}

/// Writes a line with its newline to the end of `into`.
pub fn format(into: &mut Vec<u8>, time: Timestamp, stream: &str, is_partial: bool, text: &[u8]) {
    into.extend_from_slice(format!("{time:.9} {stream} {} ", if is_partial { 'P' } else { 'F' }).as_bytes());
    into.extend_from_slice(text);
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(text in prop::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..40), partial: bool, seconds in 0i64..4_000_000_000) {
            let time = Timestamp::from_second(seconds).expect("time");
            let mut bytes = Vec::new();
            format(&mut bytes, time, "stderr", partial, &text);
            let line = parse(&bytes[..bytes.len() - 1]).expect("a line");
            prop_assert_eq!((line.time, line.stream, line.is_partial, line.text), (time, "stderr", partial, &text[..]));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}

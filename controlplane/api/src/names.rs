//! Names that the server makes: the prefix of `generateName` and five letters.

/// The letters of a suffix: no vowels, so that no words appear, and nothing that looks like another.
pub const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The letters in a suffix.
pub const SUFFIX_LENGTH: usize = 5;
/// The longest name that is made; a longer prefix is cut.
pub const LONGEST: usize = 63;

/// A name from a prefix. `random` gives a number below the one that it is given, and is asked once a letter.
pub fn generate(prefix: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut cut = prefix.len().min(LONGEST - SUFFIX_LENGTH);
    while !prefix.is_char_boundary(cut) {
        cut -= 1;
    }
    let suffix =
        (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_LETTERS[random(SUFFIX_LETTERS.len()) % SUFFIX_LETTERS.len()]));
    prefix[..cut].chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_prefix_is_cut() {
        let name = generate(&"a".repeat(100), |_| 0);
        assert_eq!(name, format!("{}bbbbb", "a".repeat(58)));
        assert_eq!(generate("web-", |letters| letters - 1), "web-99999");
    }
}

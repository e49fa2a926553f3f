//! Which repositories a pattern holds: one, or all below a path.

/// The host name that stands for the cluster's own registry, which is left out of a repository's name.
const CLUSTER_REGISTRY: &str = "registry.shoal/";

/// A repository, or all below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `team/hello`
    One(String),
    /// `team/*`; with the slash.
    Below(String),
}

impl Pattern {
    /// Reads a pattern; the error is the text and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        let own = text.strip_prefix(CLUSTER_REGISTRY).unwrap_or(text);
        let path = own.strip_suffix("/*").unwrap_or(own);
        if !is_path(path, path != own) {
            let why = "it names repositories without tag or digest, divided by commas or spaces, such as team/hello, ghcr.io/team/hello or ghcr.io/team/*";
            return Err((text.chars().take(100).collect(), why.to_owned()));
        }
        Ok(if path == own { Self::One(own.to_owned()) } else { Self::Below(format!("{path}/")) })
    }

    pub(super) fn holds(&self, repository: &str) -> bool {
        match self {
            Self::One(one) => repository == one,
            Self::Below(path) => repository.starts_with(path),
        }
    }
}

/// Whether the text is a registry, which may have a port, and a path in it. `is_more` says that something follows.
fn is_path(text: &str, is_more: bool) -> bool {
    let is_word = |part: &str, more: &[u8]| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        !part.is_empty() && part.bytes().all(|byte| is_letter(byte) || more.contains(&byte))
    };
    match text.split_once('/') {
        Some((host, path)) => is_word(host, b":[]") && path.split('/').all(|part| is_word(part, b"")),
        None => is_word(text, if is_more { b":[]" } else { b"" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, repository: &str) -> bool {
        Pattern::parse(pattern).expect("a pattern").holds(repository)
    }

    #[test]
    fn a_pattern_is_a_repository_or_all_below_a_path() {
        assert!(holds("hello", "hello") && !holds("hello", "hello2") && !holds("hello", "hello/x"));
        assert!(holds("team/*", "team/a") && holds("team/*", "team/a/b"));
        assert!(!holds("team/*", "team") && !holds("team/*", "team2/a") && !holds("team/*", "ghcr.io/team/a"));
        assert!(holds("ghcr.io/*", "ghcr.io/team/a") && holds("localhost:5000/*", "localhost:5000/a"));
        assert!(holds("registry.shoal/team/*", "team/a") && holds("registry.shoal/hello", "hello"));
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for text in
            ["*", "/*", "a*", "*/a", "team/*/a", "hello:1", "team/hello:1", "hello@sha256:1", "Hello", "a//b", "a/"]
        {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}

//! Names of images: `[registry/]name[:tag][@digest]`.
//!
//! The grammar is that of the OCI distribution specification and of Docker's references. One rule is ours: a name without a
//! registry means the cluster's own, which may also be written out as `registry.shoal`.

use std::fmt;

use crate::blobs::Digest;

/// The host name that stands for the cluster's own registry. It is never looked up.
pub const CLUSTER_REGISTRY: &str = "registry.shoal";

/// The bytes that a repository's name may have.
const NAME_BYTES: usize = 255;

/// The bytes that a tag may have.
const TAG_BYTES: usize = 128;

/// Where an image is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Registry {
    /// In the cluster's own registry.
    Cluster,
    /// At this host, with its port if it has one.
    Remote(String),
}

/// The name of an image, taken apart. It displays in one canonical way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where it is kept.
    pub registry: Registry,
    /// The repository within it, such as `team/hello`.
    pub repository: String,
    /// The tag; `latest` if neither a tag nor a digest is written.
    pub tag: Option<String>,
    /// The digest, which wins over the tag.
    pub digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {text:?}: invalid reference format{detail}")]
pub struct InvalidReference {
    /// The text.
    pub text: String,
    detail: &'static str,
}

impl Reference {
    /// Reads a reference as a pod writes it.
    ///
    /// # Errors
    /// [`InvalidReference`], worded as Kubernetes' users know it.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|detail| InvalidReference { text: text.chars().take(300).collect(), detail })
    }

    /// The repository with its registry; without one if it is the cluster's.
    pub fn name(&self) -> String {
        match &self.registry {
            Registry::Cluster => self.repository.clone(),
            Registry::Remote(host) => format!("{host}/{}", self.repository),
        }
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_string(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => {
            (rest, Some(Digest::parse(digest).map_err(|_| ": the digest must be sha256: and 64 hexadecimal digits")?))
        }
    };
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host), path),
        _ => (None, rest),
    };
    let (repository, tag) = match path.split_once(':') {
        None => (path, None),
        Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_string())),
        Some(_) => return Err(""),
    };
    if repository.len() > NAME_BYTES {
        return Err(": repository name must not be more than 255 characters");
    }
    if !repository.split('/').all(is_component) {
        let is_shout = repository.to_ascii_lowercase().split('/').all(is_component);
        return Err(if is_shout { ": repository name must be lowercase" } else { "" });
    }
    let (registry, repository) = match host {
        None | Some(CLUSTER_REGISTRY) => (Registry::Cluster, repository.to_string()),
        Some("docker.io" | "index.docker.io") if !repository.contains('/') => {
            (Registry::Remote("docker.io".to_string()), format!("library/{repository}"))
        }
        Some("docker.io" | "index.docker.io") => (Registry::Remote("docker.io".to_string()), repository.to_string()),
        Some(host) => (Registry::Remote(host.to_string()), repository.to_string()),
    };
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_string()));
    Ok(Reference { registry, repository, tag, digest })
}

/// Whether the first part of a name is a host: only a host has a dot or a port, or is `localhost`.
fn is_host(part: &str) -> bool {
    let name = part.split_once(':').map_or(part, |(name, _)| name);
    let is_named = part.starts_with('[')
        || (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)));
    is_named && (part.contains(['.', ':']) || part == "localhost")
}

/// Lower-case letters and digits, which a dot, one or two underscores, or any number of dashes may part.
fn is_component(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return false;
    }
    let mut separators = part
        .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        .filter(|text| !text.is_empty());
    separators.all(|text| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_BYTES
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Reference::parse(text)
            .map_or_else(|error| error.to_string(), |reference| format!("{:?} {reference}", reference.registry))
    }

    #[test]
    fn a_name_without_a_registry_is_the_clusters() {
        assert_eq!(canonical("hello:1"), "Cluster hello:1");
        assert_eq!(canonical("hello"), "Cluster hello:latest");
        assert_eq!(canonical("team/hello:v1.2"), "Cluster team/hello:v1.2");
        assert_eq!(canonical("registry.shoal/hello:1"), "Cluster hello:1");
    }

    #[test]
    fn a_host_is_told_by_a_dot_a_port_or_its_name() {
        assert_eq!(canonical("ghcr.io/team/hello:1"), "Remote(\"ghcr.io\") ghcr.io/team/hello:1");
        assert_eq!(canonical("localhost/hello"), "Remote(\"localhost\") localhost/hello:latest");
        assert_eq!(canonical("localhost:5000/hello:1"), "Remote(\"localhost:5000\") localhost:5000/hello:1");
        assert_eq!(canonical("docker.io/nginx"), "Remote(\"docker.io\") docker.io/library/nginx:latest");
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("hello:1@{digest}")).expect("valid");
        assert_eq!((reference.version(), reference.tag.as_deref()), (digest.clone(), Some("1")));
        assert_eq!(canonical(&format!("hello@{digest}")), format!("Cluster hello@{digest}"));
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for bad in [
            "",
            ":",
            "hello:",
            "hello:a b",
            "a//b",
            "hello@md5:1",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "/a",
            "a/",
            "ghcr.io/",
            "hello:-1",
            "a b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(canonical("Hello:1").ends_with("invalid reference format: repository name must be lowercase"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_displays_as_itself(text in "[a-zA-Z0-9._:/@\\[\\] -]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
            }
        }
    }
}

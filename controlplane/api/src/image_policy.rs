//! Whose signature the images of a namespace's pods must carry: what the Namespace says of it in its annotations.
//!
//! The annotations are the Namespace's, so that only who may change Namespaces decides, and nobody who merely works in one. They are
//! read here for the API, which refuses what cannot be read, and for the nodes, which verify. How a signature is verified is not
//! known here.

mod keys;
mod patterns;

use keys::public_keys;
pub use keys::{KeyKind, PublicKey};
use patterns::Pattern;

/// The annotation with the public keys, in PEM: an image needs a signature by one of them.
pub const PUBLIC_KEYS: &str = "shoal.dev/image-public-keys";

/// The annotation with the repositories whose images need no signature.
pub const UNSIGNED: &str = "shoal.dev/unsigned-images";

/// What a Namespace says of its pods' images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    keys: Option<Vec<PublicKey>>,
    unsigned: Vec<Pattern>,
}

/// An annotation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata.annotations[{annotation}]: {why}")]
pub struct Unreadable {
    /// Its name.
    pub annotation: &'static str,
    /// The part of it that is wrong, cut short.
    pub part: String,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl ImagePolicy {
    /// Reads the annotations of a Namespace; `annotation` gives the value of one.
    ///
    /// # Errors
    /// [`Unreadable`]: whoever cannot read a policy must not take it for none.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Unreadable> {
        let unreadable = |annotation| move |(part, why)| Unreadable { annotation, part, why };
        let keys = annotation(PUBLIC_KEYS).map(public_keys).transpose().map_err(unreadable(PUBLIC_KEYS))?;
        let words = annotation(UNSIGNED).unwrap_or_default().split([',', ' ', '\n', '\t']);
        let unsigned = words.filter(|word| !word.is_empty()).map(Pattern::parse).collect::<Result<_, _>>();
        Ok(Self { keys, unsigned: unsigned.map_err(unreadable(UNSIGNED))? })
    }

    /// The keys of which one must have signed the images of a repository; none if they need no signature.
    ///
    /// The repository is named with its registry, without one where it is the cluster's.
    pub fn keys(&self, repository: &str) -> Option<&[PublicKey]> {
        let is_exempt = self.unsigned.iter().any(|pattern| pattern.holds(repository));
        self.keys.as_deref().filter(|_| !is_exempt)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::keys::tests::{P256, P384};
    use super::*;

    fn policy(keys: Option<&str>, unsigned: &str) -> Result<ImagePolicy, Unreadable> {
        ImagePolicy::of(|name| if name == PUBLIC_KEYS { keys } else { Some(unsigned).filter(|_| name == UNSIGNED) })
    }

    #[test]
    fn a_namespace_that_says_nothing_wants_no_signature() {
        assert_eq!(ImagePolicy::of(|_| None), Ok(ImagePolicy::default()));
        assert_eq!(ImagePolicy::default().keys("hello"), None);
        assert_eq!(policy(None, "hello").map(|policy| policy.keys("hello").is_none()), Ok(true));
    }

    #[test]
    fn any_of_several_keys_will_do_but_for_what_is_exempt() {
        let policy = policy(Some(&format!("# old\n{P256}\n{P384}")), "debug/*, ghcr.io/team/tool").expect("a policy");
        let kinds: Vec<KeyKind> = policy.keys("hello").expect("keys").iter().map(|key| key.kind).collect();
        assert_eq!(kinds, [KeyKind::EcdsaP256, KeyKind::EcdsaP384]);
        assert!(policy.keys("debug/toolbox").is_none() && policy.keys("ghcr.io/team/tool").is_none());
        assert!(policy.keys("ghcr.io/team/tool/x").is_some() && policy.keys("debug").is_some());
    }

    #[test]
    fn what_cannot_be_read_is_named_with_a_remedy() {
        let wrong = policy(Some(""), "").expect_err("no key");
        assert!(wrong.to_string().contains("metadata.annotations[shoal.dev/image-public-keys]"), "{wrong}");
        assert!(wrong.why.contains("remove the annotation"), "{wrong}");
        let wrong = policy(Some(P256), "ok/* hello:1").expect_err("a tag");
        assert_eq!((wrong.annotation, wrong.part.as_str()), (UNSIGNED, "hello:1"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}", place in 0usize..P256.len()) {
            let place = (0..=place).rev().find(|place| P256.is_char_boundary(*place)).unwrap_or_default();
            let (before, after) = P256.split_at(place);
            for keys in [text.clone(), format!("{before}{text}{after}"), format!("{P256}{text}")] {
                let _ = policy(Some(&keys), &text);
            }
        }
    }
}

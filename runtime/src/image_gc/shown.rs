//! What the Node's status says of the images on it. Pure.

use crate::guests::StoredModule;

/// The images that a Node tells of, as with the kubelet.
const IMAGES: usize = 50;
/// The names that it tells of each.
const NAMES: usize = 5;

/// One image as the Node tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// With a digest first, then with tags.
    pub names: Vec<String>,
    /// The bytes of its module.
    pub size_bytes: u64,
}

/// The largest images, the largest first. One without a name is not told of.
pub fn shown(stored: &[StoredModule]) -> Vec<Shown> {
    let names = |one: &StoredModule| {
        let tags = one.references.iter().filter(|reference| !reference.contains('@'));
        one.image_ids.iter().chain(tags).take(NAMES).cloned().collect::<Vec<_>>()
    };
    let told = stored.iter().map(|one| Shown { names: names(one), size_bytes: one.size_bytes });
    let mut told: Vec<Shown> = told.filter(|one| !one.names.is_empty()).collect();
    told.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    told.truncate(IMAGES);
    told
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn module(number: u64, references: &[&str]) -> StoredModule {
        StoredModule {
            module: format!("sha256:{number}"),
            size_bytes: number,
            since: Timestamp::UNIX_EPOCH,
            references: references.iter().map(|text| (*text).to_owned()).collect(),
            image_ids: references.first().map(|_| format!("hello@sha256:{number}")).into_iter().collect(),
        }
    }

    #[test]
    fn the_largest_are_told_of_by_digest_and_tag() {
        let told = shown(&[module(1, &["hello:1"]), module(2, &["hello:2", "hello@sha256:2"]), module(3, &[])]);
        let names: Vec<Vec<&str>> = told.iter().map(|one| one.names.iter().map(String::as_str).collect()).collect();
        assert_eq!(names, [["hello@sha256:2", "hello:2"], ["hello@sha256:1", "hello:1"]]);
        let many: Vec<StoredModule> =
            (0..60).map(|number| module(number, &["a:1", "a:2", "a:3", "a:4", "a:5"])).collect();
        let told = shown(&many);
        assert_eq!((told.len(), told[0].size_bytes, told[49].size_bytes, told[0].names.len()), (50, 59, 10, 5));
    }
}

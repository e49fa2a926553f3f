//! The paths of the distribution API, told apart from their ends, because a repository's name may hold slashes.

use http::Method;

use crate::error::Problem;

/// What a path under `/v2/` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Repositories,
    Tags { name: String },
    Manifest { name: String, reference: String },
    Referrers { name: String, digest: String },
    Blob { name: String, digest: String },
    StartUpload { name: String },
    Upload { name: String, session: String },
}

/// Reads `path`; the method only tells `POST …/blobs/uploads/` from a blob that would be called `uploads`.
pub(crate) fn parse(method: &Method, path: &str) -> Result<Route, Problem> {
    let rest = path.strip_prefix("/v2").ok_or_else(Problem::not_found)?;
    if rest.is_empty() || rest == "/" {
        return Ok(Route::Base);
    }
    if rest == "/_catalog" {
        return Ok(Route::Repositories);
    }
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    let route = match parts.as_slice() {
        [name @ .., "tags", "list"] => Route::Tags { name: name.join("/") },
        [name @ .., "manifests", reference] => {
            Route::Manifest { name: name.join("/"), reference: (*reference).to_string() }
        }
        [name @ .., "referrers", digest] => Route::Referrers { name: name.join("/"), digest: (*digest).to_string() },
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] if method == Method::POST => {
            Route::StartUpload { name: name.join("/") }
        }
        [name @ .., "blobs", "uploads", session] => {
            Route::Upload { name: name.join("/"), session: (*session).to_string() }
        }
        [name @ .., "blobs", digest] => Route::Blob { name: name.join("/"), digest: (*digest).to_string() },
        _ => return Err(Problem::not_found()),
    };
    let (Route::Tags { name }
    | Route::Manifest { name, .. }
    | Route::Referrers { name, .. }
    | Route::Blob { name, .. }
    | Route::StartUpload { name }
    | Route::Upload { name, .. }) = &route
    else {
        return Ok(route);
    };
    if is_name(name) { Ok(route) } else { Err(Problem::name_invalid(name)) }
}

/// Whether `name` is a repository name as the distribution specification wants it, at most 255 bytes.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 255 && name.split('/').all(is_component)
}

/// Letters and digits in runs, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    bytes
        .split(|byte| is_word(*byte))
        .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-'))
}

/// Whether `tag` is a tag as the distribution specification wants it.
pub(crate) fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, path: &str) -> Option<Route> {
        parse(method, path).ok()
    }

    #[test]
    fn names_may_hold_slashes_and_the_words_of_the_api() {
        assert_eq!(of(&Method::GET, "/v2/"), Some(Route::Base));
        assert_eq!(
            of(&Method::GET, "/v2/a/blobs/b/manifests/1"),
            Some(Route::Manifest { name: "a/blobs/b".to_string(), reference: "1".to_string() })
        );
        assert_eq!(of(&Method::POST, "/v2/a/b/blobs/uploads/"), Some(Route::StartUpload { name: "a/b".to_string() }));
        assert_eq!(
            of(&Method::PUT, "/v2/a/blobs/uploads/x"),
            Some(Route::Upload { name: "a".to_string(), session: "x".to_string() })
        );
        assert_eq!(of(&Method::GET, "/v2/_catalog"), Some(Route::Repositories));
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "A", "a//b", "a/", "-a", "a..b", "a___b", "a/../b"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["a", "a/b", "a-b", "a--b", "a__b", "a.b/c_d", "0"] {
            assert!(is_name(name), "{name:?}");
        }
        assert_eq!(of(&Method::GET, "/v2/UPPER/tags/list"), None);
    }

    #[test]
    fn tags_begin_with_a_word_and_are_short() {
        assert!(is_tag("1.0-rc_2") && is_tag("_x") && is_tag("latest"));
        assert!(!is_tag("") && !is_tag(".x") && !is_tag("-x") && !is_tag("a/b") && !is_tag(&"x".repeat(129)));
    }
}

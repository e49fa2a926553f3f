//! Listings: the repositories, and one repository's tags, in pages.

use std::collections::BTreeSet;

use http::{Response, StatusCode, Uri, header};
use serde_json::json;
use shoal_link::http::Body;

use crate::catalog::{MANIFESTS, manifests_prefix, tags_prefix};
use crate::error::Problem;
use crate::{Registry, limits, respond};

impl Registry {
    pub(crate) async fn repositories(&self, uri: &Uri) -> Result<Response<Body>, Problem> {
        let listed = self.catalog.list(MANIFESTS.to_string()).await?;
        let names: BTreeSet<String> = listed
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(MANIFESTS)?.split_once('@'))
            .map(|(name, _)| name.to_string())
            .collect();
        let (names, next) = page(names, uri);
        Ok(listing(&json!({"repositories": names}), "/v2/_catalog", next))
    }

    pub(crate) async fn tags(&self, name: &str, uri: &Uri) -> Result<Response<Body>, Problem> {
        let prefix = tags_prefix(name);
        let listed = self.catalog.list(prefix.clone()).await?;
        let tags: BTreeSet<String> =
            listed.iter().filter_map(|(key, _)| key.strip_prefix(&prefix).map(str::to_string)).collect();
        if tags.is_empty() && self.catalog.list(manifests_prefix(name)).await?.is_empty() {
            return Err(Problem::name_unknown(name));
        }
        let (tags, next) = page(tags, uri);
        Ok(listing(&json!({"name": name, "tags": tags}), &format!("/v2/{name}/tags/list"), next))
    }
}

/// The rows after `last`, `n` of them at most, and the query of the next page if there is one.
fn page(rows: BTreeSet<String>, uri: &Uri) -> (Vec<String>, Option<String>) {
    let last = respond::query(uri, "last").unwrap_or_default();
    let count = respond::query(uri, "n").and_then(|text| text.parse().ok()).unwrap_or(limits::PAGE).min(limits::PAGE);
    let mut after = rows.into_iter().filter(|row| *row > last).peekable();
    let page: Vec<String> = after.by_ref().take(count).collect();
    let next = match (after.peek(), page.last()) {
        (Some(_), Some(last)) => Some(format!("n={count}&last={last}")),
        _ => None,
    };
    (page, next)
}

fn listing(document: &serde_json::Value, path: &str, next: Option<String>) -> Response<Body> {
    let mut response = respond::bytes(StatusCode::OK, "application/json", document.to_string());
    if let Some(link) = next.and_then(|query| format!("<{path}?{query}>; rel=\"next\"").parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let rows: BTreeSet<String> = ["a", "b", "c"].map(String::from).into();
        let (first, next) = page(rows.clone(), &Uri::from_static("/?n=2"));
        assert_eq!((first, next.as_deref()), (vec!["a".to_string(), "b".to_string()], Some("n=2&last=b")));
        let (second, next) = page(rows, &Uri::from_static("/?n=2&last=b"));
        assert_eq!((second, next), (vec!["c".to_string()], None));
    }
}

//! Which form of an answer the client takes, from its `Accept` header.
//!
//! We send JSON, always; what varies is the object in it: the object itself, a `Table` of it, or its metadata alone.
//! Protobuf in the header is passed over, since every client that offers it offers JSON beside it.

use http::HeaderMap;
use http::header::ACCEPT;
use shoal_api::Status;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object or list itself.
    Object,
    /// `meta.k8s.io/v1` `Table`.
    Table,
    /// `meta.k8s.io/v1` `PartialObjectMetadata` or its list.
    Metadata,
    /// `apidiscovery.k8s.io/v2` (discovery paths only).
    AggregatedDiscovery,
}

/// One media range of an `Accept` header.
struct Range<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn is_json(&self) -> bool {
        matches!(self.media, "application/json" | "application/*" | "*/*")
    }
}

/// The first form that the client names and that `offered` holds.
///
/// # Errors
/// 406 when nothing that the client takes is offered.
pub(crate) fn form(headers: &HeaderMap, offered: &[Form]) -> Result<Form, Status> {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).filter(|text| !text.trim().is_empty())
    else {
        return Ok(Form::Object);
    };
    accept
        .split(',')
        .map(range)
        .filter(Range::is_json)
        .find_map(|range| requested(&range).filter(|form| offered.contains(form)))
        .ok_or_else(|| {
            Status::not_acceptable("only the following media types are accepted: application/json".to_owned())
        })
}

fn range(text: &str) -> Range<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| part.split_once('=')).collect();
    Range { media, parameters }
}

/// The form that a range names, if we know it in that version.
fn requested(range: &Range<'_>) -> Option<Form> {
    match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
        (None, _, _) => Some(Form::Object),
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Form::Table),
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
            Some(Form::Metadata)
        }
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Form::AggregatedDiscovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str, offered: &[Form]) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header value"));
        form(&headers, offered).ok()
    }

    #[test]
    fn kubectl_gets_a_table_where_there_is_one() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(accept, &[Form::Object, Form::Table]), Some(Form::Table));
        assert_eq!(negotiate(accept, &[Form::Object]), Some(Form::Object));
        assert_eq!(negotiate("application/json;as=Table;v=v1;g=meta.k8s.io", &[Form::Object]), None);
    }

    #[test]
    fn protobuf_is_passed_over() {
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json", &[Form::Object]),
            Some(Form::Object)
        );
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf", &[Form::Object]), None);
        assert_eq!(negotiate("*/*", &[Form::Object]), Some(Form::Object));
    }
}

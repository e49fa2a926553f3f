//! The options of reads, `resourceVersion` above all: at which state a get, a list or a watch looks.

use shoal_api::{FieldError, Status};
use shoal_store::Revision;

use crate::continue_token::ContinueToken;
use crate::handler::Call;
use crate::limits;
use crate::query::Query;

/// The state that a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Everything that was acknowledged before the request.
    Current,
    /// Whatever this server has.
    Any,
    /// This revision or a later one.
    NotOlder(u64),
    /// This revision and no other.
    Exact(u64),
    /// The next page of an earlier list.
    Continue(ContinueToken),
}

/// Reads `resourceVersion`; none when it is absent or empty.
///
/// # Errors
/// 400 when it is no decimal number.
pub(crate) fn revision(query: &Query) -> Result<Option<u64>, Status> {
    query
        .get("resourceVersion")
        .map(|text| {
            text.parse().map_err(|_| {
                Status::bad_request(format!(
                    "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })
        })
        .transpose()
}

/// Reads where a list looks. The combinations that are refused are those of Kubernetes' "resource versions" page.
pub(crate) fn list_at(query: &Query) -> Result<At, Status> {
    let revision = revision(query)?;
    let token = query.get("continue").map(ContinueToken::decode).transpose()?;
    let rule = query.get("resourceVersionMatch");
    if query.has("sendInitialEvents") {
        return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if let Some(token) = token {
        if rule.is_some() {
            return Err(forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue".to_owned(),
            ));
        }
        return Ok(At::Continue(token));
    }
    match (revision, rule) {
        (None, Some(_)) => Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (None, None) => Ok(At::Current),
        (Some(0), Some("Exact")) => Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some(0), None | Some("NotOlderThan")) => Ok(At::Any),
        (Some(revision), Some("Exact")) => Ok(At::Exact(revision)),
        (Some(revision), None | Some("NotOlderThan")) => Ok(At::NotOlder(revision)),
        (Some(_), Some(other)) => Err(unsupported(other)),
    }
}

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With every object that there is, then the changes; `announced` ends the first part with a bookmark.
    Initial { at: Option<u64>, announced: bool },
    /// With the changes after this revision.
    After(u64),
    /// With the changes after now.
    Now,
}

/// Reads how a watch begins.
pub(crate) fn watch_begin(query: &Query) -> Result<Begin, Status> {
    let revision = revision(query)?;
    let rule = query.get("resourceVersionMatch");
    if let Some(rule) = rule
        && !matches!(rule, "Exact" | "NotOlderThan")
    {
        return Err(unsupported(rule));
    }
    if query.has("sendInitialEvents") {
        if rule != Some("NotOlderThan") {
            return Err(forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        return Ok(match (query.flag("sendInitialEvents"), revision) {
            (true, at) => Begin::Initial { at, announced: query.flag("allowWatchBookmarks") },
            (false, None | Some(0)) => Begin::Now,
            (false, Some(revision)) => Begin::After(revision),
        });
    }
    if rule.is_some() {
        return Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    Ok(match revision {
        None | Some(0) => Begin::Initial { at: revision, announced: false },
        Some(revision) => Begin::After(revision),
    })
}

/// Waits until this server has at least `revision`.
///
/// # Errors
/// 504 with cause `ResourceVersionTooLarge` when it does not get there in time.
pub(crate) async fn wait_for(call: &Call, revision: u64) -> Result<(), Status> {
    if call.store().view().revision() >= Revision(revision) {
        return Ok(());
    }
    call.store().wait_for(Revision(revision), limits::NOT_OLDER_THAN).await.map_err(|_| {
        let current = call.store().view().revision();
        Status::resource_version_too_large(revision, current.0, limits::RETRY_AFTER_SECONDS)
    })
}

fn forbidden(field: &str, message: &str) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![FieldError::forbidden(field, message.to_owned())])
}

fn unsupported(value: &str) -> Status {
    let error = FieldError::not_supported("resourceVersionMatch", value, &["Exact", "NotOlderThan", ""]);
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(query: &str) -> Result<At, u16> {
        list_at(&Query::parse(Some(query))).map_err(|status| status.code)
    }

    fn begin(query: &str) -> Result<Begin, u16> {
        watch_begin(&Query::parse(Some(query))).map_err(|status| status.code)
    }

    #[test]
    fn a_list_looks_where_its_version_says() {
        assert_eq!(at(""), Ok(At::Current));
        assert_eq!(at("resourceVersion="), Ok(At::Current));
        assert_eq!(at("resourceVersion=0"), Ok(At::Any));
        assert_eq!(at("resourceVersion=7"), Ok(At::NotOlder(7)));
        assert_eq!(at("resourceVersion=7&resourceVersionMatch=Exact"), Ok(At::Exact(7)));
        assert_eq!(at("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersion=x"), Err(400));
    }

    #[test]
    fn initial_events_need_their_match_rule() {
        assert_eq!(begin("sendInitialEvents=true"), Err(422));
        assert_eq!(begin("resourceVersionMatch=NotOlderThan"), Err(422));
        assert_eq!(
            begin("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"),
            Ok(Begin::Initial { at: None, announced: true })
        );
        assert_eq!(begin("resourceVersion=5"), Ok(Begin::After(5)));
        assert_eq!(begin(""), Ok(Begin::Initial { at: None, announced: false }));
    }
}

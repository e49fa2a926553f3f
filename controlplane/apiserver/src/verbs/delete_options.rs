//! What a deletion may ask for, in its body or its query.

use http::HeaderMap;
use serde_json::Value;
use shoal_api::Status;
use shoal_api::decode::decode_body;

use crate::query::{self, Query};
use crate::{Body, decode};

const SCHEMA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// The options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads the options from the body, if there is one, else from the query.
    ///
    /// # Errors
    /// 400 or 415 for a body that is no `DeleteOptions`, 400 for unknown values.
    pub(crate) async fn read(query: &Query, headers: &HeaderMap, body: Body) -> Result<Self, Status> {
        let body = decode::read(body).await?;
        if body.is_empty() {
            return Self::from_query(query);
        }
        let decoded =
            decode_body(decode::media_type(headers), &body, Some(SCHEMA)).map_err(|error| error.to_status())?;
        let mut options = Self::from_value(&decoded.value)?;
        options.dry_run |= query::dry_run(query.all("dryRun"))?;
        Ok(options)
    }

    fn from_query(query: &Query) -> Result<Self, Status> {
        let orphan = query.has("orphanDependents").then(|| query.flag("orphanDependents"));
        Ok(Self {
            grace_seconds: query.number("gracePeriodSeconds")?,
            propagation: propagation(query.get("propagationPolicy"), orphan)?,
            dry_run: query::dry_run(query.all("dryRun"))?,
            ..Self::default()
        })
    }

    /// Reads a `DeleteOptions` object, as evictions carry it too.
    pub(crate) fn from_value(value: &Value) -> Result<Self, Status> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let dry_run = value.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            grace_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(
                text("/propagationPolicy"),
                value.get("orphanDependents").and_then(Value::as_bool),
            )?,
            uid: text("/preconditions/uid").map(str::to_owned),
            resource_version: text("/preconditions/resourceVersion").map(str::to_owned),
            dry_run: query::dry_run(dry_run)?,
        })
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphan) {
        (Some(_), Some(_)) => {
            Err(Status::bad_request("orphanDependents and propagationPolicy cannot be both set".to_owned()))
        }
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => Err(Status::bad_request(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
        ))),
        (None, None) => Ok(None),
    }
}

//! Answers: objects in the form that was asked for, lists, failures.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use shoal_api::resource::Resource;
use shoal_api::table::{self, IncludeObject};
use shoal_api::{Status, metadata};
use shoal_store::Revision;

use crate::negotiate::Form;
use crate::query::Query;
use crate::{Body, body, errors, events, stored};

/// The content type of every object that we send.
pub(crate) const JSON: &str = "application/json";

/// An answer of JSON text.
pub(crate) fn json_text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(code, JSON, text)
}

/// An answer of a given content type.
pub(crate) fn typed(code: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer of a value as JSON.
pub(crate) fn value(code: StatusCode, value: &Value) -> Response<Body> {
    json_text(code, value.to_string())
}

/// A failure as an answer.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_vec(status).unwrap_or_default();
    let mut response = json_text(code, text);
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds a `Warning` header for each text.
pub(crate) fn with_warnings(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
    response
}

/// How objects of one request are shown.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub resource: &'static Resource,
    pub form: Form,
    pub include: IncludeObject,
}

impl View {
    /// Reads `includeObject` beside the negotiated form.
    pub(crate) fn new(resource: &'static Resource, form: Form, query: &Query) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => IncludeObject::Metadata,
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            Some(other) => return Err(Status::bad_request(format!("includeObject: Unsupported value: {other:?}"))),
        };
        Ok(Self { resource, form, include })
    }

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn copies_bytes(&self) -> bool {
        self.form == Form::Object && !events::is_other_spelling(self.resource.group)
    }

    /// The text of a stored object.
    pub(crate) fn stored(&self, bytes: &[u8], revision: Revision) -> Result<Bytes, Status> {
        if self.copies_bytes() {
            return stored::text(bytes, revision).map_err(|error| errors::corrupt(&error));
        }
        let object = stored::decode(bytes, revision).map_err(|error| errors::corrupt(&error))?;
        Ok(self.object(object).to_string().into())
    }

    /// An object in the stored spelling, in the form that is asked for.
    pub(crate) fn object(&self, mut object: Value) -> Value {
        self.respell(&mut object);
        match self.form {
            Form::Table => self.table(&[&object], metadata::resource_version(&object).unwrap_or_default()),
            Form::Metadata => table::partial_object_metadata(&object),
            Form::Object | Form::AggregatedDiscovery => object,
        }
    }

    /// The spelling of this resource's group, for a stored object.
    pub(crate) fn respell(&self, object: &mut Value) {
        if events::is_other_spelling(self.resource.group) {
            events::serve(object);
        }
    }

    /// A `Table` of these objects.
    pub(crate) fn table(&self, objects: &[&Value], resource_version: &str) -> Value {
        let mut table = table::table(self.resource, objects, self.include, Timestamp::now());
        table["metadata"] = json!({"resourceVersion": resource_version});
        table
    }
}

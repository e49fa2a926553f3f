//! `pods/eviction`: a deletion that disruption budgets may refuse; there are none yet, so it is a deletion.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shoal_api::Status;

use crate::handler::Call;
use crate::query::WriteOptions;
use crate::verbs::delete;
use crate::verbs::delete_options::DeleteOptions;
use crate::{Body, decode, respond};

/// Evicts the pod.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let write = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let kind = ("policy", "v1", "Eviction");
    let (eviction, _) =
        decode::object(&call.headers, &body, Some("io.k8s.api.policy.v1.Eviction"), kind, write.field_validation)?;
    let mut options = DeleteOptions::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    options.dry_run |= write.dry_run;
    delete::delete(call, call.name()?, &options).await?;
    Ok(respond::value(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

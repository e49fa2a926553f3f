//! `pods/binding`: the scheduler's word that a pod runs on a node. Once said it stands.

use http::{Response, StatusCode};
use serde_json::json;
use shoal_api::{Status, metadata, subresource};

use crate::handler::Call;
use crate::query::WriteOptions;
use crate::verbs::update::{self, Change, Part};
use crate::{Body, decode, object, respond};

/// Binds the pod to the node that the body names.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query)?;
    let body = decode::read(body).await?;
    let kind = ("", "v1", "Binding");
    let (binding, _) =
        decode::object(&call.headers, &body, Some("io.k8s.api.core.v1.Binding"), kind, options.field_validation)?;
    let name = call.name()?;
    update::change(call, name, Change::of(Part::Binding, options.dry_run), |pod| {
        if let Some(uid) = metadata::uid(&binding).filter(|uid| !uid.is_empty() && metadata::uid(pod) != Some(*uid)) {
            let found = metadata::uid(pod).unwrap_or_default();
            return Err(Status::conflict(
                "",
                "pods",
                name,
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"),
            ));
        }
        let mut pod = pod.clone();
        subresource::bind(&mut pod, &binding, &object::now())?;
        Ok(pod)
    })
    .await?;
    Ok(respond::value(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

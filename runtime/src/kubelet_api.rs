//! What a server asks of a node over the node's own connection: logs, pods, health.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_link::http::Body;
use shoal_link::{Connection, StreamKind};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::context::Context;
use crate::exec;
use crate::limits::KUBELET_STREAMS;
use crate::logs::read::{LogOptions, LogReader, percent_decode};
use crate::metrics;
use crate::persistent::{self, NotRemoved};
use crate::pod::spec;
use crate::pod_proxy;
use crate::pods::Pods;

/// Serves the streams that the server opens until the connection is lost.
pub async fn serve(context: Arc<Context>, pods: Arc<Pods>, connection: Connection) {
    let permits = Arc::new(Semaphore::new(KUBELET_STREAMS));
    while let Ok((kind, stream)) = connection.accept().await {
        if kind != StreamKind::HTTP {
            continue;
        }
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (context, pods) = (Arc::clone(&context), Arc::clone(&pods));
        shoal_link::tasks::spawn_connection("kubelet request", async move {
            let _permit = permit;
            shoal_link::http::serve(stream, move |request| {
                answer_server(Arc::clone(&context), Arc::clone(&pods), request)
            })
            .await;
        });
    }
}

/// Answers a server, which may also open streams to what runs and have volumes removed.
async fn answer_server(context: Arc<Context>, pods: Arc<Pods>, request: Request<Body>) -> Response<Body> {
    let parts: Vec<String> = request.uri().path().split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if let (&Method::DELETE, ["volumes", name]) = (request.method(), parts.as_slice()) {
        return remove_volume(&context, name).await;
    }
    if let ["proxy", ..] = parts.as_slice() {
        return pod_proxy::answer(&context, &pods, request).await;
    }
    let ["exec" | "attach" | "portForward", namespace, name, ..] = parts.as_slice() else {
        return answer(context, pods, request).await;
    };
    if request.method() != Method::POST {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only POST is answered here");
    }
    let Some(pod) = pods.find(namespace, name) else { return no_pod(name) };
    let answered = streams(&context, &pod, parts.as_slice(), request).await;
    answered.unwrap_or_else(|(status, reason, message)| failure(status, reason, &message))
}

/// Answers a request that only reads, whoever makes it.
pub async fn answer(context: Arc<Context>, pods: Arc<Pods>, request: Request<Body>) -> Response<Body> {
    if request.method() != Method::GET {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET is answered here");
    }
    let parts: Vec<String> = request.uri().path().split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["healthz"] => shoal_network::text_response(StatusCode::OK, "ok"),
        ["pods"] => {
            let items: Vec<Pod> = pods.list().iter().map(|pod| Pod::clone(pod)).collect();
            json_answer(StatusCode::OK, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        }
        ["stats", "summary"] => {
            json_answer(StatusCode::OK, &context.usages.summary(&context.config.node_name, &pods.list()))
        }
        ["metrics"] => {
            let mut response = shoal_network::text_response(
                StatusCode::OK,
                context.metrics.text(&pods.views(), context.guests.stats()),
            );
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        ["metrics", "resource"] => {
            let mut response = shoal_network::text_response(StatusCode::OK, context.usages.metrics(&pods.list()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
            response
        }
        ["containerLogs", namespace, name, container] => {
            let Some(pod) = pods.find(namespace, name) else { return no_pod(name) };
            match logs(&context, &pod, container, request.uri().query().unwrap_or_default()).await {
                Ok(response) => response,
                Err((status, reason, message)) => failure(status, reason, &message),
            }
        }
        _ => failure(StatusCode::NOT_FOUND, "NotFound", "no such path on a node"),
    }
}

/// Why a request is not answered: the code, the reason and the message of a `metav1.Status`.
pub type Refusal = (StatusCode, &'static str, String);

pub(crate) fn no_pod(name: &str) -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "NotFound", &format!("pod {name:?} is not on this node"))
}

/// What goes both ways as long as it lasts: the request's body in, the answer's body out.
async fn streams(
    context: &Arc<Context>,
    pod: &Pod,
    path: &[&str],
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body();
    match path {
        ["exec", _, _, container] => exec::exec(context, pod, container, &query, body).await,
        ["attach", _, _, container] => exec::attach(context, pod, container, &query, body),
        ["portForward", _, _] => exec::port_forward(context, pod, &query, body).await,
        _ => Err((StatusCode::NOT_FOUND, "NotFound", "no such path on a node".to_owned())),
    }
}

/// Removes the directory of a volume that no pod here has any more.
async fn remove_volume(context: &Context, name: &str) -> Response<Body> {
    let (volumes, kept) = (context.config.data_dir.join("volumes"), context.config.kept_volumes());
    let (asked, name) = (name.to_owned(), name);
    let removed = tokio::task::spawn_blocking(move || persistent::remove(&volumes, &kept, &asked)).await;
    match removed.unwrap_or_else(|error| Err(NotRemoved::Failed(error.to_string()))) {
        Ok(()) => json_answer(
            StatusCode::OK,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        ),
        Err(NotRemoved::NoName) => {
            failure(StatusCode::BAD_REQUEST, "BadRequest", &format!("{name:?} is not the name of a volume"))
        }
        Err(NotRemoved::InUse) => {
            failure(StatusCode::CONFLICT, "Conflict", &format!("volume {name:?} is in use by a pod on this node"))
        }
        Err(NotRemoved::Failed(error)) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            &format!("removing the directory of volume {name:?}: {error}"),
        ),
    }
}

async fn logs(context: &Context, pod: &Pod, container: &str, query: &str) -> Result<Response<Body>, Refusal> {
    let bad = |message| (StatusCode::BAD_REQUEST, "BadRequest", message);
    let options = LogOptions::parse(query, Timestamp::now()).map_err(bad)?;
    let name = spec::name(pod);
    if spec::container(pod, container).is_none() {
        return Err(bad(format!("container {container} is not valid for pod {name}")));
    }
    let status = pod
        .status
        .iter()
        .flat_map(|s| {
            let lists = s.container_statuses.iter().chain(&s.init_container_statuses);
            lists.chain(&s.ephemeral_container_statuses).flatten()
        })
        .find(|s| s.name == container);
    let restarts = status.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0));
    let directory = context.log_directory(spec::uid(pod), container);
    let waiting = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    // A container that waits to be started again shows the run that ended.
    let run = if options.previous {
        let is_between = waiting.is_some() && !directory.files(restarts).is_empty();
        if is_between { Some(restarts) } else { restarts.checked_sub(1) }
    } else {
        Some(restarts)
    };
    let run = run.filter(|run| !directory.files(*run).is_empty());
    let Some(run) = run else {
        return Err(bad(match waiting {
            _ if options.previous => format!("previous terminated container {container:?} in pod {name:?} not found"),
            Some(reason) => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
            None => format!("container {container:?} in pod {name:?} is not available"),
        }));
    };
    let follow = options.follow && !options.previous;
    let reader = LogReader::new(directory.files(run), directory.file(run), options);
    let reader = reader.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string()))?;
    let open = context
        .open_logs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&(spec::uid(pod).to_owned(), container.to_owned()))
        .cloned();
    let progress = open.filter(|_| follow).map(|log| log.progress());
    let mut response = Response::new(stream(reader, progress));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The log as a body: what there is, then, while `progress` lives, what is added.
fn stream(reader: LogReader, progress: Option<watch::Receiver<crate::logs::LogProgress>>) -> Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(2);
    shoal_link::tasks::spawn_connection("log stream", send_log(reader, progress, sender));
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    BodyExt::boxed(StreamBody::new(frames.map(|chunk| chunk.map(Frame::data).map_err(Into::into))))
}

async fn send_log(
    mut reader: LogReader,
    mut progress: Option<watch::Receiver<crate::logs::LogProgress>>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
) {
    loop {
        let is_closed = progress.as_mut().is_none_or(|p| p.borrow_and_update().is_closed);
        let read = tokio::task::spawn_blocking(move || (reader.next_chunk(), reader)).await;
        let Ok((chunk, returned)) = read else { return };
        reader = returned;
        match chunk {
            Ok(Some(chunk)) if !chunk.is_empty() => {
                if sender.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
            Ok(Some(_)) if !is_closed => {
                let Some(progress) = progress.as_mut() else { return };
                tokio::select! {
                    changed = progress.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
            Ok(_) => return,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    }
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A `metav1.Status`, as the API hands it on to the client.
pub(crate) fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": status.as_u16()});
    json_answer(status, &value)
}

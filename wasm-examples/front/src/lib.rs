//! Calls another function by its Service's name and passes the answer on: `GET /x` asks `http://back/x`.
//!
//! Whom to ask is in BACK_URL (default `back`): a Service's short name, its full name under svc.cluster.local, or any other host, which
//! the pod's annotation must allow. `https://` before it makes the request an encrypted one.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};

struct Front;

wasip2::http::proxy::export!(Front);

impl wasip2::exports::http::incoming_handler::Guest for Front {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let authority = std::env::var("BACK_URL").unwrap_or_else(|_| "back".to_string());
        let path = request.path_with_query().unwrap_or_else(|| "/".to_string());
        match ask(&authority, &path) {
            Ok((status, answer)) => respond(outparam, status, &format!("front asked {authority}: {answer}")),
            Err(why) => respond(outparam, 502, &format!("front could not reach {authority}: {why}\n")),
        }
    }
}

/// One GET; the status and the whole body as text.
fn ask(authority: &str, path: &str) -> Result<(u16, String), String> {
    let request = OutgoingRequest::new(Fields::new());
    let (scheme, authority) = match authority.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((_, rest)) => (Scheme::Http, rest),
        None => (Scheme::Http, authority),
    };
    request.set_scheme(Some(&scheme)).map_err(|()| "the scheme was refused")?;
    request.set_authority(Some(authority)).map_err(|()| format!("{authority:?} is no authority"))?;
    request.set_path_with_query(Some(path)).map_err(|()| format!("{path:?} is no path"))?;
    let response = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;
    response.subscribe().block();
    let response = response
        .get()
        .expect("the response is ready once its pollable is")
        .expect("the response is taken once")
        .map_err(|error| error.to_string())?;
    let body = response.consume().map_err(|()| "the body was taken before")?;
    let mut answer = Vec::new();
    let stream = body.stream().map_err(|()| "the stream was taken before")?;
    while let Ok(chunk) = stream.blocking_read(64 * 1024) {
        answer.extend_from_slice(&chunk);
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    Ok((response.status(), String::from_utf8_lossy(&answer).into_owned()))
}

fn respond(outparam: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status that came over HTTP is valid");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(outparam, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    // One call takes 4 KiB at most. The caller may have gone away: nothing is left to do then.
    for chunk in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

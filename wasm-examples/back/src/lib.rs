//! The second half of a pair: answers the front function with the path it was asked for, in capitals, and its own pod's name.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Back;

wasip2::http::proxy::export!(Back);

impl wasip2::exports::http::incoming_handler::Guest for Back {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".to_string());
        let pod = std::env::var("POD_NAME").unwrap_or_else(|_| "back".to_string());
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(outparam, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        // The caller may have gone away: nothing is left to do then.
        let _ = stream.blocking_write_and_flush(format!("{} says {pod}\n", path.to_uppercase()).as_bytes());
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

//! A function that talks by TCP: `GET /x` says `x` to ECHO (default `echo:7`, a Service's name and port) and passes on what
//! it hears.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Teller;

wasip2::http::proxy::export!(Teller);

impl wasip2::exports::http::incoming_handler::Guest for Teller {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let echo = std::env::var("ECHO").unwrap_or_else(|_| "echo:7".to_string());
        let path = request.path_with_query().unwrap_or_default();
        match tell(&echo, path.trim_start_matches('/')) {
            Ok(heard) => respond(outparam, 200, &format!("teller heard: {heard}\n")),
            Err(error) => respond(outparam, 502, &format!("teller could not talk to {echo}: {error}\n")),
        }
    }
}

fn tell(echo: &str, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(echo)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

fn respond(outparam: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a plain status is valid");
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

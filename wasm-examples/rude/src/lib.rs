//! A function that misbehaves on purpose, as the path says, so that one can watch the node stay as it is while the neighbours answer.
//!
//! `/flood?N` answers with N bytes, or without end; `/deaf` answers and never reads what it is sent; `/sleep` neither reads nor
//! answers; `/fork?N` sends N requests to CROWD (default `http://rude/sleep`) before it listens to any answer. `/echo` is the exception: it
//! gives back what it is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::OutputStream;

struct Rude;

wasip2::http::proxy::export!(Rude);

/// The most that is written at once, in bytes.
const PIECE: usize = 64 * 1024;

impl wasip2::exports::http::incoming_handler::Guest for Rude {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, number) = target.split_once('?').unwrap_or((&target, ""));
        let number = number.parse::<u64>().ok();
        match path {
            "/flood" => answer(outparam, |stream| flood(stream, number.unwrap_or(u64::MAX))),
            "/deaf" => answer(outparam, |stream| say(stream, "it was not read\n")),
            "/sleep" => sleep(),
            "/echo" => answer(outparam, |stream| echo(&request, stream)),
            "/fork" => {
                let told = fork(number.unwrap_or(1_000));
                answer(outparam, |stream| say(stream, &told));
            }
            _ => answer(outparam, |stream| say(stream, "say /flood, /deaf, /sleep, /fork or /echo\n")),
        }
        // Until here the request is held, and what belongs to it.
        drop(request);
    }
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}

/// Sends `count` requests, then waits for their answers; a line for each kind of answer with how often it came.
fn fork(count: u64) -> String {
    let crowd = std::env::var("CROWD").unwrap_or_else(|_| "http://rude/sleep".to_string());
    let sent: Vec<Result<FutureIncomingResponse, String>> = (0..count).map(|_| send(&crowd)).collect();
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for request in sent {
        let outcome = request.and_then(|response| status(&response)).unwrap_or_else(|error| error);
        *outcomes.entry(outcome).or_default() += 1;
    }
    outcomes.iter().map(|(outcome, count)| format!("{count} times {outcome}\n")).collect()
}

fn send(url: &str) -> Result<FutureIncomingResponse, String> {
    let rest = url.strip_prefix("http://").ok_or("CROWD must begin with http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).map_err(|()| "the scheme was refused")?;
    request.set_authority(Some(authority)).map_err(|()| format!("{authority:?} is no authority"))?;
    request.set_path_with_query(Some(&format!("/{path}"))).map_err(|()| format!("{path:?} is no path"))?;
    outgoing_handler::handle(request, None).map_err(|error| error.to_string())
}

fn status(response: &FutureIncomingResponse) -> Result<String, String> {
    response.subscribe().block();
    let response = response.get().expect("the response is ready once its pollable is");
    let response = response.expect("the response is taken once").map_err(|error| error.to_string())?;
    Ok(response.status().to_string())
}

fn flood(stream: &OutputStream, count: u64) {
    let ready = stream.subscribe();
    let piece = vec![b'x'; PIECE];
    let mut left = count;
    while left > 0 {
        // Whoever listened may have gone away: nothing is left to do then.
        let Ok(room) = stream.check_write() else { return };
        if room == 0 {
            ready.block();
            continue;
        }
        let length = room.min(left).min(PIECE as u64);
        if stream.write(&piece[..length as usize]).is_err() {
            return;
        }
        left -= length;
    }
}

fn echo(request: &IncomingRequest, stream: &OutputStream) {
    let body = request.consume().expect("the body is taken once");
    let input = body.stream().expect("the stream is taken once");
    let ready = stream.subscribe();
    // Its end, or that the caller has gone, is an error of the stream.
    while let Ok(piece) = input.blocking_read(PIECE as u64) {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let Ok(room) = stream.check_write() else { return };
            if room == 0 {
                ready.block();
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(PIECE)));
            if stream.write(now).is_err() {
                return;
            }
            rest = later;
        }
    }
}

fn say(stream: &OutputStream, text: &str) {
    // One call takes 4 KiB at most.
    for piece in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            return;
        }
    }
}

fn answer(outparam: ResponseOutparam, write: impl FnOnce(&OutputStream)) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(outparam, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    write(&stream);
    // What was written is on its way when this returns, or nobody wants it.
    let _ = stream.blocking_flush();
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

//! A process that runs until it is stopped: prints a line a period, counting, and reads its settings anew each time.
//!
//! PERIOD_MS is the time between two lines (default 1000). A file named by MESSAGE_FILE, usually from a ConfigMap, is what
//! it prints; without one, it prints the value of MESSAGE. With PORT it also serves: whoever asks there by HTTP gets the last line.
//! When it is asked to stop it says how far it got, and ends with 0.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::{Pollable, poll};

use crate::shoal::guest::lifecycle::stop_requested;

wit_bindgen::generate!({
    path: "../../runtime/engine/wit",
    world: "shoal:guest/process",
    with: { "wasi:io/poll@0.2.12": wasip2::io::poll },
});

/// How often it looks whether somebody asks.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    let period = Duration::from_millis(number("PERIOD_MS").unwrap_or(1000));
    let arguments: Vec<String> = std::env::args().collect();
    println!("ticker started as {arguments:?}");
    let listener = number("PORT").and_then(|port| match listen(port) {
        Ok(listener) => Some(listener),
        Err(error) => {
            eprintln!("ticker: port {port}: {error}");
            None
        }
    });
    let stop = stop_requested();
    for count in 1u64.. {
        let line = format!("{count} {}", message());
        println!("{line}");
        let until = Instant::now() + period;
        match &listener {
            None => rest(period, &stop),
            Some(listener) => serve(listener, &line, until, &stop),
        }
        if stop.ready() {
            println!("ticker stops after {count} lines");
            return;
        }
    }
}

/// Waits for so long, or until it is asked to stop.
fn rest(time: Duration, stop: &Pollable) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    poll(&[stop, &subscribe_duration(nanoseconds)]);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn message() -> String {
    let from_file = std::env::var("MESSAGE_FILE").ok().and_then(|path| match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim_end().to_string()),
        Err(error) => {
            eprintln!("ticker: {path}: {error}");
            None
        }
    });
    from_file.or_else(|| std::env::var("MESSAGE").ok()).unwrap_or_else(|| "tick".to_string())
}

fn listen(port: u64) -> io::Result<TcpListener> {
    let port = u16::try_from(port).map_err(io::Error::other)?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    listener.set_nonblocking(true)?;
    println!("ticker listens at {}", listener.local_addr()?);
    Ok(listener)
}

/// Answers with `line` until it is time for the next, or to stop.
fn serve(listener: &TcpListener, line: &str, until: Instant, stop: &Pollable) {
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match listener.accept() {
            // A caller that goes away early has only itself to blame.
            Ok((stream, _)) => drop(answer(stream, line)),
            Err(_) if stop.ready() => return,
            Err(_) => rest(left.min(LOOK), stop),
        }
    }
}

fn answer(mut stream: TcpStream, line: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 16 * 1024 {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&chunk[..read]),
        }
    }
    let length = line.len() + 1;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{line}\n"
    )
}

//! A process with sockets. `echo serve PORT` greets who connects, sends back what it gets until that ends, and sends back
//! datagrams too. `echo ask HOST:PORT TEXT` sends a text by TCP, ends its side, and prints all that comes back;
//! `echo ask-udp HOST:PORT TEXT` does so with one datagram. `echo resolve NAME` prints a name's addresses.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

/// How long to rest when there is nothing to do.
const REST: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => serve(port),
        ["ask", to, text] => ask(to, text),
        ["ask-udp", to, text] => ask_udp(to, text),
        ["resolve", name] => resolve(name),
        _ => {
            Err(io::Error::other("usage: echo serve PORT | ask HOST:PORT TEXT | ask-udp HOST:PORT TEXT | resolve NAME"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One who is connected, and what he has yet to get.
struct Caller {
    stream: TcpStream,
    owed: Vec<u8>,
    has_ended: bool,
}

fn serve(port: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    listener.set_nonblocking(true)?;
    let datagrams = UdpSocket::bind(("0.0.0.0", port))?;
    datagrams.set_nonblocking(true)?;
    println!("echo listens at {}", listener.local_addr()?);
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| "nobody".to_string());
    let greeting = format!("echo of {name}\n");
    let mut callers: Vec<Caller> = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let mut is_idle = true;
        if let Ok((stream, from)) = listener.accept() {
            println!("connected from {from}");
            stream.set_nonblocking(true)?;
            callers.push(Caller { stream, owed: greeting.clone().into_bytes(), has_ended: false });
            is_idle = false;
        }
        if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            // Whoever cannot be answered has gone.
            let _ = datagrams.send_to(&buffer[..length], from);
            is_idle = false;
        }
        callers.retain_mut(|caller| match caller.step(&mut buffer) {
            Ok(has_moved) => {
                is_idle &= !has_moved;
                !caller.has_ended || !caller.owed.is_empty()
            }
            Err(_) => false,
        });
        if is_idle {
            std::thread::sleep(REST);
        }
    }
}

impl Caller {
    /// Reads and writes what can be without waiting; whether anything could.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut has_moved = false;
        if !self.has_ended && self.owed.len() < 1 << 20 {
            match self.stream.read(buffer) {
                Ok(0) => self.has_ended = true,
                Ok(length) => self.owed.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            has_moved |= self.has_ended || !self.owed.is_empty();
        }
        if !self.owed.is_empty() {
            match self.stream.write(&self.owed) {
                Ok(length) => {
                    self.owed.drain(..length);
                    has_moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => has_moved = false,
                Err(error) => return Err(error),
            }
        }
        Ok(has_moved)
    }
}

fn ask(to: &str, text: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    println!("connected to {} from {}", stream.peer_addr()?, stream.local_addr()?);
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}

fn ask_udp(to: &str, text: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let mut answer = vec![0; 65_536];
    // Datagrams may be lost: ask until somebody answers.
    for _ in 0..100 {
        socket.send(text.as_bytes())?;
        socket.set_nonblocking(true)?;
        for _ in 0..50 {
            match socket.recv(&mut answer) {
                Ok(length) => {
                    println!("{} answered {}", socket.peer_addr()?, String::from_utf8_lossy(&answer[..length]));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(REST),
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::other(format!("{to} does not answer")))
}

fn resolve(name: &str) -> io::Result<()> {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}

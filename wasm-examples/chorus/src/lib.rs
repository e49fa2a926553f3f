//! A process of WASI 0.3 with sockets, all of whose callers are heard at once. `chorus serve PORT` greets who connects, sends back
//! what it gets until that ends, and sends back datagrams too. `chorus ask HOST:PORT TEXT` sends a text by TCP, ends its side, and
//! prints all that comes back; `chorus ask-udp HOST:PORT TEXT` does so with one datagram. `chorus resolve NAME` prints a name's
//! addresses.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;

use wasip3::cli::environment;
use wasip3::clocks::monotonic_clock;
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::wit_bindgen::StreamResult;
use wasip3::{spawn_local, wit_stream};

wasip3::cli::command::export!(Chorus);

struct Chorus;

/// The most that is read at once, in bytes.
const PIECE: usize = 16 * 1024;
/// How often a datagram is sent before nobody is expected to answer, and how long an answer may take.
const ATTEMPTS: usize = 100;
const PATIENCE_NANOSECONDS: u64 = 100_000_000;

impl wasip3::exports::cli::run::Guest for Chorus {
    async fn run() -> Result<(), ()> {
        let arguments: Vec<String> = environment::get_arguments().into_iter().skip(1).collect();
        let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["serve", port] => serve(port).await,
            ["ask", to, text] => ask(to, text).await,
            ["ask-udp", to, text] => ask_udp(to, text).await,
            ["resolve", name] => print_addresses(name).await,
            _ => Err("usage: chorus serve PORT | ask HOST:PORT TEXT | ask-udp HOST:PORT TEXT | resolve NAME".into()),
        };
        outcome.map_err(|error| eprintln!("chorus: {error}"))
    }
}

/// Whatever a person should read.
type Failure = Box<dyn std::error::Error>;

async fn serve(port: &str) -> Result<(), Failure> {
    let here = at(IpAddress::Ipv4((0, 0, 0, 0)), port.parse()?);
    let listener = TcpSocket::create(IpAddressFamily::Ipv4)?;
    listener.bind(here)?;
    let mut callers = listener.listen()?;
    let datagrams = UdpSocket::create(IpAddressFamily::Ipv4)?;
    datagrams.bind(here)?;
    spawn_local(repeat_datagrams(datagrams));
    println!("chorus listens at {}", written(listener.get_local_address()?));
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| "nobody".to_string());
    while let Some(caller) = callers.next().await {
        if let Ok(from) = caller.get_remote_address() {
            println!("connected from {}", written(from));
        }
        spawn_local(repeat(caller, format!("chorus of {name}\n")));
    }
    Err("nobody can connect any more".into())
}

async fn repeat(caller: TcpSocket, greeting: String) {
    let (mut heard, _) = caller.receive();
    let (mut said, stream) = wit_stream::new();
    let sending = caller.send(stream);
    let mut bytes = greeting.into_bytes();
    loop {
        // Whoever does not listen any more is left alone.
        if !bytes.is_empty() && !said.write_all(bytes).await.is_empty() {
            break;
        }
        let (result, read) = heard.read(Vec::with_capacity(PIECE)).await;
        if read.is_empty() && result == StreamResult::Dropped {
            break;
        }
        bytes = read;
    }
    drop(said);
    let _ = sending.await;
}

async fn repeat_datagrams(socket: UdpSocket) {
    while let Ok((bytes, from)) = socket.receive().await {
        // Whoever cannot be answered has gone.
        let _ = socket.send(bytes, Some(from)).await;
    }
}

async fn ask(to: &str, text: &str) -> Result<(), Failure> {
    let (socket, remote) = (TcpSocket::create(IpAddressFamily::Ipv4)?, find(to).await?);
    socket.connect(remote).await?;
    println!("connected to {} from {}", written(socket.get_remote_address()?), written(socket.get_local_address()?));
    let (mut said, stream) = wit_stream::new();
    let sending = socket.send(stream);
    said.write_all(text.as_bytes().to_vec()).await;
    drop(said);
    sending.await?;
    let (heard, outcome) = socket.receive();
    let heard = heard.collect().await;
    outcome.await?;
    println!("{}", String::from_utf8_lossy(&heard));
    Ok(())
}

async fn ask_udp(to: &str, text: &str) -> Result<(), Failure> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4)?;
    socket.connect(find(to).await?)?;
    // Datagrams may be lost: ask until somebody answers.
    for _ in 0..ATTEMPTS {
        socket.send(text.as_bytes().to_vec(), None).await?;
        if let Some(answer) = in_time(socket.receive()).await {
            let (bytes, from) = answer?;
            println!("{} answered {}", written(from), String::from_utf8_lossy(&bytes));
            return Ok(());
        }
    }
    Err(format!("{to} does not answer").into())
}

async fn print_addresses(name: &str) -> Result<(), Failure> {
    for address in resolve_addresses(name.to_string()).await? {
        println!("{}", plain(address));
    }
    Ok(())
}

/// The first address of a name, with its port.
async fn find(to: &str) -> Result<IpSocketAddress, Failure> {
    let (host, port) = to.rsplit_once(':').ok_or("say HOST:PORT")?;
    let addresses = resolve_addresses(host.to_string()).await?;
    Ok(at(*addresses.first().ok_or("it has no address")?, port.parse()?))
}

/// What comes of a wait, if it does not take too long.
async fn in_time<T>(wait: impl Future<Output = T>) -> Option<T> {
    let (mut wait, mut patience) = (pin!(wait), pin!(monotonic_clock::wait_for(PATIENCE_NANOSECONDS)));
    poll_fn(|context| match wait.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => patience.as_mut().poll(context).map(|()| None),
    })
    .await
}

fn at(address: IpAddress, port: u16) -> IpSocketAddress {
    match address {
        IpAddress::Ipv4(address) => IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }),
        IpAddress::Ipv6(address) => {
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
        }
    }
}

fn plain(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

fn written(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(v4) => format!("{}:{}", plain(IpAddress::Ipv4(v4.address)), v4.port),
        IpSocketAddress::Ipv6(v6) => format!("[{}]:{}", plain(IpAddress::Ipv6(v6.address)), v6.port),
    }
}

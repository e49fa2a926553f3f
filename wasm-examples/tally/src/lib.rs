//! A function of WASI 0.3 that counts the requests of its instance, so that it shows whether instances are reused.
//!
//! `GET /` says which request of its instance it was, and how many were in it at once. `/wait/MILLISECONDS` says so after a while,
//! `/hold` says so and never ends, `/spin` computes for ever, and `/trap` takes the instance with it. `/ask/HOST:PORT` is what TCP says
//! there, and `/listen` what listening gives.

use std::cell::Cell;

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket};
use wasip3::wit_bindgen::StreamWriter;
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Tally);

struct Tally;

thread_local! {
    static REQUESTS: Cell<u32> = const { Cell::new(0) };
    static AT_ONCE: Cell<u32> = const { Cell::new(0) };
}

impl wasip3::exports::http::handler::Guest for Tally {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let number = REQUESTS.get() + 1;
        REQUESTS.set(number);
        AT_ONCE.set(AT_ONCE.get() + 1);
        let path = request.get_path_with_query().unwrap_or_default();
        if let Some(milliseconds) = path.strip_prefix("/wait/").and_then(|number| number.parse::<u64>().ok()) {
            monotonic_clock::wait_for(milliseconds * 1_000_000).await;
        }
        if path == "/trap" {
            std::process::abort();
        }
        while path == "/spin" {
            std::hint::black_box(&path);
        }
        let said = if let Some(to) = path.strip_prefix("/ask/") {
            ask(to).await.unwrap_or_else(|error| format!("failed: {error}\n"))
        } else if path == "/listen" {
            format!("{:?}\n", listen())
        } else {
            format!("request {number} of this instance, {} at once\n", AT_ONCE.get())
        };
        let (mut body, stream) = wit_stream::new();
        let (no_trailers, trailers) = wit_future::new(|| Ok(None));
        let (response, _) = Response::new(Fields::new(), Some(stream), trailers);
        spawn_local(async move {
            body.write_all(said.into_bytes()).await;
            if path == "/hold" {
                hold(body).await;
            }
            AT_ONCE.set(AT_ONCE.get() - 1);
            let _ = no_trailers.write(Ok(None)).await;
        });
        Ok(response)
    }
}

/// Keeps a body open.
async fn hold(_body: StreamWriter<u8>) {
    loop {
        monotonic_clock::wait_for(1_000_000_000).await;
    }
}

/// Whatever a person should read.
type Failure = Box<dyn std::error::Error>;

async fn ask(to: &str) -> Result<String, Failure> {
    let (host, port) = to.rsplit_once(':').ok_or("say HOST:PORT")?;
    let port = port.parse()?;
    let addresses = resolve_addresses(host.to_string()).await?;
    let [IpAddress::Ipv4(address), ..] = addresses[..] else { return Err("it has no address of IPv4".into()) };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.connect(IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })).await?;
    let (said, stream) = wit_stream::new();
    drop(said);
    socket.send(stream).await?;
    Ok(String::from_utf8_lossy(&socket.receive().0.collect().await).into_owned())
}

fn listen() -> Result<(), Failure> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.listen()?;
    Ok(())
}

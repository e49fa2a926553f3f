//! One server of the benchmark: a store over the real link, and a port on which it is asked in frames.
//!
//! A frame is its length (u32, little endian) and its content; the first byte says what is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use shoal_link::{Accepted, Connection, Endpoint, Identity, IdentitySource, Pool, SERVERS, StreamKind};
use shoal_store::seal::Keyring;
use shoal_store::{Config, Folder, Member, PeerIo, PeerStream, Peers, Revision, Store, Threads, Transaction, Work};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The first argument of a process that is a server.
pub const WORD: &str = "serve-one";

pub const PUT: u8 = 1;
pub const READ: u8 = 2;
pub const READ_LOCAL: u8 = 3;
pub const LEADS: u8 = 4;
pub const ADD: u8 = 5;

/// Serves until it is killed: number, link port, port, folder.
pub fn main(arguments: &[String]) -> ExitCode {
    shoal_link::install_crypto();
    // As in a server, though nobody reads it: without a subscriber whatever is traced goes on to the `log` crate.
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()).expect("the first");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(serve(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

struct Links {
    pool: Arc<Pool>,
}

impl Peers for Links {
    fn open(&self, to: &Member, kind: PeerStream) -> BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>> {
        let (pool, address) = (self.pool.clone(), to.link_address.clone());
        Box::pin(async move {
            let opened = async {
                let connection = pool.get(&address).await.map_err(std::io::Error::other)?;
                let kind = StreamKind(StreamKind::STORE_FIRST.0 + kind as u8);
                let stream = connection.open(kind).await.map_err(std::io::Error::other)?;
                Ok(Box::new(stream) as Box<dyn PeerIo>)
            };
            let late = || std::io::ErrorKind::TimedOut.into();
            tokio::time::timeout(Duration::from_millis(500), opened).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

async fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [number, link_port, port, folder] = arguments else { anyhow::bail!("number, link port, port, folder") };
    let (number, folder): (u64, &Path) = (number.parse()?, Path::new(folder));
    let address = |port: &String| anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], port.parse()?)));
    let source = IdentitySource::new(Identity::load(folder, &format!("server-{number}"))?);
    let threads = Arc::new(Threads::start()?);
    let endpoint = Endpoint::bind_on(threads.handle(), address(link_port)?, &source)?;
    let pool = Arc::new(Pool::new(endpoint.clone()).only(SERVERS));
    let member = Member {
        id: number,
        name: format!("server-{number}"),
        link_address: address(link_port)?.to_string(),
        api_address: String::new(),
    };
    let keys = Keyring::parse(&std::fs::read_to_string(folder.join("keys"))?)?;
    let disk = Arc::new(Folder::open(&folder.join(format!("data-{number}")))?);
    let config = Config { work: Work::On(threads), ..Config::new(disk, keys, member) };
    let store = Store::open(config, Arc::new(Links { pool })).await?;
    if number == 1 {
        store.initialize().await?;
    }
    let serving = store.clone();
    tokio::spawn(async move {
        while let Some(accepted) = endpoint.accept().await {
            if let Accepted::Peer(connection) = accepted {
                tokio::spawn(serve_peer(connection, serving.clone()));
            }
        }
    });
    let listener = TcpListener::bind(address(port)?).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let store = store.clone();
        tokio::spawn(async move {
            // The load's end of a connection goes when it has seen enough.
            let _ = answer(stream, store).await;
        });
    }
}

async fn serve_peer(connection: Connection, store: Store) {
    while let Ok((kind, stream)) = connection.accept().await {
        let kind = kind.0.checked_sub(StreamKind::STORE_FIRST.0).and_then(PeerStream::from_byte);
        if let Some(kind) = kind {
            let store = store.clone();
            tokio::spawn(async move { store.serve_peer(kind, Box::new(stream)).await });
        }
    }
}

async fn answer(stream: TcpStream, store: Store) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let length = stream.read_u32_le().await?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let (what, content) = frame.split_first().context("an empty frame")?;
        let reply = match *what {
            PUT => {
                let (length, rest) = content.split_first_chunk::<2>().context("a key's length")?;
                let (key, value) = rest.split_at(u16::from_le_bytes(*length).into());
                let mut transaction = Transaction::default();
                transaction.put(String::from_utf8(key.to_vec())?, value.to_vec());
                store.commit(transaction).await?.revision.0
            }
            READ => {
                store.read_barrier().await?;
                read(&store, content)?
            }
            READ_LOCAL => {
                store.wait_for(Revision(1), Duration::from_secs(1)).await?;
                read(&store, content)?
            }
            LEADS => u64::from(store.leadership().borrow().is_self),
            ADD => {
                let member: Member = serde_json::from_slice(content)?;
                store.add_member(member).await?;
                0
            }
            other => anyhow::bail!("nobody asks for {other}"),
        };
        stream.write_all(&reply.to_le_bytes()).await?;
    }
}

fn read(store: &Store, key: &[u8]) -> anyhow::Result<u64> {
    Ok(store.view().get(std::str::from_utf8(key)?).map_or(0, |entry| entry.modified.0))
}

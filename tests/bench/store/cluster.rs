//! The processes under test.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use shoal_link::ca::{CertificateAuthority, Subject};
use shoal_link::{PeerIdentity, SERVERS};
use shoal_store::Member;
use shoal_store::seal::Keyring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{machine, node};

pub struct Cluster {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
    servers: Vec<Server>,
}

struct Server {
    number: u64,
    link_port: u16,
    port: u16,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Cluster {
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        shoal_link::install_crypto();
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("keys"), Keyring::generate()?.render())?;
        let authority = CertificateAuthority::create("bench")?;
        let mut cluster = Self { folder, authority, servers: Vec::new() };
        for _ in 0..count {
            cluster.add().await?;
        }
        // All know the leader.
        cluster.client(count - 1).await?.put("/first", b"x").await?;
        Ok(cluster)
    }

    /// One more server; when this answers it votes.
    pub async fn add(&mut self) -> anyhow::Result<()> {
        let number = self.servers.len() as u64 + 1;
        let identity = self.authority.issue(&Subject {
            identity: PeerIdentity {
                common_name: format!("system:shoal:server:server-{number}"),
                organizations: vec![SERVERS.to_string()],
            },
            member: true,
            names: Vec::new(),
            addresses: vec![[127, 0, 0, 1].into()],
            validity: Duration::from_secs(3600),
        })?;
        identity.save(self.folder.path(), &format!("server-{number}"))?;
        let (link_port, port) = (free_port()?, free_port()?);
        let process = self.spawn(number, link_port, port)?;
        self.servers.push(Server { number, link_port, port, process });
        let mut own = self.client(number as usize - 1).await?;
        if number > 1 {
            let member = Member {
                id: number,
                name: format!("server-{number}"),
                link_address: format!("127.0.0.1:{link_port}"),
                api_address: String::new(),
            };
            let mut first = self.client(0).await?;
            first.ask(node::ADD, &serde_json::to_vec(&member)?).await?;
        }
        own.read("/first").await.map(drop)
    }

    fn spawn(&self, number: u64, link_port: u16, port: u16) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([node::WORD, &number.to_string(), &link_port.to_string(), &port.to_string()]);
        command.arg(self.folder.path()).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
        command.spawn().context("failed to start a server")
    }

    /// A connection to the `number`-th server, counted round.
    pub async fn client(&self, number: usize) -> anyhow::Result<Client> {
        let port = self.servers[number % self.servers.len()].port;
        for _ in 0..500 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                stream.set_nodelay(true)?;
                return Ok(Client { stream });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("server {number} does not answer")
    }

    /// The place of the server that leads.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        loop {
            for place in 0..self.servers.len() {
                if self.client(place).await?.ask(node::LEADS, &[]).await? == 1 {
                    return Ok(place);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn kill(&mut self, place: usize) -> anyhow::Result<()> {
        self.servers[place].process.kill()?;
        self.servers[place].process.wait()?;
        Ok(())
    }

    pub async fn restart(&mut self, place: usize) -> anyhow::Result<()> {
        let Server { number, link_port, port, .. } = self.servers[place];
        self.servers[place].process = self.spawn(number, link_port, port)?;
        self.client(place).await?.read("/first").await.map(drop)
    }

    /// The resident memory of each server, in KiB.
    pub fn memory(&self) -> anyhow::Result<Vec<u64>> {
        self.servers.iter().map(|server| Ok(machine::memory(server.process.id())?.0)).collect()
    }

    pub fn processor_time(&self) -> anyhow::Result<Vec<Duration>> {
        self.servers.iter().map(|server| machine::processor_time(server.process.id())).collect()
    }
}

pub fn free_port() -> anyhow::Result<u16> {
    // One that is free for both protocols.
    loop {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}

/// One connection of the load.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    pub async fn ask(&mut self, what: u8, content: &[u8]) -> anyhow::Result<u64> {
        let mut frame = Vec::with_capacity(5 + content.len());
        frame.extend_from_slice(&u32::try_from(content.len() + 1)?.to_le_bytes());
        frame.push(what);
        frame.extend_from_slice(content);
        self.stream.write_all(&frame).await?;
        Ok(self.stream.read_u64_le().await?)
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> anyhow::Result<u64> {
        let length = u16::try_from(key.len())?.to_le_bytes();
        self.ask(node::PUT, &[&length, key.as_bytes(), value].concat()).await
    }

    pub async fn read(&mut self, key: &str) -> anyhow::Result<u64> {
        self.ask(node::READ, key.as_bytes()).await
    }

    pub async fn read_local(&mut self, key: &str) -> anyhow::Result<u64> {
        self.ask(node::READ_LOCAL, key.as_bytes()).await
    }
}

//! Three processes of etcd, asked over gRPC: a message of two fields needs no library.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::cluster::free_port;

pub struct Etcd {
    ports: Vec<u16>,
    processes: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Etcd {
    /// `None` when there is no etcd here.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let ports: Vec<(u16, u16)> = (0..3).map(|_| Ok((free_port()?, free_port()?))).collect::<anyhow::Result<_>>()?;
        let peer = |number: usize| format!("http://127.0.0.1:{}", ports[number].1);
        let all: Vec<String> = (0..3).map(|number| format!("n{number}={}", peer(number))).collect();
        let mut processes = Vec::new();
        for (number, (client, _)) in ports.iter().enumerate() {
            let client = format!("http://127.0.0.1:{client}");
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("n{number}"), "--initial-cluster", &all.join(",")])
                .args(["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--log-level", "error", "--data-dir"])
                .arg(folder.path().join(number.to_string()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            match command.spawn() {
                Ok(process) => processes.push(process),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).context("failed to start etcd"),
            }
        }
        let etcd = Self { ports: ports.into_iter().map(|(client, _)| client).collect(), processes, _folder: folder };
        let ready = async {
            while etcd.try_put().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.context("etcd does not come up")?;
        Ok(Some(etcd))
    }

    async fn try_put(&self) -> anyhow::Result<()> {
        for number in 0..3 {
            self.client(number).await?.put("/first", b"x").await?;
        }
        Ok(())
    }

    pub async fn client(&self, number: usize) -> anyhow::Result<EtcdClient> {
        let port = self.ports[number % self.ports.len()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // It ends with the load.
            let _ = connection.await;
        });
        Ok(EtcdClient { sender, port })
    }
}

/// One connection of the load.
pub struct EtcdClient {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

impl EtcdClient {
    pub async fn put(&mut self, key: &str, value: &[u8]) -> anyhow::Result<()> {
        self.call("Put", &[field(1, key.as_bytes()), field(2, value)].concat()).await
    }

    /// Linearizable, as etcd's reads are unless asked otherwise.
    pub async fn read(&mut self, key: &str) -> anyhow::Result<()> {
        self.call("Range", &field(1, key.as_bytes())).await
    }

    async fn call(&mut self, method: &str, message: &[u8]) -> anyhow::Result<()> {
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        body.extend_from_slice(message);
        let request = Request::post(format!("http://127.0.0.1:{}/etcdserverpb.KV/{method}", self.port))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(head);
        anyhow::ensure!(status.as_ref().is_some_and(|status| status == "0"), "etcd answered {status:?}");
        Ok(())
    }
}

/// A field of bytes in protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut text = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        text.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    text.push(length as u8);
    text.extend_from_slice(bytes);
    text
}

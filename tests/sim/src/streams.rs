//! Streams in memory.

use std::time::Duration;

use shoal_store::simulation::seeded;
use shoal_store::{PeerIo, PeerStream, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::net::{Net, Way};

/// How long a silent connection lives, as with the real link.
const IDLE: Duration = Duration::from_secs(3);

/// How often a stalled stream looks whether its way is free again.
const LOOK: Duration = Duration::from_millis(20);

/// What is kept of a stream to be told again.
const TOLD_AGAIN: usize = 64 << 10;

/// How long what was lost and sent again takes.
const RESENT: Duration = Duration::from_millis(30);

/// A stream of `kind` along `way`, to the server of `store`.
pub fn connect(net: &Net, way: Way, kind: PeerStream, store: &Store) -> Box<dyn PeerIo> {
    let (here, near) = tokio::io::duplex(256 << 10);
    let (far, there) = tokio::io::duplex(256 << 10);
    let (net, serving) = (net.clone(), store.clone());
    tokio::spawn(seeded(async move { serving.serve_peer(kind, Box::new(there)).await }));
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let back = Way { from: way.to, to: way.from };
    tokio::spawn(async move {
        // When one way ends, so does the other: a stream is whole or broken.
        let (there, back) = (carry(&net, way, near_read, far_write), carry(&net, back, far_read, near_write));
        tokio::pin!(there, back);
        tokio::select! {
            biased;
            told = &mut there => {
                // What was asked is answered before the stream ends.
                let _ = tokio::time::timeout(IDLE, back).await;
                tell_again(&net, way, kind, told).await;
            }
            _ = &mut back => {}
        }
    });
    Box::new(here)
}

/// Carries bytes one way; answers those that went first.
async fn carry(net: &Net, way: Way, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) -> Vec<u8> {
    let mut told = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let resent = if net.loses(100) { RESENT } else { Duration::ZERO };
        tokio::time::sleep(net.delay(way) + resent).await;
        let since = Instant::now();
        while net.is_cut(way) && net.is_alive(way) {
            if since.elapsed() > IDLE {
                return told;
            }
            tokio::time::sleep(LOOK).await;
        }
        if !net.is_alive(way) || to.write_all(&bytes[..length]).await.is_err() {
            return told;
        }
        let room = TOLD_AGAIN.saturating_sub(told.len());
        told.extend_from_slice(&bytes[..length.min(room)]);
    }
    told
}

/// What Raft was told may reach it once more, later, though QUIC never does so: it must not matter.
async fn tell_again(net: &Net, way: Way, kind: PeerStream, told: Vec<u8>) {
    if kind == PeerStream::Forward || !net.doubles(4) {
        return;
    }
    let Some((_, store)) = net.serving(way.to.0).filter(|(life, _)| *life == way.to.1) else { return };
    tokio::time::sleep(net.delay(way) * 20).await;
    let (mut here, there) = tokio::io::duplex(TOLD_AGAIN * 2);
    tokio::spawn(seeded(async move { store.serve_peer(kind, Box::new(there)).await }));
    let _ = here.write_all(&told).await;
    let _ = here.shutdown().await;
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(IDLE, here.read_to_end(&mut answers)).await;
}

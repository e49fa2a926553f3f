//! What the examples answer.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use shoal_client::{Client, ListOptions};

use crate::waiting::{Hopeless, until};

/// Sends requests to the functions, reads the processes' logs, and shows both.
///
/// # Errors
/// When one does not answer as it should.
pub async fn show(client: &Client) -> anyhow::Result<()> {
    say("\nRequests through both workers' NodePorts:");
    for worker in ["127.0.1.1", "127.0.1.2"] {
        for (port, path, text) in [(30080, "/", "Hello"), (30081, "/shoal", "front asked back: /SHOAL says back-")] {
            let address = format!("{worker}:{port}");
            let (answer, took) = answered(&address, path, text).await?;
            say(&format!("  http://{address}{path} -> {} ({:.1} ms)", answer.trim_end(), took.as_secs_f64() * 1000.0));
        }
    }
    say("\nThe processes:");
    let ticker = until("ticker prints", || async { newest_line(client, "ticker", "the tide is in").await }).await?;
    say(&format!("  ticker prints: {ticker}"));
    let batch = until("batch answers", || async { newest_line(client, "batch", "primes below").await }).await?;
    say(&format!("  batch ended with: {batch}"));
    let eater = until("unruly-eat is ended", || async { ended(client, "unruly-eat").await }).await?;
    say(&format!("  unruly-eat was ended: {eater}"));
    let (_, took) = answered("127.0.1.1:30080", "/", "Hello").await?;
    say(&format!("  unruly-spin spins; hello answers all the same ({:.1} ms)", took.as_secs_f64() * 1000.0));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a demonstration talks to the person who watches it")]
fn say(line: &str) {
    println!("{line}");
}

/// The answer to a GET, tried again until it is 200: an endpoint reaches the workers a moment after its pod is ready.
///
/// # Errors
/// When an answer does not hold `text`: it is not the one of the function that was asked.
async fn answered(address: &str, path: &str, text: &str) -> anyhow::Result<(String, Duration)> {
    let url = format!("http://{address}{path}");
    until(&format!("{url} answers"), || async {
        let begun = Instant::now();
        let (status, body) = get(address, path).await?;
        anyhow::ensure!(status == 200, "{url} answers {status}: {body}");
        if !body.contains(text) {
            return Err(Hopeless(format!("{url} answers {body:?}, and not {text:?}")).into());
        }
        Ok((body, begun.elapsed()))
    })
    .await
}

async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let stream =
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("failed to connect to {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let request = Request::get(path).header("host", address).body(Empty::<bytes::Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// The newest line with `text` in the log of the pod whose name begins with `prefix`.
async fn newest_line(client: &Client, prefix: &str, text: &str) -> anyhow::Result<String> {
    let pod = find(client, prefix).await?;
    let name = pod.metadata.name.unwrap_or_default();
    let path = format!("/api/v1/namespaces/default/pods/{name}/log");
    let response = client.raw(Request::get(path).body(shoal_client::empty_body())?).await?;
    let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    let log = String::from_utf8_lossy(&body).into_owned();
    let line = log.lines().rev().find(|line| line.contains(text));
    line.map(str::to_string).with_context(|| format!("the log of {name} has no line with {text:?}: {log}"))
}

/// Why the container of a pod ended.
async fn ended(client: &Client, prefix: &str) -> anyhow::Result<String> {
    let pod = find(client, prefix).await?;
    let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let terminated = containers.into_iter().find_map(|container| container.state?.terminated).context("it runs")?;
    Ok(format!("{} with exit code {}", terminated.reason.unwrap_or_default(), terminated.exit_code))
}

async fn find(client: &Client, prefix: &str) -> anyhow::Result<Pod> {
    let pods = client.list::<Pod>("default", &ListOptions::default()).await?.items;
    let found = pods.into_iter().find(|pod| pod.metadata.name.as_ref().is_some_and(|name| name.starts_with(prefix)));
    found.with_context(|| format!("there is no pod {prefix}"))
}

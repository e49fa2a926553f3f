//! The demonstration: the bundled examples pushed, applied, watched while they start, and asked.

mod examples;
mod requests;

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use shoal_client::{Client, ListOptions};

use crate::cluster::layout::Layout;
use crate::{kubeconfig, registry};
use examples::EXAMPLES;

/// How long one step may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Pushes and applies the examples, waits for them, sends them requests and shows the answers.
///
/// # Errors
/// When a step does not succeed in time; the message says which.
#[expect(clippy::print_stdout, reason = "a demonstration talks to the person who watches it")]
pub async fn run(layout: &Layout) -> anyhow::Result<()> {
    let client = kubeconfig::client(&layout.kubeconfig())?;
    println!("\nPushing the bundled examples and applying their manifests ...");
    let begun = Instant::now();
    for example in &EXAMPLES {
        let image = format!("{}:1", example.name);
        registry::push(&client, example.module, &image).await.with_context(|| format!("failed to push {image}"))?;
        for object in example.objects()? {
            apply(&client, &object).await.with_context(|| format!("failed to apply {}", examples::title(&object)))?;
        }
        println!("  {:<7} {}", example.name, example.about);
    }
    println!("\nWaiting for the pods ...");
    wait_for_pods(&client, begun).await?;
    requests::show(&client).await
}

/// Says what a person can do next.
#[expect(clippy::print_stdout, reason = "a demonstration talks to the person who watches it")]
pub fn say_how_to_go_on(layout: &Layout) {
    println!("\nThe cluster stays until Ctrl-C. Try:");
    println!("  export KUBECONFIG={}", layout.kubeconfig().display());
    println!("  kubectl get pods -o wide");
    println!("  kubectl scale deployment hello --replicas=10");
    println!("  kubectl logs -f deployment/ticker");
    println!("  curl http://127.0.1.1:30080/        the hello function, through worker 1");
    println!("  curl http://127.0.1.2:30081/shoal   front, which asks back, through worker 2");
}

/// The first of `count` neighbouring ports that are free, `first` if that is one.
///
/// # Errors
/// When none are found.
pub fn free_port(first: u16, count: u16) -> anyhow::Result<u16> {
    let is_free = |port| {
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
            && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    let mut candidates = std::iter::once(first).chain((0..100).map(|step| 16443 + step * 10));
    let found = candidates.find(|port| (*port..port + count).all(is_free));
    found.context("found no free ports for the API: name one with --api-port")
}

/// Creates `object`, or replaces what is there with it.
async fn apply(client: &Client, object: &serde_json::Value) -> anyhow::Result<()> {
    let (collection, name) = examples::path(object)?;
    let body = serde_json::to_vec(object)?;
    match client.json::<serde_json::Value>(Method::POST, &collection, Some(body.clone())).await {
        Err(error) if error.is_already_exists() => {
            // The spec of a pod or claim cannot be replaced, and need not: it is the same example.
            if object["kind"] != "Pod" && object["kind"] != "PersistentVolumeClaim" {
                client.json::<serde_json::Value>(Method::PUT, &format!("{collection}/{name}"), Some(body)).await?;
            }
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}

/// Shows each pod as it becomes ready, until all deployments are available.
#[expect(clippy::print_stdout, reason = "a demonstration talks to the person who watches it")]
async fn wait_for_pods(client: &Client, begun: Instant) -> anyhow::Result<()> {
    let mut shown = std::collections::BTreeSet::new();
    loop {
        let pods = client.list::<Pod>("default", &ListOptions::default()).await?.items;
        for pod in pods.iter().filter(|pod| has_started(pod)) {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            if shown.insert(name.clone()) {
                println!("  {:>5} ms  {name} on {node}", begun.elapsed().as_millis());
            }
        }
        let deployments = client.list::<Deployment>("default", &ListOptions::default()).await?.items;
        let waiting: Vec<String> = deployments
            .iter()
            .filter(|deployment| !is_available(deployment))
            .filter_map(|d| d.metadata.name.clone())
            .collect();
        if waiting.is_empty() && !deployments.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < DEADLINE,
            "after {} s these deployments are not available: {}",
            DEADLINE.as_secs(),
            waiting.join(", ")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn has_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    available >= wanted
}

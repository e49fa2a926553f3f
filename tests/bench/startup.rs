//! From the request that creates something to the moment when it is ready, as a client that watches sees it.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_client::{Cache, DeleteOptions, Object, Selection};
use shoal_tests::Cluster;
use tokio_util::sync::CancellationToken;

use crate::report::{Report, Times};
use crate::{block_on, client};

/// How often each is done.
const ROUNDS: usize = 40;

/// A Pod and a Deployment of a warm function, one after another.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    push(cluster)?;
    let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "default"}, "spec": template()}))?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {"metadata": {"labels": {"app": "bench"}}, "spec": template()},
        },
    }))?;
    let pods = block_on(rounds(cluster, pod, is_pod_ready))?;
    report.add("create to Ready, a pod", pods.text());
    let deployments = block_on(rounds(cluster, deployment, is_available))?;
    report.add("create to Available, a deployment", deployments.text());
    Ok(())
}

/// Pushes the bundled hello function as `hello:1`.
pub fn push(cluster: &Cluster) -> anyhow::Result<()> {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-examples/hello/hello.wasm");
    cluster.shoal(&["push", module, "hello:1"]).map(drop)
}

/// The hello function's pod.
fn template() -> serde_json::Value {
    json!({"containers": [{
        "name": "hello", "image": "hello:1",
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "32Mi"}},
    }]})
}

async fn rounds<K: Object>(cluster: &Cluster, object: K, is_ready: fn(&K) -> bool) -> anyhow::Result<Times> {
    let client = client(cluster, 0)?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let cache = Cache::<K>::start(client.clone(), Selection::default(), stop);
    cache.synced().await;
    let mut changed = cache.changed();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("bench-{round}");
        let mut object = object.clone();
        object.metadata_mut().name = Some(name.clone());
        let begun = Instant::now();
        client.create(&object).await?;
        let ready = async {
            while !cache.get("default", &name).is_some_and(|found| is_ready(&found)) {
                changed.changed().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), ready)
            .await
            .with_context(|| format!("{name} is not ready"))??;
        // The first finds the module not yet compiled.
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        client.delete::<K>("default", &name, &DeleteOptions::default()).await?;
    }
    Ok(Times::new(times))
}

/// Whether its containers answer.
pub fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_available(deployment: &Deployment) -> bool {
    deployment.status.as_ref().and_then(|status| status.available_replicas) == Some(1)
}

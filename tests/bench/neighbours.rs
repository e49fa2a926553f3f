//! What a function's callers notice of pods that compute without end on the same core.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_client::DeleteOptions;
use shoal_tests::{Cluster, eventually};

use crate::load::Load;
use crate::report::Report;
use crate::{block_on, client, functions, machine};

/// The pods that compute.
const SPINNERS: [&str; 2] = ["spin-1", "spin-2"];
/// Between an answer and the next request of a connection: the core is far from busy with requests.
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// The function alone and beside two that spin, in turns; the worker has one core.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-examples/unruly/unruly.wasm");
    cluster.shoal(&["push", module, "unruly:1"])?;
    machine::pin(functions::worker(cluster)?, functions::SERVING_CORE)?;
    let way = &functions::WAYS[0];
    let address = functions::deploy(cluster, way)?;
    let (mut alone, mut beside, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..functions::TURNS {
        alone.push(functions::turn(address, way, PAUSE)?);
        spin(cluster)?;
        let before = machine::processor_time(functions::worker(cluster)?)?;
        beside.push(functions::turn(address, way, PAUSE)?);
        used.push(machine::processor_time(functions::worker(cluster)?)?.saturating_sub(before).as_secs_f64());
        rest(cluster)?;
    }
    let quantile =
        |loads: &[Load], share: f64| functions::median(loads.iter().map(|l| l.times.quantile(share)).collect());
    let text = |loads: &[Load]| {
        let rate = functions::median(loads.iter().map(|load| load.rate).collect());
        format!("p50 {:.2} ms, p99 {:.2} ms at {rate:.0} a second", quantile(loads, 0.5), quantile(loads, 0.99))
    };
    report.add("hello, alone on its core", text(&alone));
    let ratio = quantile(&beside, 0.99) / quantile(&alone, 0.99);
    let busy = 100.0 * functions::median(used) / functions::TURN.as_secs_f64();
    report.add(
        "hello, beside two pods that spin",
        format!("{}; the p99 is {ratio:.1} x that alone, the core {busy:.0} % busy", text(&beside)),
    );
    Ok(())
}

fn spin(cluster: &Cluster) -> anyhow::Result<()> {
    for name in SPINNERS {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "unruly", "image": "unruly:1", "args": ["spin"]}]},
        }))?;
        block_on(async { Ok(client(cluster, 0)?.create(&pod).await?) })?;
        eventually(&format!("{name} runs"), PATIENCE, || {
            let pod = block_on(async { Ok(client(cluster, 0)?.get::<Pod>("default", name).await?) })?;
            let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
            anyhow::ensure!(phase == "Running", "it is {phase}");
            Ok(())
        })?;
    }
    Ok(())
}

fn rest(cluster: &Cluster) -> anyhow::Result<()> {
    for name in SPINNERS {
        block_on(async {
            let client = client(cluster, 0)?;
            client.delete::<Pod>("default", name, &DeleteOptions::default()).await?;
            Ok(())
        })?;
        eventually(&format!("{name} is gone"), PATIENCE, || {
            let found = block_on(async { Ok(client(cluster, 0)?.get::<Pod>("default", name).await) })?;
            anyhow::ensure!(found.is_err(), "it is there");
            Ok(())
        })?;
    }
    Ok(())
}

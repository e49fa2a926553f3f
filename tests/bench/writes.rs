//! Durable writes through the API of three servers: ConfigMaps of 512 bytes, each acknowledged by a majority's disks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use shoal_tests::Cluster;

use crate::report::Report;
use crate::{block_on, client, load};

const DURATION: Duration = Duration::from_secs(5);

/// Names of objects.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// One client, then 64, each on a connection of its own, spread over the servers.
pub fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for count in [1, 64] {
        let clients = (0..count).map(|number| client(cluster, number)).collect::<anyhow::Result<Vec<_>>>()?;
        let load = block_on(load::drive(clients, DURATION, Duration::ZERO, |client, _| async move {
            client.create(&config_map()).await?;
            Ok(client)
        }))?;
        report.add(format!("writes, {count} clients"), format!("{:.0} a second, {}", load.rate, load.times.text()));
    }
    Ok(())
}

fn config_map() -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    object.metadata.namespace = Some("default".to_owned());
    object.data = Some([("value".to_owned(), "x".repeat(512))].into());
    object
}

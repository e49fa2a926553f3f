//! The Leases by which people and tools see who leads. They follow the leadership of the store; they do not make it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use shoal_client::{Client, ClientError};

const NAMES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
const DURATION_SECONDS: i32 = 15;
const RENEWAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Renews the Leases in the name of `holder`, for ever.
pub(crate) async fn renew(client: Client, holder: String) {
    loop {
        let mut pause = RENEWAL;
        for name in NAMES {
            if let Err(error) = hold(&client, name, &holder).await {
                tracing::debug!(name, %error, "a lease was not renewed");
                pause = RETRY;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn hold(client: &Client, name: &str, holder: &str) -> Result<(), ClientError> {
    let now = MicroTime(Timestamp::now());
    match client.get::<Lease>("kube-system", name).await {
        Ok(mut lease) => {
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(holder) {
                spec.holder_identity = Some(holder.to_owned());
                spec.acquire_time = Some(now.clone());
                spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
            }
            spec.renew_time = Some(now);
            spec.lease_duration_seconds = Some(DURATION_SECONDS);
            client.replace(&lease).await.map(drop)
        }
        Err(error) if error.is_not_found() => {
            let spec = LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_duration_seconds: Some(DURATION_SECONDS),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("kube-system".to_owned()),
                ..ObjectMeta::default()
            };
            client.create(&Lease { metadata, spec: Some(spec) }).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

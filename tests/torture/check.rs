//! What was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use shoal_client::{Client, ListOptions};

use crate::load::History;
use crate::watcher::Seen;

/// How long the servers may take to agree again once nothing more happens to them.
const HEAL: Duration = Duration::from_secs(30);

/// The torture's objects and their values, at one revision.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// The revision.
    pub revision: u64,
    /// Value by name.
    pub objects: BTreeMap<String, String>,
}

/// The newest state, as one server gives it.
pub async fn listed(client: &Client) -> anyhow::Result<Listed> {
    let list = client.list::<ConfigMap>("default", &ListOptions::default()).await?;
    let ours = list.items.into_iter().filter_map(|object| {
        let value = object.data?.remove("value")?;
        Some((object.metadata.name?, value))
    });
    Ok(Listed { revision: list.resource_version.parse()?, objects: ours.collect() })
}

/// Everything heals: a server that was killed or frozen answers again.
pub async fn healed(client: &Client) -> anyhow::Result<Listed> {
    let answers = async {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), listed(client)).await {
                Ok(Ok(list)) => return list,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(HEAL, answers).await.context("a server does not answer again")
}

/// The same objects on every server.
pub fn servers_agree(lists: &[Listed]) -> anyhow::Result<()> {
    for list in lists {
        ensure!(
            list.objects == lists[0].objects,
            "two servers have different objects: {}",
            difference(list, &lists[0])
        );
    }
    Ok(())
}

/// Every object is as its writer was told, or as a write of unknown outcome would have made it.
pub fn acknowledged_writes_survive(histories: &[History], list: &Listed) -> anyhow::Result<()> {
    for (name, states) in histories.iter().flat_map(|history| &history.objects) {
        let found = list.objects.get(name).cloned();
        ensure!(states.contains(&found), "{name} is {found:?}, and was written as {states:?}");
    }
    Ok(())
}

/// No object is there that nobody wrote.
pub fn nothing_comes_from_nowhere(histories: &[History], list: &Listed) -> anyhow::Result<()> {
    for name in list.objects.keys().filter(|name| name.starts_with("torture-")) {
        ensure!(histories.iter().any(|history| history.objects.contains_key(name)), "nobody wrote {name}");
    }
    Ok(())
}

/// One writer's writes, one after the other, have growing revisions.
pub fn revisions_grow(histories: &[History]) -> anyhow::Result<()> {
    for history in histories {
        let falling = history.revisions.windows(2).find(|pair| pair[0] >= pair[1]);
        ensure!(falling.is_none(), "revisions of one writer: {falling:?}");
    }
    Ok(())
}

/// A read on any server sees what was acknowledged before it began.
pub fn reads_are_fresh(histories: &[History]) -> anyhow::Result<()> {
    let stale: Vec<&String> = histories.iter().flat_map(|history| &history.stale).collect();
    ensure!(stale.is_empty(), "{stale:?}");
    Ok(())
}

/// The events, one after the other, make the list.
pub fn a_watch_misses_nothing(seen: Seen, list: &Listed) -> anyhow::Result<()> {
    if let Some(error) = seen.wrong {
        return Err(error.context("a watch went wrong"));
    }
    let seen = Listed { revision: seen.revision, objects: seen.objects };
    ensure!(seen.objects == list.objects, "a watch tells another story than the list: {}", difference(&seen, list));
    Ok(())
}

/// The first object in which the two differ.
fn difference(one: &Listed, other: &Listed) -> String {
    let names = one.objects.keys().chain(other.objects.keys());
    let mut different = names.filter(|name| one.objects.get(*name) != other.objects.get(*name));
    let name = different.next().map(String::as_str).unwrap_or_default();
    format!("{name} is {:?} and {:?}", one.objects.get(name), other.objects.get(name))
}

//! Once nothing is wrong any more, all servers answer, and those that belong to the cluster are those that are there.

use std::time::Duration;

use shoal_store::Store;

use crate::faults;
use crate::world::World;

/// How long everything may take to heal, in simulated time.
const HEAL: Duration = Duration::from_secs(60);

/// How long one server may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Waits until all members answer, and have the same; answers them.
pub async fn everything(world: &World) -> Result<Vec<(u64, Store)>, String> {
    let healed = async {
        loop {
            faults::start_all(world).await;
            if let Some(stores) = healthy(world).await {
                return stores;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if let Some(wrong) = world.wrong() {
        return Err(wrong);
    }
    tokio::time::timeout(HEAL, healed).await.map_err(|_| "the servers do not heal".to_string())
}

async fn healthy(world: &World) -> Option<Vec<(u64, Store)>> {
    let members = faults::members(world).await?;
    // What was removed without anybody's having been told so is over now.
    for gone in world.ids().into_iter().filter(|id| !members.contains(id)) {
        world.forget(gone);
    }
    let mut stores = Vec::new();
    for id in members {
        let store = world.store(id)?;
        tokio::time::timeout(ANSWER, store.read_barrier()).await.ok()?.ok()?;
        stores.push((id, store));
    }
    Some(stores)
}

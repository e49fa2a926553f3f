//! Clients that write, read and list, and write down what they were told.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use shoal_store::{CommitError, Revision, Store, Transaction, UnixSeconds};

use crate::history::{Fate, Listed, Read, Written};
use crate::world::{self, World};

/// How many keys there are of each kind.
const KEYS: usize = 12;

/// How many keys a page has.
const PAGE: usize = 5;

/// What one client does until it is told to stop.
pub async fn run(world: World, number: usize, stop: tokio::sync::watch::Receiver<bool>) {
    let mut random = world.random();
    let mut count = 0;
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..60))).await;
        let running = world.running();
        if running.is_empty() {
            continue;
        }
        let id = running[random.random_range(0..running.len())];
        let Some(store) = world.store(id) else { continue };
        count += 1;
        match random.random_range(0..12) {
            0..5 => write(&world, &store, &mut random, number, count).await,
            5..10 => read(&world, &store, &mut random).await,
            _ => list(&world, &store, &mut random).await,
        }
    }
}

fn key(random: &mut StdRng) -> String {
    format!("/k/{:02}", random.random_range(0..KEYS))
}

async fn write(world: &World, store: &Store, random: &mut StdRng, client: usize, count: usize) {
    let value = format!("{client}-{count}");
    let mut transaction = Transaction::default();
    let (keys, value) = match random.random_range(0..10) {
        // Two keys that must never differ.
        0..2 => {
            let number = random.random_range(0..KEYS);
            let keys = vec![format!("/pair/a/{number:02}"), format!("/pair/b/{number:02}")];
            for key in &keys {
                transaction.put(key, value.clone());
            }
            (keys, Some(value))
        }
        2 => {
            let key = key(random);
            transaction.delete(&key);
            (vec![key], None)
        }
        3 => {
            let key = format!("/short/{:02}", random.random_range(0..KEYS));
            let expires = UnixSeconds::new(world::now().get() + 3).expect("not zero");
            transaction.put_until(&key, value.clone(), expires);
            (vec![key], Some(value))
        }
        4..7 => {
            let key = key(random);
            match store.view().get(&key) {
                Some(entry) => transaction.require_modified_at(&key, entry.modified),
                None => transaction.require_absent(&key),
            };
            transaction.put(&key, value.clone());
            (vec![key], Some(value))
        }
        _ => {
            let key = key(random);
            // Some are large, so that frames and segments are.
            let value = if random.random_ratio(1, 40) { format!("{value}{}", "x".repeat(100_000)) } else { value };
            transaction.put(&key, value.clone());
            (vec![key], Some(value))
        }
    };
    let begun = world.with_history(|history| history.tick());
    // A client that gives up does not know what became of it.
    let patience = Duration::from_millis(random.random_range(50..15_000));
    let fate = match tokio::time::timeout(patience, store.commit(transaction)).await {
        Ok(Ok(committed)) => Fate::Acknowledged(committed.revision),
        Ok(Err(CommitError::Unknown { .. })) | Err(_) => Fate::Unknown,
        Ok(Err(_)) => Fate::Refused,
    };
    world.with_history(|history| {
        let ended = history.tick();
        history.writes.push(Written { keys, value, begun, ended, fate });
    });
}

async fn read(world: &World, store: &Store, random: &mut StdRng) {
    let key = key(random);
    let begun = world.with_history(|history| history.tick());
    let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(8), store.read_barrier()).await else { return };
    let view = store.view();
    let value = view.get(&key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    world.with_history(|history| {
        let ended = history.tick();
        history.reads.push(Read { key, revision: view.revision(), value, begun, ended });
    });
}

/// Page by page, from any server, while writes go on.
async fn list(world: &World, first: &Store, random: &mut StdRng) {
    let Ok(Ok(revision)) = tokio::time::timeout(Duration::from_secs(8), first.read_barrier()).await else { return };
    let mut entries = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let running = world.running();
        if running.is_empty() {
            return;
        }
        let Some(store) = world.store(running[random.random_range(0..running.len())]) else { return };
        if store.wait_for(revision, Duration::from_millis(300)).await.is_err() {
            return;
        }
        // One that has just started has no history: its client begins again.
        let Some(view) = store.view_at(revision) else { return };
        let page: Vec<(String, String)> = view
            .range("/k/", after.as_deref())
            .take(PAGE)
            .map(|(key, entry)| (key.clone(), String::from_utf8_lossy(&entry.value).into_owned()))
            .collect();
        after = page.last().map(|(key, _)| key.clone());
        let is_last = page.len() < PAGE;
        entries.extend(page);
        if is_last {
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(1..40))).await;
    }
    world.with_history(|history| history.lists.push(Listed { revision: Revision(revision.0), entries }));
}

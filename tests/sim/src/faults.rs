//! What happens to the servers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use shoal_store::simulation::seeded;
use tokio::time::Instant;

use crate::world::{self, World};

/// How long a change of the servers may go on when nothing is wrong any more, in simulated time.
const CHANGED: Duration = Duration::from_secs(180);

/// Whether a change of the servers is under way.
type Changing = Arc<AtomicBool>;

/// One fault after the other, for `duration`.
pub async fn inflict(world: &World, duration: Duration) {
    let mut random = world.random();
    let changing = Changing::default();
    let end = Instant::now() + duration;
    while Instant::now() < end && world.wrong().is_none() {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        one(world, &mut random, &changing).await;
    }
    // What was begun comes to its end.
    while changing.load(Ordering::Relaxed) && world.wrong().is_none() {
        if Instant::now() > end + CHANGED {
            world.fail("a change of the servers does not come to its end");
        }
        world.net.heal();
        start_all(world).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub async fn start_all(world: &World) {
    for id in world.ids() {
        world.start(id).await;
    }
}

async fn one(world: &World, random: &mut StdRng, changing: &Changing) {
    let ids = world.ids();
    let pick = |random: &mut StdRng| ids[random.random_range(0..ids.len())];
    match random.random_range(0..20) {
        0..3 => {
            world.note("all ways are free");
            world.net.heal();
        }
        3..5 => {
            let alone: BTreeSet<u64> = ids.iter().copied().filter(|_| random.random_bool(0.4)).collect();
            world.note(format_args!("{alone:?} are cut off"));
            for from in &ids {
                for to in ids.iter().filter(|to| alone.contains(from) != alone.contains(to)) {
                    world.net.cut(*from, *to);
                }
            }
        }
        5 => {
            let (from, to) = (pick(random), pick(random));
            world.note(format_args!("{to} does not hear {from}"));
            world.net.cut(from, to);
        }
        6 => {
            let (from, to, by) = (pick(random), pick(random), random.random_range(20..400));
            world.note(format_args!("{from} to {to} takes {by} ms"));
            world.net.slow_down(from, to, Duration::from_millis(by));
        }
        7 => {
            world.note("some is told twice");
            world.net.set_duplicates(true);
        }
        8..12 => {
            let victim = pick(random);
            crash(world, random, &[victim]);
        }
        12 => {
            let victims = [pick(random), pick(random)];
            crash(world, random, &victims);
        }
        13 => crash(world, random, &ids),
        14 => {
            let (id, slow) = (pick(random), random.random_range(0..150));
            world.note(format_args!("the disk of {id} takes {slow} ms"));
            world.disk(id).set_slow(Duration::from_millis(slow));
        }
        15 => {
            let id = pick(random);
            world.note(format_args!("the syncs of {id} fail"));
            world.disk(id).break_syncs();
        }
        16 => {
            let seconds = random.random_range(1..100);
            world.note(format_args!("the clock jumps by {seconds} s"));
            world::jump(seconds);
        }
        _ if !changing.swap(true, Ordering::Relaxed) => {
            let (world, random, changing) = (world.clone(), world.random(), changing.clone());
            tokio::spawn(seeded(async move {
                change(&world, random).await;
                changing.store(false, Ordering::Relaxed);
            }));
        }
        _ => {}
    }
}

/// The power of these goes, and comes back some time later.
fn crash(world: &World, random: &mut StdRng, ids: &[u64]) {
    for id in ids {
        world.crash(*id);
        let (world, id, pause) = (world.clone(), *id, random.random_range(10..4_000));
        tokio::spawn(seeded(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if world.ids().contains(&id) {
                world.start(id).await;
            }
        }));
    }
}

/// A change of the servers, asked of any one of them; it may fail.
async fn change(world: &World, mut random: StdRng) {
    let running = world.running();
    let Some(asked) = running.get(random.random_range(0..running.len().max(1))).and_then(|id| world.store(*id)) else {
        return;
    };
    let members: Vec<u64> = asked.members().into_iter().map(|member| member.id).collect();
    match random.random_range(0..5) {
        0 if members.len() < 5 => {
            let Ok(id) = asked.allocate_member_id().await else { return };
            add(world, &asked, id, &format!("server-{id}")).await;
        }
        1 if members.len() > 3 => {
            let gone = members[random.random_range(0..members.len())];
            world.note(format_args!("{gone} is to be removed"));
            let removed = asked.remove_member(gone).await;
            world.note(format_args!("removal of {gone}: {}", outcome(&removed)));
            if !is_member(world, gone).await {
                world.forget(gone);
            }
        }
        2 if members.len() >= 3 && members.iter().all(|id| running.contains(id)) => {
            // Its disk is lost, and another comes in its place, under its name.
            let lost = members[random.random_range(0..members.len())];
            let Some(asked) = running.iter().find(|id| **id != lost).and_then(|id| world.store(*id)) else { return };
            let Ok(id) = asked.allocate_member_id().await else { return };
            // Only when all the others have everything, or what it alone made a majority with would be lost.
            if !all_have_everything(world, &members).await {
                return;
            }
            world.note(format_args!("{lost} loses its disk"));
            let name = world.member(lost).name;
            world.forget(lost);
            add(world, &asked, id, &name).await;
            // Until it is replaced no other may be lost.
            while is_member(world, lost).await {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let Some(asked) = world.running().first().and_then(|first| world.store(*first)) else { continue };
                let _ = tokio::time::timeout(Duration::from_secs(5), asked.add_member(world.member(id))).await;
                if random.random_ratio(1, 3) {
                    world.net.heal();
                    start_all(world).await;
                }
            }
        }
        _ => {
            let to = members.get(random.random_range(0..members.len().max(1))).copied();
            let moved = asked.transfer_leadership(to).await;
            world.note(format_args!("leadership to {to:?}: {}", outcome(&moved)));
        }
    }
}

/// Whether a leader says that this server belongs to the cluster; also when nobody can say so.
async fn is_member(world: &World, id: u64) -> bool {
    members(world).await.is_none_or(|members| members.contains(&id))
}

/// The servers, as a leader that has a majority says.
pub async fn members(world: &World) -> Option<Vec<u64>> {
    for id in world.running() {
        let Some(store) = world.store(id) else { continue };
        let asked = async {
            store.read_barrier().await.ok()?;
            store.member_statuses().await.ok()
        };
        if let Ok(Some(statuses)) = tokio::time::timeout(Duration::from_secs(2), asked).await {
            return Some(statuses.into_iter().map(|status| status.member.id).collect());
        }
    }
    None
}

async fn all_have_everything(world: &World, members: &[u64]) -> bool {
    for id in members {
        let Some(store) = world.store(*id) else { return false };
        if !matches!(tokio::time::timeout(Duration::from_secs(2), store.read_barrier()).await, Ok(Ok(_))) {
            return false;
        }
    }
    members.iter().all(|id| world.store(*id).is_some())
}

async fn add(world: &World, asked: &shoal_store::Store, id: u64, name: &str) {
    world.note(format_args!("{id} is to be added"));
    world.add(id, name);
    world.start(id).await;
    let added = asked.add_member(world.member(id)).await;
    world.note(format_args!("addition of {id}: {}", outcome(&added)));
}

fn outcome<T, E>(outcome: &Result<T, E>) -> &'static str {
    if outcome.is_ok() { "done" } else { "not done" }
}

//! Looking at the images again and again, and removing those that [`plan`] names.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use shoal_images::Reference;
use tokio::sync::Mutex;

use super::plan::{self, Candidate, Fullness};
use super::shown::shown;
use crate::context::Context;
use crate::eviction::signals::Signals;
use crate::eviction::threshold::Signal;
use crate::guests::StoredModule;
use crate::limits::{IMAGE_LEAST_AGE, IMAGE_PERIOD};
use crate::pod::spec;
use crate::pods::Pods;

/// When pods were last seen with each module, by its digest. Whoever collects holds it.
#[derive(Default)]
pub struct LastUses(Mutex<HashMap<String, Timestamp>>);

/// Looks and collects for ever.
pub async fn keep_collecting(context: Arc<Context>, pods: Arc<Pods>, signals: Arc<dyn Signals>) {
    let mut ticks = tokio::time::interval(IMAGE_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let fullness = Fullness { high: context.config.image_gc_high, low: context.config.image_gc_low };
    loop {
        ticks.tick().await;
        let signals = Arc::clone(&signals);
        let Ok(readings) = tokio::task::spawn_blocking(move || signals.read()).await else { continue };
        let disk = readings.get(&Signal::ImagefsAvailable);
        let wanted = disk.map_or(0, |disk| plan::wanted_bytes(*disk, fullness));
        let freed = collect(&context, &pods, wanted).await;
        if freed < wanted {
            tracing::warn!(wanted, freed, "the disk is full and too few images are unused");
        }
    }
}

/// Removes every image that may go; answers the bytes of their modules.
pub async fn remove_unused(context: &Context, pods: &Pods) -> u64 {
    collect(context, pods, u64::MAX).await
}

/// Has the Node tell of the images that are there now.
pub async fn tell(context: &Context) {
    match context.guests.stored().await {
        Ok(stored) => tell_of(context, &stored),
        Err(error) => tracing::warn!(error, "the images cannot be looked at"),
    }
}

fn tell_of(context: &Context, stored: &[StoredModule]) {
    let images = shown(stored);
    context.node_state.send_if_modified(|state| {
        let is_new = state.images != images;
        state.images = images;
        is_new
    });
}

/// Removes images until so many bytes are free; answers how many are.
async fn collect(context: &Context, pods: &Pods, wanted_bytes: u64) -> u64 {
    let mut last_uses = context.image_uses.0.lock().await;
    let mut stored = match context.guests.stored().await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(error, "the images cannot be looked at");
            return 0;
        }
    };
    let now = Timestamp::now();
    let candidates = candidates(&stored, &used(context, pods.active_one_by_one()), &mut last_uses, now);
    let least_age = SignedDuration::try_from(IMAGE_LEAST_AGE).unwrap_or(SignedDuration::MAX);
    let mut freed = 0u64;
    for victim in plan::victims(&candidates, wanted_bytes, least_age, now) {
        match context.guests.remove(&victim.module).await {
            Ok(()) => {
                tracing::info!(module = victim.module, bytes = victim.size_bytes, "an unused image was removed");
                freed = freed.saturating_add(victim.size_bytes);
                stored.retain(|one| one.module != victim.module);
            }
            Err(error) => tracing::warn!(module = victim.module, error, "an unused image could not be removed"),
        }
    }
    tell_of(context, &stored);
    freed
}

/// What pods use.
struct Used {
    /// The references in their specifications.
    references: BTreeSet<String>,
    /// The digests of the modules that they were given.
    modules: BTreeSet<String>,
}

fn used(context: &Context, pods: impl Iterator<Item = Arc<Pod>>) -> Used {
    let mut references = BTreeSet::new();
    for pod in pods {
        let images = spec::all_containers(&pod).filter_map(|container| container.image.as_deref());
        references.extend(images.filter_map(|image| Some(Reference::parse(image).ok()?.to_string())));
    }
    let modules = context.modules.lock().unwrap_or_else(PoisonError::into_inner);
    Used { references, modules: modules.values().map(|one| one.module.clone()).collect() }
}

/// What could go, with when each was last used; what is gone is forgotten.
fn candidates(
    stored: &[StoredModule],
    used: &Used,
    last_uses: &mut HashMap<String, Timestamp>,
    now: Timestamp,
) -> Vec<Candidate> {
    last_uses.retain(|module, _| stored.iter().any(|one| one.module == *module));
    let candidate = |one: &StoredModule| {
        let is_used = used.modules.contains(&one.module)
            || one.references.iter().any(|reference| used.references.contains(reference));
        if is_used {
            last_uses.insert(one.module.clone(), now);
        }
        Candidate {
            module: one.module.clone(),
            size_bytes: one.size_bytes,
            since: one.since,
            last_used: last_uses.get(&one.module).copied().unwrap_or(one.since),
            is_used,
        }
    };
    stored.iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(digest: &str, reference: &str) -> StoredModule {
        StoredModule {
            module: digest.to_owned(),
            size_bytes: 1,
            since: Timestamp::UNIX_EPOCH,
            references: vec![reference.to_owned()],
            image_ids: Vec::new(),
        }
    }

    #[test]
    fn a_use_is_known_by_the_reference_or_the_module_and_remembered() {
        let stored = [module("a", "hello:1"), module("b", "other:1"), module("c", "third:1")];
        let used = Used { references: ["hello:1".to_owned()].into(), modules: ["b".to_owned()].into() };
        let none = Used { references: BTreeSet::new(), modules: BTreeSet::new() };
        let (then, now) = (Timestamp::from_second(10).expect("a time"), Timestamp::from_second(20).expect("a time"));
        let mut last_uses = HashMap::from([("gone".to_owned(), then)]);
        let told = |all: Vec<Candidate>| -> Vec<(bool, Timestamp)> {
            all.iter().map(|one| (one.is_used, one.last_used)).collect()
        };
        let first = told(candidates(&stored, &used, &mut last_uses, then));
        assert_eq!(first, [(true, then), (true, then), (false, Timestamp::UNIX_EPOCH)]);
        let second = told(candidates(&stored, &none, &mut last_uses, now));
        assert_eq!(second, [(false, then), (false, then), (false, Timestamp::UNIX_EPOCH)]);
        assert!(!last_uses.contains_key("gone"));
    }
}

//! Deployment: one ReplicaSet a template, and pods moved from the old ones to the new one within the limits it sets.

mod revision;
mod scale;
mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use shoal_scheduler::selects;

use crate::action::{Action, EventKind, Target, controller_reference, controller_uid, value};
use crate::replica_set::letters;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// The number of the template, counted up with each change.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// How far a rollout may stray from the number of pods wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    wanted: i32,
    surge: i32,
    unavailable: i32,
    is_recreate: bool,
}

/// The ReplicaSets of a deployment.
struct Sets<'a> {
    new: Option<&'a ReplicaSet>,
    /// Oldest first.
    old: Vec<&'a ReplicaSet>,
}

/// What `deployment` needs, given all ReplicaSets of its namespace.
pub fn reconcile(deployment: &Deployment, replica_sets: &[&ReplicaSet], now: Timestamp) -> Vec<Action> {
    let Some(spec) = &deployment.spec else { return Vec::new() };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut actions = adoptions(deployment, spec, replica_sets);
    let sets = Sets::of(deployment, spec, replica_sets);
    let limits = Limits::of(spec);
    let mut collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    if spec.paused == Some(true) {
        actions.extend(scale::proportionally(&sets, limits));
    } else if let Some(new) = sets.new {
        match revision::sync(deployment, new, &sets) {
            changes if !changes.is_empty() => actions.extend(changes),
            _ => actions.extend(roll(deployment, spec, &sets, limits)),
        }
    } else {
        let new = new_replica_set(deployment, spec, &sets, limits, collisions.unwrap_or_default());
        let is_taken = replica_sets.iter().any(|taken| taken.metadata.name == new.metadata.name);
        if is_taken {
            collisions = Some(collisions.unwrap_or_default() + 1);
        } else if !(limits.is_recreate && scale::is_anything_left(&sets.old)) {
            actions.extend(created(deployment, &new));
        } else {
            actions.extend(scale::down_to_nothing(deployment, &sets.old, limits));
        }
    }
    status::sync(deployment, spec, &sets, limits, collisions, now, &mut actions);
    actions
}

fn roll(deployment: &Deployment, spec: &DeploymentSpec, sets: &Sets<'_>, limits: Limits) -> Vec<Action> {
    if scale::is_wanted_number_new(sets, limits) {
        return scale::proportionally(sets, limits);
    }
    let steps = if limits.is_recreate {
        scale::recreate(deployment, sets, limits)
    } else {
        scale::step(deployment, sets, limits)
    };
    if !steps.is_empty() {
        return steps;
    }
    if status::is_complete(sets, limits) { revision::cleanup(spec, &sets.old) } else { Vec::new() }
}

fn created(deployment: &Deployment, new: &ReplicaSet) -> Vec<Action> {
    let replicas = new.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    let name = new.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
    let mut actions = vec![Action::create(new)];
    if replicas > 0 {
        actions.push(Action::event(deployment, EventKind::Normal, "ScalingReplicaSet", message));
    }
    actions
}

fn adoptions(deployment: &Deployment, spec: &DeploymentSpec, replica_sets: &[&ReplicaSet]) -> Vec<Action> {
    let is_orphan = |set: &&&ReplicaSet| {
        controller_uid(&set.metadata).is_none()
            && set.metadata.deletion_timestamp.is_none()
            && selects(&spec.selector, set.metadata.labels.as_ref())
    };
    let adopt = |set: &&ReplicaSet| {
        let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
        owners.push(controller_reference(deployment));
        let patch = json!({"metadata": {
            "uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "ownerReferences": value(&owners),
        }});
        Action::Patch { target: Target::of(*set), patch }
    };
    replica_sets.iter().filter(is_orphan).map(adopt).collect()
}

impl<'a> Sets<'a> {
    fn of(deployment: &Deployment, spec: &DeploymentSpec, replica_sets: &[&'a ReplicaSet]) -> Self {
        let uid = deployment.metadata.uid.as_deref();
        let is_own = |set: &&ReplicaSet| {
            let owner = controller_uid(&set.metadata);
            owner == uid || (owner.is_none() && selects(&spec.selector, set.metadata.labels.as_ref()))
        };
        let mut old: Vec<&ReplicaSet> = replica_sets.iter().copied().filter(is_own).collect();
        old.retain(|set| set.metadata.deletion_timestamp.is_none());
        old.sort_by(|a, b| {
            let age = |set: &ReplicaSet| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone());
            age(a).cmp(&age(b))
        });
        let wanted = without_hash(&spec.template);
        let is_new = |set: &&ReplicaSet| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| without_hash(template) == wanted)
        };
        let new = old.iter().position(is_new).map(|index| old.remove(index));
        Self { new, old }
    }

    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + '_ {
        self.old.iter().copied().chain(self.new)
    }
}

impl Limits {
    fn of(spec: &DeploymentSpec) -> Self {
        let wanted = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return Self { wanted, surge: 0, unavailable: wanted, is_recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let part = |given: Option<&IntOrString>, up: bool| match given {
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(text)) => percent(text, wanted, up),
            None => percent("25%", wanted, up),
        };
        let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let mut unavailable = part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { wanted, surge, unavailable: unavailable.min(wanted), is_recreate: false }
    }
}

fn percent(text: &str, of: i32, up: bool) -> i32 {
    let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
    let product = percent * i64::from(of);
    i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(of)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        metadata.creation_timestamp = None;
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH_LABEL);
        }
    }
    template
}

fn new_replica_set(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    sets: &Sets<'_>,
    limits: Limits,
    collisions: i32,
) -> ReplicaSet {
    let hash = letters(&format!("{collisions}/{}", value(&without_hash(&spec.template))), 10);
    let label = || (HASH_LABEL.to_owned(), hash.clone());
    let mut template = spec.template.clone();
    template.metadata.get_or_insert_default().labels.get_or_insert_default().extend([label()]);
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().extend([label()]);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let mut annotations = scale::annotations(limits);
    annotations.extend(revision::inherited(deployment));
    annotations.insert(REVISION.to_owned(), revision::next(&sets.old).to_string());
    let metadata = ObjectMeta {
        name: Some(format!("{name}-{hash}")),
        namespace: deployment.metadata.namespace.clone(),
        labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(deployment)]),
        ..ObjectMeta::default()
    };
    let replicas = Some(scale::first_number(sets, limits));
    let spec =
        ReplicaSetSpec { replicas, selector, template: Some(template), min_ready_seconds: spec.min_ready_seconds };
    ReplicaSet { metadata, spec: Some(spec), status: None }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

fn annotation<'a>(annotations: Option<&'a BTreeMap<String, String>>, name: &str) -> Option<&'a str> {
    annotations.and_then(|all| all.get(name)).map(String::as_str)
}

//! Deployments and ReplicaSets together, against a small API: they arrive, they rest, and on the way they keep their promises.

mod world;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;
use shoal_controllers::{Action, deployment, is_active, is_ready, replica_set};
use world::World;

fn deployment(replicas: i32, surge: i32, unavailable: i32, strategy: &str) -> serde_json::Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": strategy},
            "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "one"}]}},
        },
    });
    if strategy == "RollingUpdate" {
        object["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    }
    object
}

fn decide(world: &World, reversed: bool) -> Vec<Action> {
    let mut pods: Vec<Pod> = world.all("Pod");
    let mut sets: Vec<ReplicaSet> = world.all("ReplicaSet");
    if reversed {
        pods.reverse();
        sets.reverse();
    }
    let (pods, sets): (Vec<&Pod>, Vec<&ReplicaSet>) = (pods.iter().collect(), sets.iter().collect());
    let mut actions: Vec<Action> = world
        .all::<Deployment>("Deployment")
        .iter()
        .flat_map(|web| deployment::reconcile(web, &sets, world.now))
        .collect();
    for set in world.all::<ReplicaSet>("ReplicaSet") {
        actions.extend(replica_set::reconcile(&set, &pods, world.now));
    }
    actions.retain(|action| !matches!(action, Action::Event { .. } | Action::LookAgain { .. }));
    actions
}

/// Lets everybody work until nobody has anything to do; `check` sees the world after every single step.
fn settle(world: &mut World, mut check: impl FnMut(&World)) {
    for _ in 0..400 {
        let actions = decide(world, false);
        let nothing_to_do = actions.is_empty();
        for action in actions {
            world.act(&action);
            check(world);
        }
        let nodes_worked = world.nodes_work();
        check(world);
        if nothing_to_do && !nodes_worked {
            return;
        }
    }
    panic!("there is no end to it: {:#?}", &world.log[world.log.len() - 40..]);
}

fn active(world: &World) -> Vec<Pod> {
    world.all::<Pod>("Pod").into_iter().filter(is_active).collect()
}

fn set_image(world: &mut World, image: &str) {
    world.change("Deployment", "web", |web| web["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
}

fn images(world: &World) -> Vec<String> {
    let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
    active(world).iter().map(image).collect()
}

fn web(world: &World) -> Deployment {
    world.all("Deployment").remove(0)
}

fn condition(world: &World, kind: &str) -> (String, String) {
    let conditions = web(world).status.and_then(|status| status.conditions).unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition.type_ == kind).expect("it says so");
    (found.status, found.reason.unwrap_or_default())
}

#[test]
fn a_deployment_comes_to_be_available() {
    let mut world = World::new();
    world.create(deployment(3, 1, 0, "RollingUpdate"));
    settle(&mut world, |_| {});
    assert_eq!(images(&world), ["one", "one", "one"]);
    let status = web(&world).status.expect("it has one");
    assert_eq!((status.replicas, status.available_replicas, status.unavailable_replicas), (Some(3), Some(3), None));
    assert_eq!(condition(&world, "Available"), ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    assert_eq!(condition(&world, "Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
}

#[test]
fn an_old_template_that_comes_back_gets_the_highest_revision() {
    let mut world = World::new();
    world.create(deployment(2, 1, 1, "RollingUpdate"));
    settle(&mut world, |_| {});
    set_image(&mut world, "two");
    settle(&mut world, |_| {});
    set_image(&mut world, "one");
    settle(&mut world, |_| {});
    assert_eq!(images(&world), ["one", "one"]);
    assert_eq!(world.names("ReplicaSet").len(), 2);
    let annotations = web(&world).metadata.annotations.expect("it has some");
    assert_eq!(annotations[deployment::REVISION], "3");
}

#[test]
fn old_replica_sets_are_kept_up_to_the_limit() {
    let mut world = World::new();
    world.create(deployment(1, 1, 0, "RollingUpdate"));
    world.change("Deployment", "web", |web| web["spec"]["revisionHistoryLimit"] = 1.into());
    for image in ["one", "two", "three", "four"] {
        set_image(&mut world, image);
        settle(&mut world, |_| {});
    }
    assert_eq!(world.names("ReplicaSet").len(), 2);
}

#[test]
fn recreate_never_runs_two_templates_at_a_time() {
    let mut world = World::new();
    world.create(deployment(3, 0, 0, "Recreate"));
    settle(&mut world, |_| {});
    set_image(&mut world, "two");
    settle(&mut world, |world| {
        let all: Vec<Pod> = world.all("Pod");
        let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        assert!(all.iter().all(|pod| image(pod) == image(&all[0])), "{:#?}", world.log);
    });
    assert_eq!(images(&world), ["two", "two", "two"]);
}

#[test]
fn a_paused_deployment_keeps_its_template_and_still_scales() {
    let mut world = World::new();
    world.create(deployment(2, 1, 0, "RollingUpdate"));
    settle(&mut world, |_| {});
    world.change("Deployment", "web", |web| {
        web["spec"]["paused"] = true.into();
        web["spec"]["replicas"] = 4.into();
    });
    set_image(&mut world, "two");
    settle(&mut world, |_| {});
    assert_eq!(images(&world), ["one"; 4]);
}

#[test]
fn a_rollout_that_does_not_get_on_says_so() {
    let mut world = World::new();
    world.create(deployment(1, 1, 0, "RollingUpdate"));
    for _ in 0..10 {
        for action in decide(&world, false) {
            world.act(&action);
        }
    }
    world.now = Timestamp::from_second(world.now.as_second() + 601).expect("a time");
    for action in decide(&world, false) {
        world.act(&action);
    }
    assert_eq!(condition(&world, "Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    assert_eq!(decide(&world, false), []);
}

#[test]
fn a_view_that_is_too_old_creates_nothing_twice() {
    let mut world = World::new();
    world.create(deployment(3, 1, 0, "RollingUpdate"));
    for action in decide(&world, false) {
        world.act(&action);
    }
    let once = decide(&world, false);
    for action in once.iter().chain(&once) {
        world.act(action);
    }
    assert_eq!(active(&world).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Kubernetes, "Deployments": no prefix of the actions takes more pods away than maxUnavailable or adds more than maxSurge.
    #[test]
    fn surge_and_unavailable_hold_at_every_step(replicas in 1..6_i32, surge in 0..3_i32, unavailable in 0..3_i32, early in 0..12_usize) {
        let mut world = World::new();
        world.create(deployment(replicas, surge, unavailable, "RollingUpdate"));
        settle(&mut world, |_| {});
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(replicas) };
        let check = |world: &World| {
            let pods = active(world);
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let count = |number: usize| i32::try_from(number).expect("small");
            assert!(count(pods.len()) <= replicas + surge, "too many: {:#?}", world.log);
            assert!(count(ready) >= replicas - unavailable, "too few: {:#?}", world.log);
        };
        set_image(&mut world, "two");
        // A second change comes in the middle of the first.
        for _ in 0..early {
            for action in decide(&world, false) {
                world.act(&action);
                check(&world);
            }
            world.nodes_work();
        }
        set_image(&mut world, "three");
        settle(&mut world, check);
        prop_assert_eq!(images(&world), vec!["three".to_owned(); usize::try_from(replicas).expect("small")]);
    }

    #[test]
    fn the_order_of_what_is_seen_does_not_matter(replicas in 0..5_i32, steps in 0..20_usize) {
        let mut world = World::new();
        world.create(deployment(replicas, 1, 1, "RollingUpdate"));
        for step in 0..steps {
            if step == 7 {
                set_image(&mut world, "two");
            }
            let text = |actions: Vec<Action>| format!("{actions:?}");
            prop_assert_eq!(text(decide(&world, false)), text(decide(&world, true)));
            for action in decide(&world, false) {
                world.act(&action);
            }
            world.nodes_work();
        }
    }

    /// Whatever number is asked for in the middle of a rollout, that many pods stand in the end.
    #[test]
    fn scaling_in_the_middle_of_a_rollout_arrives(before in 0..6_i32, after in 0..6_i32, steps in 0..10_usize) {
        let mut world = World::new();
        world.create(deployment(before, 1, 1, "RollingUpdate"));
        settle(&mut world, |_| {});
        set_image(&mut world, "two");
        for _ in 0..steps {
            for action in decide(&world, false) {
                world.act(&action);
            }
            world.nodes_work();
        }
        world.change("Deployment", "web", |web| web["spec"]["replicas"] = after.into());
        settle(&mut world, |_| {});
        prop_assert_eq!(images(&world), vec!["two".to_owned(); usize::try_from(after).expect("small")]);
    }
}

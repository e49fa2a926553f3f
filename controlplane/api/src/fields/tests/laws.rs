//! What holds for every configuration.

use proptest::prelude::*;

use super::*;
use crate::fields::compare::compare;
use crate::fields::track::update;
use crate::fields::{Element, FieldSet};
use crate::metadata;

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[a-z./\"~]{1,6}".prop_map(Element::field),
        ("[a-z]{1,3}", 0..9i64).prop_map(|(name, port)| {
            Element::key([("name".to_owned(), json!(name)), ("port".to_owned(), json!(port))].into_iter().collect())
        }),
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,4}".prop_map(Value::from)
        ]
        .prop_map(|value| Element::value(&value)),
        (0..5i64).prop_map(Element::Index),
    ]
}

/// Few steps to choose from, so that sets have paths in common.
fn set() -> impl Strategy<Value = FieldSet> {
    let step = prop_oneof![3 => "[a-c]".prop_map(Element::field), 1 => element()];
    proptest::collection::vec(proptest::collection::vec(step, 1..4), 0..8).prop_map(|paths| {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

fn container() -> impl Strategy<Value = Value> {
    let env = proptest::collection::btree_map("[A-C]", "[0-3]", 0..3);
    let ports = proptest::collection::btree_set((1..4i64, prop_oneof![Just("TCP"), Just("UDP")]), 0..3);
    (proptest::option::of("[a-c]"), env, ports, proptest::option::of(proptest::collection::vec("[x-z]", 0..3)))
        .prop_map(|(image, env, ports, args)| {
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let ports: Vec<Value> = ports
                .into_iter()
                .map(|(port, protocol)| json!({"containerPort": port, "protocol": protocol}))
                .collect();
            let mut container = json!({});
            put_list(&mut container, "env", env);
            put_list(&mut container, "ports", ports);
            if let Some(image) = image {
                container["image"] = image.into();
            }
            if let Some(args) = args {
                container["args"] = json!(args);
            }
            container
        })
}

/// An empty list by key has no fields, so that nobody would own it: left out, and so are empty labels.
fn put_list(object: &mut Value, field: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object[field] = list.into();
    }
}

/// A configuration of a deployment, small enough that two often name the same.
fn configuration() -> impl Strategy<Value = Value> {
    (
        proptest::option::of(0..3i64),
        proptest::collection::btree_map("[a-c]", "[0-2]", 0..3),
        proptest::collection::btree_set("[a-c]", 0..3),
        proptest::collection::btree_map("[a-c]", container(), 0..3),
    )
        .prop_map(|(replicas, labels, finalizers, containers)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, mut container)| {
                    container["name"] = name.into();
                    container
                })
                .collect();
            let mut object = if containers.is_empty() { absent() } else { with_containers(containers.into()) };
            if !labels.is_empty() {
                object["metadata"]["labels"] = json!(labels);
            }
            put_list(&mut object["metadata"], "finalizers", finalizers.into_iter().map(Value::from).collect());
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas.into();
            }
            object
        })
}

proptest! {
    #[test]
    fn a_set_comes_back_from_its_encoding(set in set()) {
        prop_assert_eq!(FieldSet::decode(&set.encode()), Some(set));
    }

    #[test]
    fn sets_obey_the_laws_of_sets(a in set(), b in set(), c in set()) {
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.clone().union(&b).union(&c), a.clone().union(&b.clone().union(&c)));
        prop_assert_eq!(a.clone().difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.clone().difference(&b).intersection(&b).is_empty());
        prop_assert!(a.clone().difference(&a).is_empty());
        prop_assert_eq!(a.clone().union(&b).difference(&b), a.clone().difference(&b));
        for path in a.paths() {
            prop_assert!(a.contains(&path));
            prop_assert_eq!(a.clone().difference(&b).contains(&path), !b.contains(&path));
        }
    }

    #[test]
    fn applying_the_same_twice_changes_nothing(wanted in configuration(), before in configuration()) {
        let live = posted(&before, deployments(), by("creator"));
        let once = forced(&live, &wanted, deployments(), by("kubectl"));
        let twice = applied(&once, &wanted, deployments(), Writer { now: LATER, ..by("kubectl") });
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn applying_nothing_removes_what_was_owned_alone(wanted in configuration()) {
        let live = applied(&absent(), &wanted, deployments(), by("kubectl"));
        let nothing = applied(&live, &absent(), deployments(), by("kubectl"));
        let mut expected = absent();
        expected["metadata"]["uid"] = "1".into();
        prop_assert_eq!(nothing, expected);
    }

    #[test]
    fn applying_nothing_leaves_what_another_applied(one in configuration(), two in configuration()) {
        let alone = applied(&absent(), &two, deployments(), by("two"));
        let both = forced(&applied(&absent(), &one, deployments(), by("one")), &two, deployments(), by("two"));
        let left = applied(&both, &absent(), deployments(), by("one"));
        // What `two` names is there with its values, whatever `one` had and has taken away.
        prop_assert_eq!(applied(&left, &two, deployments(), by("two")), left.clone());
        prop_assert_eq!(owned(&left, "two", Operation::Apply), owned(&alone, "two", Operation::Apply));
    }

    #[test]
    fn force_always_succeeds_and_the_wish_is_fulfilled(
        wanted in configuration(), before in configuration(), between in configuration()
    ) {
        let live = posted(&before, deployments(), by("creator"));
        let live = forced(&live, &between, deployments(), by("other"));
        let live = forced(&live, &wanted, deployments(), by("kubectl"));
        for (name, value) in metadata::labels(&wanted).into_iter().flatten() {
            prop_assert_eq!(&live["metadata"]["labels"][name], value);
        }
        if let Some(replicas) = wanted.pointer("/spec/replicas") {
            prop_assert_eq!(&live["spec"]["replicas"], replicas);
        }
    }

    #[test]
    fn a_new_value_of_an_own_field_changes_a_time_alone(before in configuration(), after in configuration(), at in 0..2usize) {
        let live = posted(&before, deployments(), by("creator"));
        let live = put(&live, &after, deployments(), by("editor"));
        // What was made without any field is nobody's.
        prop_assume!(live["metadata"].get("managedFields").is_some());
        let mut new = live.clone();
        for (_, value) in metadata::metadata_mut(&mut new).get_mut("labels").and_then(Value::as_object_mut).into_iter().flatten() {
            *value = "new".into();
        }
        let writer = Writer { now: LATER, ..by(["creator", "editor"][at]) };
        let quick = put(&live, &new, deployments(), writer);
        let mut slow = Managed::decode(&live["metadata"]["managedFields"]).unwrap();
        update(&mut slow, &compare(&live, &new, deployments()), writer);
        prop_assert_eq!(Managed::decode(&quick["metadata"]["managedFields"]).unwrap(), slow.clone());
        prop_assert_eq!(&quick["metadata"]["managedFields"], &slow.encode());
    }

    #[test]
    fn an_updater_owns_the_difference_and_nobody_else_does(before in configuration(), after in configuration()) {
        let live = posted(&before, deployments(), by("creator"));
        let new = put(&live, &after, deployments(), by("editor"));
        let managed = Managed::decode(&new["metadata"]["managedFields"]).unwrap();
        let sets: Vec<&FieldSet> = managed.iter().map(|(_, entry)| &entry.fields).collect();
        for (index, set) in sets.iter().enumerate() {
            for other in &sets[index + 1..] {
                prop_assert!(set.intersection(other).is_empty());
            }
        }
        prop_assert_eq!(Managed::decode(&managed.encode()).unwrap(), managed);
    }
}

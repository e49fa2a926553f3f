//! Properties of patches: a patch made from two objects turns the one into the other, and doing it twice is doing it once.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// A patch that turns `from` into `to`, written as kubectl writes it: by merge key, with the order and deletions stated.
fn difference(from: &Value, to: &Value, key_of: fn(&str) -> Option<&'static str>) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { panic!("objects differ, not scalars") };
    let mut patch = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, wanted) in to {
        match (from.get(name), wanted, key_of(name)) {
            (Some(present), wanted, _) if present == wanted => {}
            (Some(present @ Value::Object(_)), Value::Object(_), _) => {
                patch.insert(name.clone(), difference(present, wanted, key_of));
            }
            (Some(Value::Array(present)), Value::Array(wanted), Some(key)) => {
                patch.insert(name.clone(), items(present, wanted, key, key_of));
                let order = wanted.iter().map(|item| json!({ key: item[key] }));
                patch.insert(format!("$setElementOrder/{name}"), order.collect());
            }
            _ => drop(patch.insert(name.clone(), wanted.clone())),
        }
    }
    Value::Object(patch)
}

fn items(present: &[Value], wanted: &[Value], key: &str, key_of: fn(&str) -> Option<&'static str>) -> Value {
    let find = |items: &[Value], wanted: &Value| items.iter().find(|item| item[key] == wanted[key]).cloned();
    let mut patch = Vec::new();
    for item in wanted {
        let mut change = find(present, item).map_or(item.clone(), |present| difference(&present, item, key_of));
        change[key] = item[key].clone();
        patch.push(change);
    }
    let gone = present.iter().filter(|item| find(wanted, item).is_none());
    patch.extend(gone.map(|item| json!({ key: item[key], "$patch": "delete" })));
    Value::Array(patch)
}

fn key_of(name: &str) -> Option<&'static str> {
    matches!(name, "containers" | "env").then_some("name")
}

fn variables() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["A", "B", "C", "D"], 0..=4).prop_shuffle();
    (names, 0..3).prop_map(|(names, value): (Vec<&str>, i32)| {
        names.iter().map(|name| json!({ "name": name, "value": value.to_string() })).collect()
    })
}

fn containers() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["x", "y", "z"], 1..=3).prop_shuffle();
    let parts = (variables(), 0..3, prop::option::of(prop::collection::vec("[ab]", 0..3)));
    (names, prop::collection::vec(parts, 3)).prop_map(|(names, parts)| {
        let container = |(name, (env, image, args)): (&&str, &(Value, i32, Option<Vec<String>>))| {
            let mut container = json!({ "name": name, "image": format!("i:{image}"), "env": env });
            if let Some(args) = args {
                container["args"] = json!(args);
            }
            container
        };
        names.iter().zip(&parts).map(container).collect()
    })
}

fn deployments() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[a-c]", "[a-c]", 0..3);
    (labels, 0..4, containers()).prop_map(|(labels, replicas, containers)| {
        json!({ "metadata": { "labels": labels }, "spec": { "replicas": replicas, "template": { "spec": { "containers": containers } } } })
    })
}

proptest! {
    #[test]
    fn a_strategic_patch_of_a_difference_makes_it(from in deployments(), to in deployments()) {
        let patch = difference(&from, &to, key_of);
        prop_assert_eq!(strategic_merge(&from, &patch, DEPLOYMENT).unwrap(), to);
    }

    #[test]
    fn a_strategic_patch_twice_is_the_same_as_once(from in deployments(), to in deployments(), other in deployments()) {
        let patch = difference(&from, &to, key_of);
        let once = strategic_merge(&other, &patch, DEPLOYMENT).unwrap();
        prop_assert_eq!(strategic_merge(&once, &patch, DEPLOYMENT).unwrap(), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(object in deployments()) {
        prop_assert_eq!(&strategic_merge(&object, &json!({}), DEPLOYMENT).unwrap(), &object);
        let mut same = object.clone();
        merge_patch(&mut same, &json!({}));
        json_patch(&mut same, &json!([])).unwrap();
        prop_assert_eq!(same, object);
    }

    #[test]
    fn an_object_as_its_own_patch_changes_nothing(object in deployments()) {
        prop_assert_eq!(strategic_merge(&object, &object, DEPLOYMENT).unwrap(), object);
    }

    #[test]
    fn a_merge_patch_of_a_difference_makes_it(from in deployments(), to in deployments()) {
        let mut object = from.clone();
        merge_patch(&mut object, &difference(&from, &to, |_| None));
        prop_assert_eq!(object, to);
    }
}

//! The metadata that the server, and not the client, gives an object.

use jiff::{Timestamp, Unit};
use rand::RngExt;
use serde_json::{Map, Value, json};
use shoal_api::{Status, metadata};
use uuid::Uuid;

/// The letters of generated name suffixes: no vowels, nothing that looks like another.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// The longest name that is generated; the prefix is cut to fit.
const GENERATED_NAME_LENGTH: usize = 63;
/// What only the server sets; `managedFields`, which clients may change, are `ownership`'s.
const SERVER_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
];

/// Now, in whole seconds, as Kubernetes writes times.
pub(crate) fn now() -> String {
    format_time(Timestamp::now())
}

/// A time in whole seconds, as Kubernetes writes times.
pub(crate) fn format_time(time: Timestamp) -> String {
    time.round(Unit::Second).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// The object's metadata, made if missing.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let map = object.as_object_mut().expect("was just made an object");
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("was just made an object")
}

/// Sets the identity of a new object: uid, time, generation; and takes away what a client may not set.
pub(crate) fn give_identity(object: &mut Value, has_generation: bool) {
    let metadata = metadata_mut(object);
    for field in SERVER_FIELDS {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Carries over to `new` what an update cannot change. An explicit other uid is a conflict and checked elsewhere.
pub(crate) fn keep_identity(new: &mut Value, old: &Value) {
    let old = old.get("metadata").and_then(Value::as_object);
    let metadata = metadata_mut(new);
    for field in SERVER_FIELDS {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Counts a new generation when anything but metadata and status changed.
pub(crate) fn count_generation(new: &mut Value, old: &Value) {
    let differs = {
        let rest = |object: &Value| -> Map<String, Value> {
            let kept = object
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        rest(new) != rest(old)
    };
    if differs {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        metadata_mut(new).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Makes a name from `generateName` if there is no name; says whether it did.
pub(crate) fn generate_name(object: &mut Value) -> bool {
    let metadata = metadata_mut(object);
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let Some(prefix) =
        metadata.get("generateName").and_then(Value::as_str).filter(|prefix| !named && !prefix.is_empty())
    else {
        return false;
    };
    let mut cut = prefix.len().min(GENERATED_NAME_LENGTH - SUFFIX_LENGTH);
    while !prefix.is_char_boundary(cut) {
        cut -= 1;
    }
    let name = format!("{}{}", &prefix[..cut], suffix());
    metadata.insert("name".to_owned(), name.into());
    true
}

/// The end of a generated name.
pub(crate) fn suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())])).collect()
}

/// Sets the namespace of the path, or refuses another one in the body.
///
/// # Errors
/// 400 when the body names another namespace.
pub(crate) fn set_namespace(object: &mut Value, namespace: Option<&str>) -> Result<(), Status> {
    let given = metadata::namespace(object).unwrap_or_default();
    if !given.is_empty() && Some(given) != namespace {
        let message = match namespace {
            Some(namespace) => {
                format!(
                    "the namespace of the provided object does not match the namespace sent on the request: {given:?} is not {namespace:?}"
                )
            }
            None => "namespace may not be set on a cluster-scoped object".to_owned(),
        };
        return Err(Status::bad_request(message));
    }
    if let Some(namespace) = namespace {
        metadata_mut(object).insert("namespace".to_owned(), namespace.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_fits_and_keeps_its_prefix() {
        let mut object = json!({"metadata": {"generateName": "a".repeat(80)}});
        assert!(generate_name(&mut object));
        let name = metadata::name(&object).expect("was generated");
        assert_eq!(name.len(), GENERATED_NAME_LENGTH);
        let mut named = json!({"metadata": {"name": "x", "generateName": "y-"}});
        assert!(!generate_name(&mut named));
    }

    #[test]
    fn only_a_change_of_the_wish_counts_a_generation() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"b": 1}});
        let mut new = json!({"metadata": {"generation": 3, "labels": {}}, "spec": {"a": 1}, "status": {"b": 2}});
        count_generation(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
        new["spec"]["a"] = 2.into();
        count_generation(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 4);
    }
}

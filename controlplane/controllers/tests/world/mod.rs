//! A small API in memory: it keeps objects, versions, uids, generations and finalizers as the real one does, and nothing more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use shoal_controllers::{Action, Target};

/// Kind, namespace, name.
type Key = (String, String, String);

/// The objects, and the clock.
#[derive(Debug, Clone)]
pub struct World {
    objects: BTreeMap<Key, Value>,
    revision: u64,
    pub now: Timestamp,
    /// Every action that was done, for people.
    pub log: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            revision: 0,
            now: Timestamp::from_second(1_700_000_000).expect("a time"),
            log: Vec::new(),
        }
    }

    /// Adds an object as a user would.
    pub fn create(&mut self, mut object: Value) {
        self.revision += 1;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        assert!(!self.objects.contains_key(&key), "{key:?} is there already");
        object["metadata"]["uid"] = format!("uid-{}", self.revision).into();
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        object["metadata"]["creationTimestamp"] = self.now.to_string().into();
        object["metadata"]["generation"] = 1.into();
        self.objects.insert(key, object);
    }

    /// Changes an object in place, as somebody else would.
    pub fn change(&mut self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.revision += 1;
        let object = self.objects.iter_mut().find(|(key, _)| key.0 == kind && key.2 == name).expect("it is there").1;
        let spec = object["spec"].clone();
        change(object);
        if object["spec"] != spec {
            object["metadata"]["generation"] =
                (object["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        }
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
    }

    pub fn all<K: serde::de::DeserializeOwned>(&self, kind: &str) -> Vec<K> {
        let chosen = self.objects.iter().filter(|(key, _)| key.0 == kind);
        chosen.map(|(_, object)| serde_json::from_value(object.clone()).expect("it is of its kind")).collect()
    }

    pub fn names(&self, kind: &str) -> Vec<String> {
        self.objects.keys().filter(|key| key.0 == kind).map(|key| key.2.clone()).collect()
    }

    /// Does one action; `false` if the world is not as the action assumes.
    pub fn act(&mut self, action: &Action) -> bool {
        let key = |target: &Target| (target.kind.clone(), target.namespace.clone(), target.name.clone());
        match action {
            Action::Create { target, object } => {
                if self.objects.contains_key(&key(target)) {
                    return false;
                }
                self.log.push(format!("create {} {}", target.kind, target.name));
                self.create(object.clone());
            }
            Action::Replace { target, subresource, object } => {
                let Some(present) = self.objects.get(&key(target)) else { return false };
                if present["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return false;
                }
                self.log.push(format!("replace {} {}/{subresource}", target.kind, target.name));
                let mut next = if *subresource == "status" { present.clone() } else { object.clone() };
                let status = if *subresource == "status" { object } else { present };
                next["status"] = status["status"].clone();
                if *subresource == "finalize" && next["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                    self.objects.remove(&key(target));
                } else {
                    self.change(&target.kind, &target.name, |object| *object = next);
                    self.let_go(&key(target));
                }
            }
            Action::Patch { target, patch } => {
                let Some(present) = self.objects.get(&key(target)) else { return false };
                let metadata = &present["metadata"];
                if metadata["resourceVersion"] != patch["metadata"]["resourceVersion"]
                    || metadata["uid"] != patch["metadata"]["uid"]
                {
                    return false;
                }
                self.log.push(format!("patch {} {}", target.kind, target.name));
                self.change(&target.kind, &target.name, |object| merge(object, patch));
                self.let_go(&key(target));
            }
            Action::Delete { target, uid, .. } => return self.delete(&key(target), uid),
            Action::DeleteOrphan { target, uid, owners, .. } => {
                let is_left = |(owner, uid): &(Target, String)| {
                    self.objects.get(&key(owner)).is_some_and(|it| it["metadata"]["uid"] == **uid)
                };
                return !owners.iter().any(is_left) && self.delete(&key(target), uid);
            }
            Action::DeleteAll { target } => {
                self.objects.retain(|key, _| key.0 != target.kind || key.1 != target.namespace)
            }
            Action::RemoveDirectory { volume, claims, .. } => {
                let is_left = |(claim, uid): &(Target, String)| {
                    self.objects.get(&key(claim)).is_some_and(|it| it["metadata"]["uid"] == **uid)
                };
                if claims.iter().any(is_left) {
                    return false;
                }
                self.log.push(format!("remove the directory of {volume}"));
            }
            Action::Event { .. } | Action::LookAgain { .. } => {}
        }
        true
    }

    fn delete(&mut self, key: &Key, uid: &str) -> bool {
        let Some(object) = self.objects.get_mut(key).filter(|object| object["metadata"]["uid"] == uid) else {
            return false;
        };
        self.log.push(format!("delete {} {}", key.0, key.2));
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        object["metadata"]["deletionTimestamp"] = self.now.to_string().into();
        self.let_go(key);
        true
    }

    /// Removes what is being deleted and held by nothing; pods wait for their node (see [`World::nodes_work`]).
    fn let_go(&mut self, key: &Key) {
        let is_free = |object: &Value| object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let is_gone = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null() && is_free(object);
        if key.0 != "Pod" && self.objects.get(key).is_some_and(is_gone) {
            self.objects.remove(key);
        }
    }

    /// Nodes do their part for one pod: the first that is going goes, else the first that is not ready becomes so.
    pub fn nodes_work(&mut self) -> bool {
        let going =
            |(key, object): &(&Key, &Value)| key.0 == "Pod" && !object["metadata"]["deletionTimestamp"].is_null();
        if let Some(key) = self.objects.iter().find(going).map(|(key, _)| key.clone()) {
            self.revision += 1;
            self.objects.remove(&key);
            return true;
        }
        let waiting = |(key, object): &(&Key, &Value)| key.0 == "Pod" && object["status"]["phase"] != "Running";
        let Some(name) = self.objects.iter().find(waiting).map(|(key, _)| key.2.clone()) else { return false };
        let now = self.now.to_string();
        self.change("Pod", &name, |pod| {
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
            pod["status"] = json!({"phase": "Running", "podIP": "10.64.0.1", "conditions": ready});
        });
        true
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            object.as_object_mut().expect("made so").remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

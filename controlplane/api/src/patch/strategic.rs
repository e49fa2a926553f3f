//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.
//!
//! | directive | where | what it does |
//! |---|---|---|
//! | `$patch: replace` | in a struct | the struct becomes the patch |
//! | `$patch: delete` | in a struct | the struct becomes empty; as an item of a list, the item goes |
//! | `$patch: replace` | as an item of a list | the list becomes the other items of the patch |
//! | `$retainKeys: [..]` | in a struct | members that are not named go |
//! | `$setElementOrder/x: [..]` | beside `x` | the order of the list `x` |
//! | `$deleteFromPrimitiveList/x: [..]` | beside `x` | values that go from the list `x` |
//!
//! What the schema does not know is merged as by a merge patch. The rules are those of the Kubernetes page "Strategic
//! Merge Patch" of the API conventions; the keys come from the schema table.

use serde_json::{Map, Value};

use super::PatchError;
use super::ordering::arrange;
use crate::schema::{self, Field, Schema, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
/// How deep a patch may nest.
const MAX_DEPTH: usize = 100;

type Members = Map<String, Value>;

/// The object after the patch. `schema` names its message: `io.k8s.api.apps.v1.Deployment`.
///
/// # Errors
/// [`PatchError::Strategic`] for a wrong directive or an item without its merge key.
pub fn strategic_merge(current: &Value, patch: &Value, schema: &str) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(refuse("an object and its patch must be JSON objects"));
    };
    let merge = Merge { depth: 0 };
    merge.members(current.clone(), patch, schema::schema(schema)).map(Value::Object)
}

fn refuse(reason: impl Into<String>) -> PatchError {
    PatchError::Strategic(reason.into())
}

#[derive(Clone, Copy)]
struct Merge {
    depth: usize,
}

/// How the items of a merged list are told apart.
#[derive(Clone, Copy)]
pub(super) enum Identity<'k> {
    /// By the value of this member.
    Key(&'k str),
    /// By themselves.
    Value,
}

impl Identity<'_> {
    /// What tells the item apart; none if it lacks the key.
    pub(super) fn of<'v>(&self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Key(key) => item.get(*key).filter(|value| !value.is_null()),
            Self::Value => Some(item),
        }
    }

    pub(super) fn position(&self, items: &[Value], wanted: &Value) -> Option<usize> {
        items.iter().position(|item| self.of(item) == Some(wanted))
    }
}

fn identity(field: Option<&Field>) -> Option<Identity<'_>> {
    let field = field.filter(|field| field.patch.merge && field.shape == Shape::List)?;
    Some(field.merge_key.map_or(Identity::Value, Identity::Key))
}

impl Merge {
    fn deeper(self) -> Result<Self, PatchError> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            Err(refuse(format!("it nests deeper than {MAX_DEPTH} levels")))
        } else {
            Ok(Self { depth })
        }
    }

    fn members(self, mut current: Members, patch: &Members, schema: Option<Schema<'_>>) -> Result<Members, PatchError> {
        let merge = self.deeper()?;
        match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None | Some("merge") => {}
            Some("delete") => return Ok(Members::new()),
            Some("replace") => return merge.members(Members::new(), &without_directive(patch), schema),
            Some(other) => return Err(refuse(format!("unknown patch type {other:?} in a map"))),
        }
        retain(&mut current, patch)?;
        for (name, values) in directives(patch, DELETE_PRIMITIVES) {
            delete_values(&mut current, name, values?);
        }
        for (name, value) in patch.iter().filter(|(name, _)| !is_directive(name)) {
            let field = schema.and_then(|schema| schema.field(name));
            let present = current.remove(name);
            let order = patch.get(&format!("{ELEMENT_ORDER}{name}"));
            let merged = merge.value(present, value, field, schema, order)?;
            current.extend(merged.map(|merged| (name.clone(), merged)));
        }
        for (name, order) in directives(patch, ELEMENT_ORDER) {
            let field = schema.and_then(|schema| schema.field(name));
            if let (Some(identity), Some(Value::Array(items)), false) =
                (identity(field), current.get_mut(name), patch.contains_key(name))
            {
                let before = items.clone();
                *items = arrange(std::mem::take(items), order?, &before, identity);
            }
        }
        Ok(current)
    }

    /// The member after the patch; none if it goes.
    fn value(
        self,
        present: Option<Value>,
        patch: &Value,
        field: Option<&Field>,
        schema: Option<Schema<'_>>,
        order: Option<&Value>,
    ) -> Result<Option<Value>, PatchError> {
        let child = field.and_then(|field| schema.and_then(|schema| schema.child(field)));
        let replaced = field.is_some_and(|field| field.patch.replace);
        match (patch, present) {
            (Value::Null, _) => Ok(None),
            (Value::Object(patch), present) => {
                let present = match present {
                    Some(Value::Object(present)) if !replaced => present,
                    _ => Members::new(),
                };
                let merged = match field.map(|field| field.shape) {
                    Some(Shape::Map) => self.map(present, patch, child)?,
                    _ => self.members(present, patch, child)?,
                };
                Ok(Some(Value::Object(merged)))
            }
            (Value::Array(patch), present) => {
                let Some(identity) = identity(field) else { return Ok(Some(Value::Array(patch.clone()))) };
                let present = match present {
                    Some(Value::Array(present)) => present,
                    _ => Vec::new(),
                };
                self.list(&present, patch, identity, child, order).map(|list| Some(Value::Array(list)))
            }
            (scalar, _) => Ok(Some(scalar.clone())),
        }
    }

    /// Values by string: each is merged by the schema of the values.
    fn map(self, present: Members, patch: &Members, child: Option<Schema<'_>>) -> Result<Members, PatchError> {
        let Some(child) = child else { return self.members(present, patch, None) };
        let merge = self.deeper()?;
        let mut merged = match patch.get(PATCH).and_then(Value::as_str) {
            Some("replace" | "delete") => Members::new(),
            _ => present,
        };
        for (name, value) in patch.iter().filter(|(name, _)| !is_directive(name)) {
            match (value, merged.remove(name)) {
                (Value::Null, _) => {}
                (Value::Object(patch), present) => {
                    let present = present.and_then(|present| present.as_object().cloned()).unwrap_or_default();
                    merged.insert(name.clone(), Value::Object(merge.members(present, patch, Some(child))?));
                }
                (other, _) => drop(merged.insert(name.clone(), other.clone())),
            }
        }
        Ok(merged)
    }

    fn list(
        self,
        before: &[Value],
        patch: &[Value],
        identity: Identity<'_>,
        child: Option<Schema<'_>>,
        order: Option<&Value>,
    ) -> Result<Vec<Value>, PatchError> {
        let replace = patch.iter().any(|item| directive(item) == Some("replace"));
        let mut merged = if replace { Vec::new() } else { before.to_vec() };
        let mut touched = Vec::new();
        for item in patch {
            let at = |merged: &[Value]| -> Result<Option<usize>, PatchError> {
                let wanted = identity.of(item).ok_or_else(|| missing_key(item, identity))?;
                Ok(identity.position(merged, wanted))
            };
            match directive(item) {
                Some("delete") => {
                    while let Some(found) = at(&merged)? {
                        merged.remove(found);
                    }
                }
                Some("replace") => {}
                Some(other) if other != "merge" => {
                    return Err(refuse(format!("unknown patch type {other:?} in a list")));
                }
                _ => {
                    let found = at(&merged)?;
                    let present = found.map(|found| std::mem::take(&mut merged[found]));
                    let value = self.item(present, item, child)?;
                    match found {
                        Some(found) => merged[found] = value,
                        None => merged.push(value),
                    }
                    touched.push(item.clone());
                }
            }
        }
        match order {
            None => Ok(arrange(merged, &touched, before, identity)),
            Some(Value::Array(order)) => {
                check_order(&touched, order, identity)?;
                Ok(arrange(merged, order, before, identity))
            }
            Some(_) => Err(refuse("an element order must be a list")),
        }
    }

    fn item(self, present: Option<Value>, patch: &Value, child: Option<Schema<'_>>) -> Result<Value, PatchError> {
        match (patch, present) {
            (Value::Object(patch), Some(Value::Object(present))) => {
                self.members(present, patch, child).map(Value::Object)
            }
            (Value::Object(patch), _) => self.members(Members::new(), patch, child).map(Value::Object),
            (other, _) => Ok(other.clone()),
        }
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) || name.starts_with(DELETE_PRIMITIVES)
}

fn directive(item: &Value) -> Option<&str> {
    item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default())
}

fn without_directive(patch: &Members) -> Members {
    patch.iter().filter(|(name, _)| *name != PATCH).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn missing_key(item: &Value, identity: Identity<'_>) -> PatchError {
    let key = match identity {
        Identity::Key(key) => key,
        Identity::Value => "value",
    };
    refuse(format!("map: {item} does not contain declared merge key: {key}"))
}

/// The directives `prefix/name` of a patch: the name and the list.
fn directives<'p>(
    patch: &'p Members,
    prefix: &'p str,
) -> impl Iterator<Item = (&'p str, Result<&'p [Value], PatchError>)> {
    patch.iter().filter_map(move |(name, value)| {
        let field = name.strip_prefix(prefix)?;
        Some((field, value.as_array().map(Vec::as_slice).ok_or_else(|| refuse(format!("{name} must be a list")))))
    })
}

/// Drops the members that `$retainKeys` does not name.
fn retain(current: &mut Members, patch: &Members) -> Result<(), PatchError> {
    let Some(kept) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let kept = kept.as_array().ok_or_else(|| refuse("$retainKeys must be a list"))?;
    let is_kept = |name: &str| kept.iter().any(|kept| kept == name);
    if let Some((name, _)) =
        patch.iter().find(|(name, value)| !is_directive(name) && !value.is_null() && !is_kept(name))
    {
        return Err(refuse(format!("{name:?} is set and not among $retainKeys")));
    }
    current.retain(|name, _| is_kept(name));
    Ok(())
}

fn delete_values(current: &mut Members, name: &str, values: &[Value]) {
    if let Some(Value::Array(list)) = current.get_mut(name) {
        list.retain(|value| !values.contains(value));
    }
}

/// What the patch sets must stand in the order too, in the same order.
fn check_order(touched: &[Value], order: &[Value], identity: Identity<'_>) -> Result<(), PatchError> {
    let mut rest = order;
    for item in touched {
        let wanted = identity.of(item).ok_or_else(|| missing_key(item, identity))?;
        match identity.position(rest, wanted) {
            Some(found) => rest = &rest[found + 1..],
            None => {
                return Err(refuse(format!("the order of the list does not match its $setElementOrder at {wanted}")));
            }
        }
    }
    Ok(())
}

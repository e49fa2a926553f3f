//! The order of a merged list.
//!
//! Items that the client names come in the client's order. The others keep their own order, and stand before the first
//! named item that they stood before. An item that is new has no place among the old ones and goes first:
//! `[a, b]` patched with `[c]` is `[c, a, b]`.

use serde_json::Value;

use super::strategic::Identity;

/// `merged` in the order that `named` asks for, with the rest placed as it was in `before`.
pub(super) fn arrange(merged: Vec<Value>, named: &[Value], before: &[Value], identity: Identity<'_>) -> Vec<Value> {
    let place = |items: &[Value], item: &Value| identity.of(item).and_then(|wanted| identity.position(items, wanted));
    let (mut ordered, rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(named, item).is_some());
    ordered.sort_by_key(|item| place(named, item));
    let mut result = Vec::with_capacity(ordered.len() + rest.len());
    let mut rest = rest.into_iter().peekable();
    for item in ordered {
        let here = place(before, &item);
        while let Some(other) = rest.next_if(|other| here.is_some() && place(before, other) < here) {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(rest);
    result
}

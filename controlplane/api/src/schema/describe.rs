//! What the most-used kinds and fields are for, in a sentence each: what `kubectl explain` shows beside the types.
//!
//! Our own words, in `descriptions.txt`: `Kind: sentence` for a message, `Kind.field: sentence` for a field, and
//! `*.field: sentence` for a field that means the same everywhere.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a message is for; the name is its short one, `DeploymentSpec`.
pub fn describe_message(name: &str) -> Option<&'static str> {
    descriptions().get(name).copied()
}

/// What a field of a message is for.
pub fn describe_field(message: &str, field: &str) -> Option<&'static str> {
    let descriptions = descriptions();
    let own = descriptions.get(format!("{message}.{field}").as_str());
    own.or_else(|| descriptions.get(format!("*.{field}").as_str())).copied()
}

fn descriptions() -> &'static BTreeMap<&'static str, &'static str> {
    static DESCRIPTIONS: OnceLock<BTreeMap<&str, &str>> = OnceLock::new();
    DESCRIPTIONS
        .get_or_init(|| include_str!("descriptions.txt").lines().filter_map(|line| line.split_once(": ")).collect())
}

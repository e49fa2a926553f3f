//! Who a request comes from.

use std::collections::BTreeMap;

/// An authenticated user, as authorization and the review APIs see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name: a certificate's common name, or `system:serviceaccount:<namespace>:<name>`.
    pub name: String,
    /// The service account's uid; empty for others.
    pub uid: String,
    /// The groups, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
    /// Further facts, by key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whoever shows nothing.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// A user whose groups are `groups` and `system:authenticated`.
    pub(crate) fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == "system:authenticated") {
            groups.push("system:authenticated".to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A service account's user.
    pub(crate) fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::authenticated(format!("system:serviceaccount:{namespace}:{name}"), groups)
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == "system:anonymous"
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|known| known == group)
    }

    /// The name of the node that this user is, if it is one: `system:node:<name>` in `system:nodes`.
    pub(crate) fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|node| !node.is_empty() && self.is_in("system:nodes"))
    }
}

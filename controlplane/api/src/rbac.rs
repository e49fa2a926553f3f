//! Who may do what: role-based access control as a pure function of roles and bindings.
//!
//! A [`Policy`] is built from the RBAC objects that there are, and answers for one request at a time. What nodes may do
//! is not a matter of roles but of which pods they run: see [`node`]. The objects that every cluster is born with are
//! in [`bootstrap`], and the rule that nobody hands out what he does not hold in [`escalation`].

pub mod bootstrap;
pub mod escalation;
pub mod node;
mod policy;
mod rule;

pub use policy::Policy;
pub use rule::Rule;

/// One request, as authorization sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a str,
    /// The groups of who asks.
    pub groups: &'a [String],
    /// `get`, `list`, `create`, ...
    pub verb: &'a str,
    /// The resource's group; empty for core.
    pub group: &'a str,
    /// `pods`; empty when it is about a path.
    pub resource: &'a str,
    /// `log`, or empty.
    pub subresource: &'a str,
    /// Empty for what has no namespace, or for all namespaces.
    pub namespace: &'a str,
    /// Empty for a collection.
    pub name: &'a str,
    /// The path, when it is about no resource: `/healthz`.
    pub path: Option<&'a str>,
}

/// Whether a request is allowed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, for this reason.
    Allowed(String),
    /// Allowed by nothing.
    Denied,
}

impl Decision {
    /// Whether it is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl Attributes<'_> {
    /// What a refused user is told, without the leading resource and name:
    /// `User "u" cannot get resource "pods" in API group "" in the namespace "d"`.
    pub fn refusal(&self) -> String {
        let user = self.user;
        let verb = self.verb;
        if let Some(path) = self.path {
            return format!("User {user:?} cannot {verb} path {path:?}");
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", self.group)
    }
}

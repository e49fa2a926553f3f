//! Who may do what: `system:masters` everything, a node what `node.rs` says, all others what RBAC grants.

mod node;

use http::Method;
use shoal_api::selector::FieldSelector;
use shoal_api::{Status, rbac};

use crate::authentication::user::User;
use crate::public_paths;
use crate::request::{self, Target};
use crate::server::Shared;

/// What is to be done, as authorization sees it. Empty strings stand for what does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The path, for what is no resource.
    pub path: Option<String>,
    /// The field selector, for lists and watches.
    pub field_selector: Option<FieldSelector>,
}

impl Attributes {
    /// The attributes of a request.
    pub(crate) fn of(target: &Target, method: &Method, field_selector: Option<FieldSelector>) -> Self {
        match target {
            Target::Path(path) => {
                Self { verb: request::path_verb(method), path: Some(path.clone()), ..Self::default() }
            }
            Target::Resource(target) => Self {
                verb: target.verb.to_owned(),
                group: target.group.clone(),
                version: target.version.clone(),
                resource: target.resource.clone(),
                subresource: target.subresource.clone().unwrap_or_default(),
                namespace: target.namespace.clone().unwrap_or_default(),
                name: target.name.clone().unwrap_or_default(),
                path: None,
                field_selector,
            },
        }
    }

    /// The same in the words of RBAC.
    pub(crate) fn rbac<'a>(&'a self, user: &'a User) -> rbac::Attributes<'a> {
        rbac::Attributes {
            user: &user.name,
            groups: &user.groups,
            verb: &self.verb,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: self.path.as_deref(),
        }
    }

    /// The value that the selector requires of a field.
    fn field(&self, field: &str) -> Option<String> {
        self.field_selector.as_ref().and_then(|selector| selector.required(field)).map(str::to_owned)
    }

    /// The one object that is meant: by the path, or by a selector on the name.
    fn named(&self) -> Option<String> {
        if self.name.is_empty() { self.field("metadata.name") } else { Some(self.name.clone()) }
    }
}

/// Whether `user` may do this.
pub(crate) fn allows(shared: &Shared, user: &User, attributes: &Attributes) -> bool {
    if user.is_in("system:masters") {
        return true;
    }
    if attributes.path.as_deref().is_some_and(public_paths::is_open) && attributes.verb == "get" {
        return true;
    }
    if let Some(node) = user.node()
        && node::allows(&shared.config.store.view(), user, node, attributes)
    {
        return true;
    }
    shared.rbac.allows(user, attributes)
}

/// Refuses what `user` may not do.
///
/// # Errors
/// 403 that names the user, the verb and the resource, as Kubernetes words it.
pub(crate) fn require(shared: &Shared, user: &User, attributes: &Attributes) -> Result<(), Status> {
    if allows(shared, user, attributes) { Ok(()) } else { Err(forbidden(user, attributes)) }
}

fn forbidden(user: &User, attributes: &Attributes) -> Status {
    Status::forbidden(&attributes.group, &attributes.resource, &attributes.name, attributes.rbac(user).refusal())
}

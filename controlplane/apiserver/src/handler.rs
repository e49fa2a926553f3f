//! The road of one request, from its path to its answer. Each step either goes on or is the answer.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::upgrade::OnUpgrade;
use shoal_api::Status;
use shoal_api::resource::{self, Resource};
use shoal_api::selector::FieldSelector;
use shoal_store::{Entry, Revision, Store, View};
use tokio::sync::OwnedSemaphorePermit;

use crate::admission::Admission;
use crate::authentication::user::User;
use crate::authorization::{self, Attributes};
use crate::query::Query;
use crate::request::{self, ResourceTarget, Target};
use crate::server::Shared;
use crate::{
    Body, Peer, authentication, errors, keys, limits, metrics, public_paths, respond, reviews, subresources, verbs,
};

/// A request for a known resource, by a user who may make it.
pub(crate) struct Call {
    pub shared: Arc<Shared>,
    pub user: User,
    pub target: ResourceTarget,
    pub resource: &'static Resource,
    pub query: Query,
    pub headers: HeaderMap,
    /// The path and query as they came.
    pub uri: Uri,
    /// The client's connection, for what changes its protocol.
    pub upgrade: Option<OnUpgrade>,
}

impl Call {
    pub(crate) fn store(&self) -> &Store {
        &self.shared.config.store
    }

    /// The namespace of the object or collection; none for what has no namespace (a namespace itself among them).
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.target.namespace.as_deref().filter(|_| self.resource.namespaced)
    }

    /// The name in the path.
    pub(crate) fn name(&self) -> Result<&str, Status> {
        self.target.name.as_deref().ok_or_else(|| Status::bad_request("name must be provided".to_owned()))
    }

    pub(crate) fn key(&self, name: &str) -> String {
        keys::object(self.resource.storage, self.namespace(), name)
    }

    /// What this server has stored under a name.
    pub(crate) fn entry(&self, name: &str) -> Option<Entry> {
        self.store().view().get(&self.key(name)).cloned()
    }

    /// This write as admission sees it.
    pub(crate) fn admission<'a>(
        &'a self,
        name: &'a str,
        subresource: Option<&'a str>,
        view: &'a View,
    ) -> Admission<'a> {
        let policy = self.shared.rbac.policy();
        Admission {
            user: &self.user,
            storage: self.resource.storage,
            subresource,
            namespace: self.namespace(),
            name,
            view,
            policy,
        }
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.resource.group, self.resource.plural, name)
    }

    /// Waits until this server's state holds everything that was acknowledged before the request.
    pub(crate) async fn barrier(&self) -> Result<Revision, Status> {
        match tokio::time::timeout(limits::STORE, self.store().read_barrier()).await {
            Ok(Ok(revision)) => Ok(revision),
            Ok(Err(error)) => Err(errors::read(&error)),
            Err(_) => Err(Status::timeout("the servers did not agree on the current state in time".to_owned())),
        }
    }

    /// Whether the user may do something else in the course of this request.
    pub(crate) fn require(
        &self,
        verb: &str,
        group: &str,
        resource: &str,
        subresource: &str,
        name: &str,
    ) -> Result<(), Status> {
        let attributes = Attributes {
            verb: verb.to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: self.namespace().unwrap_or_default().to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        authorization::require(&self.shared, &self.user, &attributes)
    }
}

/// Answers a request; a failure becomes a `Status`.
pub(crate) async fn answer(shared: &Arc<Shared>, request: Request<Body>, peer: &Peer) -> Response<Body> {
    match route(shared, request, peer).await {
        Ok(response) => response,
        Err(status) => {
            tracing::debug!(code = status.code, message = %status.message, "request failed");
            respond::failure(&status)
        }
    }
}

async fn route(shared: &Arc<Shared>, request: Request<Body>, peer: &Peer) -> Result<Response<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let target = request::parse(&parts.method, parts.uri.path(), query.flag("watch"));
    let _place = admit_load(shared, peer, &target, &query)?;

    let user =
        authentication::authenticate(peer, &parts.headers, &shared.config.service_account_key, &shared.config.store)
            .await?;
    if user.is_anonymous() && !public_paths::is_open(parts.uri.path()) {
        return Err(Status::unauthorized());
    }
    let user = authentication::impersonation::impersonate(shared, user, &parts.headers)?;
    let selector = query.get("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
    authorization::require(shared, &user, &Attributes::of(&target, &parts.method, selector))?;

    let target = match target {
        Target::Path(path) => return public_paths::answer(shared, &parts.method, &path, &query, &parts.headers).await,
        Target::Resource(target) => target,
    };
    let Some(resource) = resource::find(&target.group, &target.version, &target.resource) else {
        return Err(Status::path_not_found());
    };
    if resource.namespaced
        && target.namespace.is_none()
        && (target.name.is_some() || target.verb == "create")
        && !resource.is_virtual()
    {
        return Err(Status::path_not_found());
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let call =
        Call { shared: shared.clone(), user, target, resource, query, headers: parts.headers, uri: parts.uri, upgrade };
    dispatch(call, &parts.method, body).await
}

async fn dispatch(call: Call, method: &Method, body: Body) -> Result<Response<Body>, Status> {
    if call.resource.group == resource::METRICS_GROUP {
        return metrics::answer(&call, method).await;
    }
    if call.resource.is_virtual() {
        return if call.target.verb == "create" && call.target.subresource.is_none() {
            reviews::answer(&call, body).await
        } else {
            Err(not_allowed(&call, method))
        };
    }
    if let Some(subresource) = call.target.subresource.clone() {
        return subresources::answer(call, &subresource, method, body).await;
    }
    if !call.resource.verbs.contains(&call.target.verb) {
        return Err(not_allowed(&call, method));
    }
    match call.target.verb {
        "get" => verbs::get::answer(&call).await,
        "list" => verbs::list::answer(&call).await,
        "watch" => verbs::watch::answer(call).await,
        "create" if call.target.name.is_none() => verbs::create::answer(&call, body).await,
        "update" if call.target.name.is_some() => verbs::update::answer(&call, body, verbs::update::Part::Main).await,
        "patch" if call.target.name.is_some() => verbs::patch::answer(&call, body, verbs::update::Part::Main).await,
        "delete" => verbs::delete::answer(&call, body).await,
        "deletecollection" => verbs::delete_collection::answer(&call, body).await,
        _ => Err(not_allowed(&call, method)),
    }
}

pub(crate) fn not_allowed(call: &Call, method: &Method) -> Status {
    tracing::debug!(%method, resource = call.resource.plural, "method not allowed");
    Status::method_not_allowed(call.resource.group, call.resource.plural, call.target.verb)
}

/// Whether a node says that it lives: refused because others are many, it would be taken for dead.
fn is_heartbeat(peer: &Peer, target: &Target) -> bool {
    let Peer::Certificate { organizations, .. } = peer else { return false };
    let Target::Resource(target) = target else { return false };
    let is_of_node =
        matches!((target.group.as_str(), target.resource.as_str()), ("coordination.k8s.io", "leases") | ("", "nodes"));
    is_of_node && target.name.is_some() && organizations.iter().any(|group| group == "system:nodes")
}

/// Takes a place among the requests in work. Our own loops and the nodes' heartbeats always find one, or the cluster could not heal.
fn admit_load(
    shared: &Shared,
    peer: &Peer,
    target: &Target,
    query: &Query,
) -> Result<Option<OwnedSemaphorePermit>, Status> {
    let long_running = match target {
        Target::Resource(target) => {
            let subresource = target.subresource.as_deref();
            target.verb == "watch"
                || (subresource == Some("log") && query.flag("follow"))
                || matches!(subresource, Some("exec" | "attach" | "portforward" | "proxy"))
        }
        Target::Path(_) => false,
    };
    if long_running || matches!(peer, Peer::Internal(_)) || is_heartbeat(peer, target) {
        return Ok(None);
    }
    match shared.in_flight.clone().try_acquire_owned() {
        Ok(place) => Ok(Some(place)),
        Err(_) => Err(Status::too_many_requests(
            "too many requests, please try again later".to_owned(),
            limits::RETRY_AFTER_SECONDS,
        )),
    }
}

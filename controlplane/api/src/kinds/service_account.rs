//! ServiceAccount: who a pod is.

use crate::resource::{Resource, Subresource};
use crate::table::cells::{AGE, NAME, list, number};

pub(super) const ROW: Resource = Resource {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    storage: "core/serviceaccounts",
    columns: &[
        NAME,
        number("Secrets", "How many secrets it may use.", |object, _| list(object, "/secrets").len().into()),
        AGE,
    ],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    ..Resource::BASE
};

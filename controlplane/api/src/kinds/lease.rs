//! Lease: who holds something, and since when.

use serde_json::Value;

use crate::resource::{Resource, Strategy};
use crate::table::cells::{AGE, NAME, column, text};
use crate::validation::{FieldError, at_least, non_negative};

pub(super) const ROW: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    schema: "io.k8s.api.coordination.v1.Lease",
    storage: "coordination.k8s.io/leases",
    create_on_update: true,
    unconditional_update: false,
    columns: &[NAME, column("Holder", "Who holds it.", |object, _| text(object, "/spec/holderIdentity").into()), AGE],
    strategy: &Lease,
    ..Resource::BASE
};

struct Lease;

impl Strategy for Lease {
    fn check(&self, object: &Value, problems: &mut Vec<FieldError>) {
        at_least(problems, "spec.leaseDurationSeconds", object.pointer("/spec/leaseDurationSeconds"), 1);
        non_negative(problems, "spec.leaseTransitions", object.pointer("/spec/leaseTransitions"));
    }
}

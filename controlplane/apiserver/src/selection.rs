//! Which objects of a collection a list or watch wants: label and field selectors, and the namespace.

use serde_json::Value;
use shoal_api::resource::Resource;
use shoal_api::selector::{FieldSelector, LabelSelector};
use shoal_api::{Status, metadata};

use crate::query::Query;

/// The selectors of a request.
#[derive(Clone)]
pub(crate) struct Selection {
    resource: &'static Resource,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a selector that is malformed or names a field that the resource does not offer.
    pub(crate) fn parse(resource: &'static Resource, query: &Query) -> Result<Self, Status> {
        let labels = query.get("labelSelector").map(LabelSelector::parse).transpose()?;
        let fields = query.get("fieldSelector").map(FieldSelector::parse).transpose()?;
        if let Some(fields) = &fields {
            fields.check(resource)?;
        }
        Ok(Self { resource, labels, fields })
    }

    /// Whether every object is wanted, so that none need be parsed.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// Whether this object is wanted.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.as_ref().is_none_or(|selector| selector.matches(metadata::labels(object)))
            && self.fields.as_ref().is_none_or(|selector| selector.matches(self.resource, object))
    }
}

//! The schema table: which fields every message of the Kubernetes API has, and what is particular about each.
//!
//! One source of facts for protobuf decoding, field validation, strategic merge, server-side apply and OpenAPI. The
//! facts stand in `schema/table.txt`, which `controlplane/api/schema-gen` makes; they are parsed once, on first use,
//! and every name points into the program itself. Begin with [`schema`] or [`of_kind`].

mod describe;
mod parse;

use std::collections::BTreeMap;
use std::sync::OnceLock;

pub use describe::{describe_field, describe_message};

/// The name of `metav1.DeleteOptions`, the body of a DELETE.
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The name of `metav1.ObjectMeta`.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// All messages of a set of API groups, by name.
#[derive(Debug)]
pub struct Table {
    messages: Vec<Message>,
    by_name: BTreeMap<&'static str, MessageId>,
    by_kind: BTreeMap<GroupVersionKind, MessageId>,
}

/// A message's place in its [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageId(u16);

/// What names a kind. The group is empty for the core group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// `apps`.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
}

/// One struct of the API.
#[derive(Debug)]
pub struct Message {
    /// `io.k8s.api.apps.v1.DeploymentSpec`.
    pub name: &'static str,
    /// Set for what has a kind of its own.
    pub kind: Option<GroupVersionKind>,
    /// Whether server-side apply treats it as one value.
    pub atomic: bool,
    /// The fields as JSON has them, in the order of their names; those of inlined structs among them.
    pub fields: Vec<Field>,
    /// The structs that JSON inlines and protobuf does not: field number and message.
    pub inlined: Vec<(u32, MessageId)>,
}

/// One field of a [`Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The JSON name.
    pub name: &'static str,
    /// The protobuf field number; 0 where protobuf has none (`kind`, `apiVersion`, members of inlined structs).
    pub number: u32,
    /// What a single value is.
    pub kind: Kind,
    /// One, a list, or a map from strings.
    pub shape: Shape,
    /// How server-side apply sees it.
    pub list_type: ListType,
    /// What identifies an item of a [`ListType::Map`]; empty otherwise.
    pub map_keys: Vec<&'static str>,
    /// How strategic merge sees it.
    pub patch: PatchStrategy,
    /// What identifies an item to strategic merge; none for scalars.
    pub merge_key: Option<&'static str>,
    /// Whether the API reference says that it is required.
    pub required: bool,
    /// Whether zero and absent are different things (a pointer in Go).
    pub pointer: bool,
}

/// What a single value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    String,
    /// A number of 32 bits.
    Int32,
    /// A number of 64 bits.
    Int64,
    /// A floating point number.
    Double,
    /// True or false.
    Bool,
    /// Bytes, in base64 in JSON.
    Bytes,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// Go's `1h30m0s`.
    Duration,
    /// A number or a text such as `25%`.
    IntOrString,
    /// A resource quantity such as `500m`.
    Quantity,
    /// Any object: `runtime.RawExtension`.
    Object,
    /// The field set of a manager: `metav1.FieldsV1`.
    Fields,
    /// Any JSON value.
    Json,
    /// A message of one list of strings, written as that list (`Verbs`, `ExtraValue`).
    Strings,
    /// A schema or a list of schemas.
    SchemaOrList,
    /// A schema or true or false.
    SchemaOrBool,
    /// A schema or a list of strings.
    SchemaOrStrings,
    /// A struct.
    Message(MessageId),
}

/// Whether a field holds one value or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// A list of values.
    List,
    /// Values by string.
    Map,
}

/// How server-side apply sees a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As the shape says: a struct or a map by its members, a list as one value.
    Default,
    /// One value.
    Atomic,
    /// A list whose items identify themselves.
    Set,
    /// A list whose items are identified by [`Field::map_keys`].
    Map,
}

/// How strategic merge sees a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list is merged, not replaced.
    pub merge: bool,
    /// A struct is replaced, not merged.
    pub replace: bool,
    /// Clients send `$retainKeys` for it.
    pub retain_keys: bool,
}

/// A message with the table that knows its neighbours: what the mechanisms walk over.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'t> {
    table: &'t Table,
    message: &'t Message,
}

/// The schema of that name: `io.k8s.api.apps.v1.Deployment`.
pub fn schema(name: &str) -> Option<Schema<'static>> {
    table().schema(name)
}

/// The schema of that kind; the group is empty for the core group.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Schema<'static>> {
    let table = table();
    let found = table.by_kind.iter().find(|(id, _)| (id.group, id.version, id.kind) == (group, version, kind));
    found.map(|(_, id)| table.get(*id))
}

/// The message of that name.
pub fn message(name: &str) -> Option<&'static Message> {
    schema(name).map(|schema| schema.message)
}

/// Kubernetes' own messages.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    // The metrics' API is no part of the sources that the table is made of.
    const TEXT: &str = concat!(include_str!("schema/table.txt"), include_str!("schema/metrics.txt"));
    TABLE.get_or_init(|| parse::parse(TEXT).expect("the table in the program is whole"))
}

impl Table {
    /// The schema of that name.
    pub fn schema(&self, name: &str) -> Option<Schema<'_>> {
        self.by_name.get(name).map(|id| self.get(*id))
    }

    /// Every message, in the order of their names.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn get(&self, id: MessageId) -> Schema<'_> {
        Schema { table: self, message: &self.messages[usize::from(id.0)] }
    }
}

impl<'t> Schema<'t> {
    /// The message itself.
    pub fn message(&self) -> &'t Message {
        self.message
    }

    /// The table that it is in.
    pub fn table(&self) -> &'t Table {
        self.table
    }

    /// The field of that JSON name.
    pub fn field(&self, name: &str) -> Option<&'t Field> {
        let fields = &self.message.fields;
        fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|at| &fields[at])
    }

    /// The schema of a field's values, if they are structs.
    pub fn child(&self, field: &Field) -> Option<Schema<'t>> {
        match field.kind {
            Kind::Message(id) => Some(self.table.get(id)),
            Kind::SchemaOrList | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
                self.table.schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            }
            _ => None,
        }
    }

    /// The inlined structs, as protobuf has them.
    pub fn inlined(&self) -> impl Iterator<Item = (u32, Schema<'t>)> + use<'t> {
        let table = self.table;
        self.message.inlined.iter().map(move |(number, id)| (*number, table.get(*id)))
    }

    /// The struct's name as Go code has it: `DeploymentSpec`.
    pub fn short_name(&self) -> &'static str {
        self.message.name.rsplit('.').next().unwrap_or(self.message.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_kinds_of_every_group() {
        let deployment = of_kind("apps", "v1", "Deployment").unwrap();
        assert_eq!(deployment.message().name, "io.k8s.api.apps.v1.Deployment");
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("", "v1", "PodList"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "v1", "APIService"),
            ("events.k8s.io", "v1", "Event"),
            ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
        ] {
            assert!(of_kind(group, version, kind).is_some(), "{group}/{version} {kind}");
        }
    }

    #[test]
    fn keys_of_apply_and_of_strategic_merge_differ_for_container_ports() {
        let ports = schema("io.k8s.api.core.v1.Container").unwrap().field("ports").unwrap();
        assert_eq!(ports.map_keys, ["containerPort", "protocol"]);
        assert_eq!((ports.merge_key, ports.patch.merge), (Some("containerPort"), true));
        assert_eq!((ports.shape, ports.list_type), (Shape::List, ListType::Map));
    }

    #[test]
    fn members_of_inlined_structs_are_members() {
        let probe = schema("io.k8s.api.core.v1.Probe").unwrap();
        assert_eq!(probe.field("httpGet").unwrap().number, 0);
        assert_eq!(
            probe.inlined().map(|(number, inner)| (number, inner.short_name())).collect::<Vec<_>>(),
            [(1, "ProbeHandler")]
        );
        let ephemeral = schema("io.k8s.api.core.v1.EphemeralContainer").unwrap();
        assert!(ephemeral.field("image").is_some() && ephemeral.field("targetContainerName").is_some());
    }

    #[test]
    fn every_reference_is_to_a_message_and_every_merge_key_to_a_field() {
        for message in table().messages() {
            let schema = table().schema(message.name).unwrap();
            for field in &message.fields {
                let Some(child) = schema.child(field) else { continue };
                for key in field.map_keys.iter().chain(field.merge_key.iter()) {
                    assert!(child.field(key).is_some(), "{}.{} has no {key}", message.name, field.name);
                }
            }
        }
    }
}

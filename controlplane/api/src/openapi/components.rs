//! The schemas of messages, with the marks that Kubernetes' clients read.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::schema::{self, Field, Kind, ListType, Schema, Shape, describe_field, describe_message};

/// The version of OpenAPI, which decides how a schema refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Schemas by name, with all that they refer to.
pub(super) struct Components {
    dialect: Dialect,
    schemas: Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

impl Components {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, schemas: Map::new(), seen: BTreeSet::new() }
    }

    /// The schemas that a resource's operations speak of.
    pub(super) fn add_resource(&mut self, row: &Resource) {
        let own = schema::schema(row.schema);
        let list = schema::of_kind(row.group, row.version, &format!("{}List", row.kind));
        let subresources = row.subresources.iter();
        let others = subresources.filter_map(|other| schema::of_kind(other.group, other.version, other.kind));
        let common = schema::schema(schema::DELETE_OPTIONS).into_iter();
        own.into_iter().chain(list).chain(others).chain(common).for_each(|schema| self.add(schema));
    }

    pub(super) fn finish(self) -> Map<String, Value> {
        self.schemas
    }

    fn add(&mut self, root: Schema<'static>) {
        let mut waiting = vec![root];
        while let Some(schema) = waiting.pop() {
            let message = schema.message();
            if !self.seen.insert(message.name) {
                continue;
            }
            waiting.extend(message.fields.iter().filter_map(|field| schema.child(field)));
            let rendered = self.message(schema);
            self.schemas.insert(message.name.to_owned(), rendered);
        }
    }

    fn message(&mut self, schema: Schema<'_>) -> Value {
        let message = schema.message();
        let properties: Map<String, Value> =
            message.fields.iter().map(|field| (field.name.to_owned(), self.property(schema, field))).collect();
        let required: Vec<&str> =
            message.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        let mut rendered = json!({ "type": "object" });
        let mut set = |name: &str, value: Value| rendered[name] = value;
        if let Some(description) = describe_message(schema.short_name()) {
            set("description", description.into());
        }
        if !properties.is_empty() {
            set("properties", Value::Object(properties));
        }
        if !required.is_empty() {
            set("required", required.into());
        }
        if message.atomic {
            set("x-kubernetes-map-type", "atomic".into());
        }
        if let Some(kind) = message.kind {
            set(
                "x-kubernetes-group-version-kind",
                json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]),
            );
        }
        rendered
    }

    fn property(&mut self, schema: Schema<'_>, field: &Field) -> Value {
        let single = self.single(schema, field);
        let mut property = match field.shape {
            Shape::One => single,
            Shape::List => json!({ "type": "array", "items": single }),
            Shape::Map => json!({ "type": "object", "additionalProperties": single }),
        };
        let mut set = |name: &str, value: Value| property[name] = value;
        if let Some(description) = describe_field(schema.short_name(), field.name) {
            set("description", description.into());
        }
        match (field.shape, field.list_type) {
            (_, ListType::Default) => {}
            (Shape::List, ListType::Atomic) => set("x-kubernetes-list-type", "atomic".into()),
            (Shape::List, ListType::Set) => set("x-kubernetes-list-type", "set".into()),
            (Shape::List, ListType::Map) => {
                set("x-kubernetes-list-type", "map".into());
                set("x-kubernetes-list-map-keys", field.map_keys.clone().into());
            }
            (_, _) => set("x-kubernetes-map-type", "atomic".into()),
        }
        let strategies =
            [(field.patch.merge, "merge"), (field.patch.replace, "replace"), (field.patch.retain_keys, "retainKeys")];
        let strategies: Vec<&str> = strategies.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        if !strategies.is_empty() {
            set("x-kubernetes-patch-strategy", strategies.join(",").into());
        }
        if let Some(key) = field.merge_key {
            set("x-kubernetes-patch-merge-key", key.into());
        }
        property
    }

    fn single(&mut self, schema: Schema<'_>, field: &Field) -> Value {
        let (name, rendered) = match field.kind {
            Kind::String => return json!({ "type": "string" }),
            Kind::Int32 => return json!({ "type": "integer", "format": "int32" }),
            Kind::Int64 => return json!({ "type": "integer", "format": "int64" }),
            Kind::Double => return json!({ "type": "number", "format": "double" }),
            Kind::Bool => return json!({ "type": "boolean" }),
            Kind::Bytes => return json!({ "type": "string", "format": "byte" }),
            Kind::Strings => return json!({ "type": "array", "items": { "type": "string" } }),
            Kind::Message(_) => return self.reference(schema.child(field).map_or("", |child| child.message().name)),
            Kind::Time => {
                ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", json!({ "type": "string", "format": "date-time" }))
            }
            Kind::MicroTime => {
                ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", json!({ "type": "string", "format": "date-time" }))
            }
            Kind::Duration => ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", json!({ "type": "string" })),
            Kind::IntOrString => {
                ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", self.either("int-or-string", ["integer", "string"]))
            }
            Kind::Quantity => ("io.k8s.apimachinery.pkg.api.resource.Quantity", self.either("", ["string", "number"])),
            Kind::Object => ("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({ "type": "object" })),
            Kind::Fields => ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({ "type": "object" })),
            Kind::Json => ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", json!({})),
            Kind::SchemaOrList => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", json!({}))
            }
            Kind::SchemaOrBool => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", json!({}))
            }
            Kind::SchemaOrStrings => {
                ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", json!({}))
            }
        };
        self.schemas.entry(name).or_insert(rendered);
        self.reference(name)
    }

    /// A value of one of two types; OpenAPI v2 cannot say so.
    fn either(&self, format: &str, types: [&str; 2]) -> Value {
        let mut rendered = match self.dialect {
            Dialect::V2 => json!({ "type": "string" }),
            Dialect::V3 => json!({ "oneOf": [{ "type": types[0] }, { "type": types[1] }] }),
        };
        if !format.is_empty() {
            rendered["format"] = format.into();
        }
        rendered
    }

    fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({ "$ref": format!("#/definitions/{name}") }),
            // Wrapped, because what stands beside a bare `$ref` does not count.
            Dialect::V3 => json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }] }),
        }
    }
}

//! Which values are looked into, and what identifies an item: the schema table as apply sees it.

use serde_json::{Map, Value};

use super::Element;
use crate::schema::{Field, Kind, ListType, Schema, Shape};

/// How a value is owned: as one, or by its parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'t> {
    /// As one.
    Whole,
    /// By its fields.
    Struct(Schema<'t>),
    /// By its entries.
    Map(Place<'t>),
    /// By its items, identified by some of their members.
    Keyed(Place<'t>),
    /// By its items, identified by themselves.
    Set,
}

/// A field in its struct.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'t> {
    schema: Schema<'t>,
    field: &'t Field,
}

/// The structs that Go holds by value: an absent one is an empty one, so nobody owns their being there. The table does
/// not say which they are; these are the ones that an object of any kind has at its top.
const BY_VALUE: [&str; 6] = ["metadata", "spec", "status", "strategy", "template", "updateStrategy"];

/// The one key with a default of its own: the protocol of a port.
const PROTOCOL: &str = "protocol";

impl<'t> Form<'t> {
    /// A field as a whole: one value, a list or a map.
    fn of_field(schema: Schema<'t>, field: &'t Field) -> Self {
        let place = Place { schema, field };
        match (field.shape, field.list_type) {
            (_, ListType::Atomic) | (Shape::List, ListType::Default) => Self::Whole,
            (Shape::One, _) => place.single(),
            (Shape::Map, _) => Self::Map(place),
            (Shape::List, ListType::Set) => Self::Set,
            (Shape::List, ListType::Map) => Self::Keyed(place),
        }
    }

    /// The form of a member; whole for what the schema does not know.
    pub(super) fn member(self, name: &str) -> Self {
        match self {
            Self::Struct(schema) => schema.field(name).map_or(Self::Whole, |field| Self::of_field(schema, field)),
            Self::Map(place) => place.single(),
            _ => Self::Whole,
        }
    }

    /// The form of an item of a list.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Keyed(place) => place.single(),
            _ => Self::Whole,
        }
    }

    /// Whether the member is one that the schema names, and not an entry of a map.
    pub(super) fn declares(self, name: &str) -> bool {
        matches!(self, Self::Struct(schema) if schema.field(name).is_some())
    }

    /// Whether an absent member is the same as an empty one.
    pub(super) fn holds_by_value(self, name: &str) -> bool {
        BY_VALUE.contains(&name) && matches!(self.member(name), Self::Struct(_)) && matches!(self, Self::Struct(_))
    }

    /// This form, or whole for a value that is not of the type that it takes; null fits everything.
    pub(super) fn fitted(self, value: Option<&Value>) -> Self {
        match (self, value) {
            (_, None | Some(Value::Null)) => self,
            (Self::Struct(_) | Self::Map(_), Some(Value::Object(_))) => self,
            (Self::Keyed(_) | Self::Set, Some(Value::Array(_))) => self,
            _ => Self::Whole,
        }
    }

    /// What identifies an item of a list; none if nothing does.
    pub(super) fn identify(self, item: &Value) -> Option<Element> {
        match self {
            Self::Keyed(place) => place.key_of(item).map(Element::key),
            Self::Set if !item.is_object() && !item.is_null() => Some(Element::value(item)),
            _ => None,
        }
    }

    /// What identifies the item at `index`: its place, if nothing else does.
    pub(super) fn element(self, index: usize, item: &Value) -> Element {
        self.identify(item).unwrap_or_else(|| Element::Index(i64::try_from(index).unwrap_or(i64::MAX)))
    }

    /// The names of the keys, for a message.
    pub(super) fn keys(self) -> &'t [&'static str] {
        match self {
            Self::Keyed(place) => &place.field.map_keys,
            _ => &[],
        }
    }
}

impl<'t> Place<'t> {
    /// One value of the field.
    fn single(self) -> Form<'t> {
        match self.schema.child(self.field) {
            Some(child) if !child.message().atomic => Form::Struct(child),
            _ => Form::Whole,
        }
    }

    /// The members that identify an item, with the defaults of those that are absent.
    fn key_of(self, item: &Value) -> Option<Map<String, Value>> {
        let item = item.as_object()?;
        let mut key = Map::new();
        for name in &self.field.map_keys {
            let given = item.get(*name).filter(|value| !value.is_null()).cloned();
            if let Some(value) = given.or_else(|| self.key_default(name)) {
                key.insert((*name).to_owned(), value);
            }
        }
        (!key.is_empty()).then_some(key)
    }

    fn key_default(self, name: &str) -> Option<Value> {
        if name == PROTOCOL {
            return Some("TCP".into());
        }
        let message = self.schema.child(self.field)?;
        let field = message.field(name)?;
        let is_empty_text =
            field.kind == Kind::String && (field.required || message.short_name() == "LocalObjectReference");
        is_empty_text.then(|| "".into())
    }
}

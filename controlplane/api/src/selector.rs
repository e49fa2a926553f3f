//! Label and field selectors: which objects a list, a watch, a controller or a Service means.
//!
//! `app=web,tier in (a, b),!old` is a label selector; `spec.nodeName=n1,status.phase!=Failed` a field selector, of
//! which each resource offers the fields named in its row. The `metav1.LabelSelector` of a Deployment is the first in
//! another spelling.

use serde_json::{Map, Value};

use crate::resource::Resource;
use crate::status::Status;
use crate::validation::names;

/// A conjunction of requirements on labels. Without any, it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Requirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = labels.and_then(|labels| labels.get(&self.key)).and_then(Value::as_str);
        let among = || value.is_some_and(|value| self.values.iter().any(|wanted| wanted == value));
        match self.operator {
            Operator::In => among(),
            Operator::NotIn => !among(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// 400 with the text that says where it cannot be read.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let unreadable = |reason: String| Status::bad_request(format!("unable to parse requirement: {reason}"));
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    break;
                }
                return Err(unreadable("found ',', expected: identifier after ','".to_owned()));
            }
            requirements.push(requirement(part).map_err(unreadable)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector`. Nothing (null) matches nothing, an empty one matches everything.
    ///
    /// # Errors
    /// 400 for an unknown operator or values that do not fit it.
    pub fn from_value(selector: Option<&Value>) -> Result<Self, Status> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            });
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads the plain map of a Service's or ReplicationController's selector. An empty one matches nothing.
    pub fn from_map(labels: Option<&Map<String, Value>>) -> Self {
        let requirements: Vec<Requirement> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            })
            .collect();
        Self { nothing: requirements.is_empty(), requirements }
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            let (key, values) = (&requirement.key, &requirement.values);
            match requirement.operator {
                Operator::In if values.len() == 1 => write!(formatter, "{key}={}", values[0])?,
                Operator::NotIn if values.len() == 1 => write!(formatter, "{key}!={}", values[0])?,
                Operator::In => write!(formatter, "{key} in ({})", values.join(","))?,
                Operator::NotIn => write!(formatter, "{key} notin ({})", values.join(","))?,
                Operator::Exists => formatter.write_str(key)?,
                Operator::DoesNotExist => write!(formatter, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let (key, operator, values) = if let Some(key) = part.strip_prefix('!') {
        (key.trim(), Operator::DoesNotExist, Vec::new())
    } else if let Some((key, value)) = part.split_once("!=") {
        (key.trim(), Operator::NotIn, vec![value.trim()])
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key.trim(), Operator::In, vec![value.trim()])
    } else if let Some((key, operator, values)) = set_requirement(part)? {
        (key, operator, values)
    } else {
        (part, Operator::Exists, Vec::new())
    };
    build(key, operator, values.into_iter().map(str::to_owned).collect())
}

/// The parts of a requirement, not yet checked.
type Parts<'a> = (&'a str, Operator, Vec<&'a str>);

/// `key in (a, b)` and `key notin (a, b)`.
fn set_requirement(part: &str) -> Result<Option<Parts<'_>>, String> {
    let Some((head, tail)) = part.split_once(|character: char| character.is_whitespace()) else { return Ok(None) };
    let tail = tail.trim();
    let (operator, list) = match (tail.strip_prefix("notin"), tail.strip_prefix("in")) {
        (Some(list), _) => (Operator::NotIn, list.trim()),
        (None, Some(list)) => (Operator::In, list.trim()),
        (None, None) => {
            return Err(format!(
                "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                tail.split_whitespace().next().unwrap_or_default()
            ));
        }
    };
    let inner = list
        .strip_prefix('(')
        .and_then(|list| list.strip_suffix(')'))
        .ok_or_else(|| format!("found '{list}' expected: '('"))?;
    Ok(Some((head, operator, inner.split(',').map(str::trim).collect())))
}

fn build(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, String> {
    let wrong = names::qualified_name(key);
    if !wrong.is_empty() {
        return Err(format!("key: Invalid value: {key:?}: {}", wrong.join("; ")));
    }
    for (index, value) in values.iter().enumerate() {
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")));
        }
    }
    Ok(Requirement { key: key.to_owned(), operator, values })
}

fn expression_requirement(expression: &Value) -> Result<Requirement, Status> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let values: Vec<String> = expression
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(Status::bad_request(format!("{other:?} is not a valid label selector operator"))),
    };
    let takes_values = matches!(operator, Operator::In | Operator::NotIn);
    if takes_values == values.is_empty() {
        let message = if takes_values {
            "for 'in', 'notin' operators, values set can't be empty"
        } else {
            "values set must be empty for exists and does not exist"
        };
        return Err(Status::bad_request(format!("values: Invalid value: {values:?}: {message}")));
    }
    build(text("key"), operator, values).map_err(Status::bad_request)
}

/// A conjunction of requirements on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`. A backslash makes a comma, an equals sign or a backslash part of a value.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let invalid =
            |part: &str| Status::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"));
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let at = part.find('=').ok_or_else(|| invalid(part))?;
            let (equal, field) = match part[..at].strip_suffix('!') {
                Some(field) => (false, field),
                None => (true, &part[..at]),
            };
            let value = part[at + 1..].strip_prefix('=').filter(|_| equal).unwrap_or(&part[at + 1..]);
            terms.push(Term {
                field: field.trim().to_owned(),
                equal,
                value: unescape(value).ok_or_else(|| invalid(part))?,
            });
        }
        Ok(Self { terms })
    }

    /// Whether the resource offers every field that is asked for.
    ///
    /// # Errors
    /// 400 `field label not supported: spec.x`.
    pub fn check(&self, resource: &Resource) -> Result<(), Status> {
        for term in &self.terms {
            if !offers(resource, &term.field) {
                let field = &term.field;
                return Err(
                    if resource.group.is_empty()
                        && !matches!(resource.kind, "ConfigMap" | "ServiceAccount" | "Endpoints")
                    {
                        Status::bad_request(format!("field label not supported: {field}"))
                    } else {
                        Status::bad_request(format!(
                            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        ))
                    },
                );
            }
        }
        Ok(())
    }

    /// Whether the object is meant. A field that the resource does not offer is empty.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.terms.iter().all(|term| (value(resource, object, &term.field) == term.value) == term.equal)
    }

    /// The value that this field must have, if the selector says so: `spec.nodeName=n1` asks for `n1`.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

fn offers(resource: &Resource, field: &str) -> bool {
    field == "metadata.name"
        || (field == "metadata.namespace" && resource.namespaced)
        || resource.selectable_fields.iter().any(|selectable| selectable.name == field)
}

fn value(resource: &Resource, object: &Value, field: &str) -> String {
    match field {
        "metadata.name" => crate::metadata::name(object).unwrap_or_default().to_owned(),
        "metadata.namespace" => crate::metadata::namespace(object).unwrap_or_default().to_owned(),
        _ => {
            let selectable = resource.selectable_fields.iter().find(|selectable| selectable.name == field);
            selectable.map(|selectable| (selectable.value)(object)).unwrap_or_default()
        }
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            _ => out.push(character),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource;

    fn matches(selector: &str, labels: &Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(labels.as_object())
    }

    #[test]
    fn every_label_operator_means_what_kubectl_says() {
        let labels = json!({"app": "web", "tier": "front"});
        for selector in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "old!=x",
            "app in (web, db)",
            "tier notin (back)",
            "old notin (x)",
            "app",
            "!old",
            "app=web,tier",
        ] {
            assert!(matches(selector, &labels), "{selector}");
        }
        for selector in ["app=db", "app!=web", "app in (db)", "app notin (web)", "old", "!app", "app=web,tier=back"] {
            assert!(!matches(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for selector in ["a b c", "=x", "a in b", "a=b,", "-a=b", "a=b c", "!"] {
            assert_eq!(LabelSelector::parse(selector).map_err(|status| status.code), Err(400), "{selector}");
        }
    }

    #[test]
    fn the_structured_form_and_the_text_agree() {
        let value = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_value(Some(&value)).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (a,b),!x");
        assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        assert!(!LabelSelector::from_value(None).unwrap().matches(None));
        assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().matches(None));
        assert!(!LabelSelector::from_map(None).matches(None));
    }

    #[test]
    fn pods_are_selected_by_node_and_phase() {
        let pods = resource::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Succeeded,status.phase!=Failed").unwrap();
        assert_eq!(selector.check(pods), Ok(()));
        assert!(selector.matches(pods, &pod));
        assert_eq!(selector.required("spec.nodeName"), Some("n1"));
        assert!(!FieldSelector::parse("metadata.name==b").unwrap().matches(pods, &pod));
        let unknown = FieldSelector::parse("spec.foo=1").unwrap().check(pods).unwrap_err();
        assert_eq!(unknown.message, "field label not supported: spec.foo");
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[ a-z,=!()\\\\/.-]{0,40}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn what_is_printed_is_read_back(key in "[a-z]{1,8}", values in prop::collection::vec("[a-z0-9]{1,4}", 1..4), negate: bool) {
            let text = format!("{key} {} ({})", if negate { "notin" } else { "in" }, values.join(","));
            let selector = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector.clone());
            let mut labels = Map::new();
            labels.insert(key, values[0].clone().into());
            prop_assert_eq!(selector.matches(Some(&labels)), !negate);
        }
    }
}

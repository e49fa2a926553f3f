//! A container's variables: service variables, then `envFrom`, then `env`, later ones over earlier ones.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};

use super::expand::expand;
use super::fields::{self, Place};
use super::references::{SourceKind, Sources};

/// Builds the variables, each name once, in the order of their first mention.
///
/// # Errors
/// The message of a `CreateContainerConfigError`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    services: Vec<(String, String)>,
    place: &Place,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables(services);
    for source in container.env_from.iter().flatten() {
        variables.add_all(source, sources)?;
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), |name| variables.get(name))),
            Some(from) => value_from(pod, container, from, sources, place)?,
        };
        if let Some(value) = value {
            variables.set(&variable.name, value);
        }
    }
    Ok(variables.0)
}

/// `command` and `args` with `$(NAME)` replaced.
pub fn arguments(container: &Container, environment: &[(String, String)]) -> Vec<String> {
    let look_up = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let command = container.command.iter().flatten();
    command.chain(container.args.iter().flatten()).map(|text| expand(text, look_up)).collect()
}

struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn add_all(&mut self, source: &EnvFromSource, sources: &Sources) -> Result<(), String> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => (SourceKind::ConfigMap, &map.name, map.optional),
            (None, Some(secret)) => (SourceKind::Secret, &secret.name, secret.optional),
            (None, None) => return Ok(()),
        };
        let Some(contents) = sources.get(kind, name) else {
            return if optional == Some(true) { Ok(()) } else { Err(not_found(kind, name)) };
        };
        for (key, value) in contents {
            self.set(&format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
        Ok(())
    }
}

/// The error of an object that is not there, as the API words it.
pub fn not_found(kind: SourceKind, name: &str) -> String {
    match kind {
        SourceKind::ConfigMap => format!("configmap {name:?} not found"),
        SourceKind::Secret => format!("secret {name:?} not found"),
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, String> {
    if let Some(selector) = &from.field_ref {
        return fields::field(pod, place, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return fields::resource(pod, place, &container.name, selector).map(Some);
    }
    let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(key), _) => (SourceKind::ConfigMap, &key.name, &key.key, key.optional),
        (None, Some(key)) => (SourceKind::Secret, &key.name, &key.key, key.optional),
        (None, None) => return Ok(Some(String::new())),
    };
    let optional = optional == Some(true);
    let Some(contents) = sources.get(kind, name) else {
        return if optional { Ok(None) } else { Err(not_found(kind, name)) };
    };
    match contents.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => {
            let title = if kind == SourceKind::ConfigMap { "ConfigMap" } else { "Secret" };
            Err(format!("couldn't find key {key} in {title} {}/{name}", super::spec::namespace(pod)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::references::Reference;
    use serde_json::json;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).expect("container")
    }

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let contents = [("GREETING".to_owned(), b"hello".to_vec()), ("NAME".to_owned(), b"map".to_vec())].into();
        sources.insert(Reference { kind: SourceKind::ConfigMap, name: "settings".into() }, contents);
        sources
    }

    fn of(container: &Container) -> Result<Vec<(String, String)>, String> {
        let services = vec![("CART_SERVICE_HOST".to_owned(), "10.96.0.3".to_owned())];
        environment(&Pod::default(), container, &sources(), services, &Place::default())
    }

    #[test]
    fn env_overrides_env_from_and_refers_to_what_is_before_it() {
        let container = container(json!({"name": "c", "args": ["--url=$(URL)", "$(NOBODY)"],
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "env": [{"name": "NAME", "value": "own"}, {"name": "URL", "value": "http://$(CART_SERVICE_HOST)/$(NAME)/$(LATER)"}, {"name": "LATER", "value": "x"}]}));
        let variables = of(&container).expect("variables");
        let get = |name: &str| variables.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(get("NAME"), ["own"]);
        assert_eq!(get("P_NAME"), ["map"]);
        assert_eq!(get("URL"), ["http://10.96.0.3/own/$(LATER)"]);
        assert_eq!(arguments(&container, &variables), ["--url=http://10.96.0.3/own/$(LATER)", "$(NOBODY)"]);
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_is_optional() {
        let missing = |optional: bool| {
            container(json!({"name": "c", "envFrom": [{"secretRef": {"name": "none", "optional": optional}}]}))
        };
        assert_eq!(of(&missing(false)), Err("secret \"none\" not found".to_owned()));
        assert!(of(&missing(true)).is_ok());
        let key = container(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none"}}}]}),
        );
        assert_eq!(of(&key), Err("couldn't find key none in ConfigMap default/settings".to_owned()));
    }
}

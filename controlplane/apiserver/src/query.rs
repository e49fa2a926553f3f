//! A request's query: parameters by name, and the options of each verb that are read from them.

use shoal_api::Status;

use crate::request::percent_decode;

/// The parameters of a query string, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string as forms encode it: `+` is a blank.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name.replace('+', " ")), percent_decode(value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a parameter was sent at all, empty or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that means true when it is there, unless it says `false` or `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "False" | "FALSE" | "0"))
    }

    /// A parameter that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Status::bad_request(format!(
                        "invalid query parameter {name}: strconv.ParseInt: parsing {text:?}: invalid syntax"
                    ))
                })
            })
            .transpose()
    }
}

/// What an unknown or repeated field of a body leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

/// The options that every write has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads `dryRun`, `fieldValidation` and checks `fieldManager`.
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        if query
            .get("fieldManager")
            .is_some_and(|name| name.chars().count() > 128 || name.chars().any(char::is_control))
        {
            return Err(Status::bad_request(
                "fieldManager: Invalid value: may not be longer than 128 printable characters".to_owned(),
            ));
        }
        Ok(Self { dry_run: dry_run(query.all("dryRun"))?, field_validation })
    }
}

/// Reads the values of `dryRun`: `All` or nothing.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(Status::bad_request(format!(
                "dryRun: Unsupported value: {value:?}: supported values: \"All\""
            )));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_one_counts() {
        let query = Query::parse(Some("labelSelector=app%3Dweb%2Ctier+in+(a)&limit=500&limit=1&watch"));
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert_eq!(query.number("limit").expect("a number"), Some(500));
        assert!(query.flag("watch"));
        assert!(!query.flag("allowWatchBookmarks"));
    }

    #[test]
    fn only_all_is_a_dry_run() {
        assert!(WriteOptions::parse(&Query::parse(Some("dryRun=All"))).expect("is supported").dry_run);
        assert!(WriteOptions::parse(&Query::parse(Some("dryRun=Some"))).is_err());
    }
}

//! `$(NAME)` in commands, arguments and values, as Kubernetes expands it.
//!
//! A name that is not defined stays as it is written; `$$(NAME)` is `$(NAME)` without expansion; every other `$` is itself.

/// Replaces every `$(NAME)` for which `look_up` has a value.
pub fn expand(text: &str, look_up: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match look_up(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cases_of_the_kubernetes_reference() {
        let look_up = |name: &str| match name {
            "VAR_A" => Some("A".to_owned()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        };
        for (given, wanted) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_A)___", "___A___"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$(NOBODY)", "$(NOBODY)"),
            ("f$(VAR_EMPTY)g", "fg"),
            ("$(VAR_A", "$(VAR_A"),
            ("$VAR_A", "$VAR_A"),
            ("cost: 5$", "cost: 5$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(given, look_up), wanted, "{given}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_kept(text in "[^$]*") {
            prop_assert_eq!(expand(&text, |_| Some("x".into())), text);
        }

        #[test]
        fn nothing_panics(text in "[$()A-C ]*") {
            let _ = expand(&text, |name| (name == "A").then(|| "1".into()));
        }
    }
}

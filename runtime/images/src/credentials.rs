//! Passwords for registries, as `docker login` writes them and pull secrets carry them, and which of them an image is pulled with.
//!
//! The rules are the kubelet's (<https://kubernetes.io/docs/concepts/containers/images/#config-json>): a key is a host with an optional
//! port and path; the host may hold globs, part by part between its dots; the path is a prefix. `identitytoken` is not read.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::blobs::Digest;
use crate::reference::{Reference, Registry};

/// The names by which Docker's own registry is known; the first is the one in references.
const DOCKER: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A user's name and password at a registry. It displays neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Credential {
    /// A fingerprint by which it is known again without being kept.
    pub(crate) fn fingerprint(&self) -> String {
        let text = format!("{}:{}{}", self.username.len(), self.username, self.password);
        Digest::of(text.as_bytes()).to_string()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credential")
    }
}

/// Credentials by the registries that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    host: String,
    port: Option<String>,
    /// Empty, or with a leading slash.
    path: String,
    credential: Credential,
}

/// One registry's entry in a configuration of Docker's.
#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Keyring {
    /// Adds what is in a `.dockerconfigjson`: `{"auths": {REGISTRY: {"auth": …}}}`.
    ///
    /// # Errors
    /// A sentence that says what cannot be read, without its content; nothing is added.
    pub fn add_config(&mut self, json: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            auths: Map<String, Value>,
        }
        let config: Config = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        self.add(config.auths)
    }

    /// Adds what is in a `.dockercfg`, the older form: `{REGISTRY: {"auth": …}}`.
    ///
    /// # Errors
    /// As [`Keyring::add_config`].
    pub fn add_legacy(&mut self, json: &[u8]) -> Result<(), String> {
        self.add(serde_json::from_slice(json).map_err(|error| unreadable(&error))?)
    }

    fn add(&mut self, logins: Map<String, Value>) -> Result<(), String> {
        let mut entries = Vec::new();
        for (registry, login) in logins {
            let login = Login::deserialize(login).map_err(|_| format!("the entry of {registry:?} cannot be read"))?;
            let credential = login.credential().map_err(|why| format!("the entry of {registry:?}: {why}"))?;
            entries.extend(credential.map(|credential| entry(&registry, credential)));
        }
        self.entries.extend(entries);
        Ok(())
    }

    /// What may be tried for the image, in this order: the longest key first, and of equal ones the one that was added first.
    pub fn credentials(&self, image: &Reference) -> Vec<&Credential> {
        let Registry::Remote(registry) = &image.registry else { return Vec::new() };
        let (host, port) = split_port(registry);
        let path = format!("/{}", image.repository);
        let mut found: Vec<&Entry> = self.entries.iter().filter(|entry| entry.fits(host, port, &path)).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        found.into_iter().map(|entry| &entry.credential).collect()
    }
}

impl Login {
    /// None if it names nobody, as the entries that only say that a helper has the password.
    fn credential(self) -> Result<Option<Credential>, String> {
        if self.auth.is_empty() {
            let is_empty = self.username.is_empty() && self.password.is_empty();
            return Ok((!is_empty).then_some(Credential { username: self.username, password: self.password }));
        }
        let bytes = STANDARD_NO_PAD.decode(self.auth.trim().trim_end_matches('=')).map_err(|_| "auth is no base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "auth is no text")?;
        let (username, password) = text.split_once(':').ok_or("auth is not of the form USER:PASSWORD")?;
        // Some tools fill the password up with zeros.
        let password = password.trim_matches('\0').to_string();
        Ok(Some(Credential { username: username.to_string(), password }))
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("it is no configuration of Docker's (line {}, column {})", error.line(), error.column())
}

/// Reads a key such as `https://index.docker.io/v1/`, `*.example.com` or `example.com:5000/team`.
fn entry(key: &str, credential: Credential) -> Entry {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (registry, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    // The version of the API says nothing of the image.
    let path =
        ["/v1", "/v2"].iter().find_map(|version| path.strip_prefix(version).filter(is_root_or_path)).unwrap_or(path);
    let (host, port) = split_port(registry);
    let host = if DOCKER.contains(&host) { DOCKER[0] } else { host };
    let path = if path == "/" { "" } else { path };
    Entry { host: host.to_string(), port: port.map(str::to_string), path: path.to_string(), credential }
}

fn is_root_or_path(path: &&str) -> bool {
    path.is_empty() || path.starts_with('/')
}

/// A host and its port; the colons of an address in brackets belong to the host.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

impl Entry {
    fn fits(&self, host: &str, port: Option<&str>, path: &str) -> bool {
        let (globs, parts): (Vec<&str>, Vec<&str>) = (self.host.split('.').collect(), host.split('.').collect());
        self.port.as_deref() == port
            && path.starts_with(&self.path)
            && globs.len() == parts.len()
            && globs.iter().zip(parts).all(|(glob, part)| is_match(glob.as_bytes(), part.as_bytes()))
    }
}

/// Whether `text` is what `glob` says, in which `*` is any letters and `?` is one. It goes back to the last `*` alone, so that no
/// glob takes long.
fn is_match(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((before, taken)) = star else { return false };
                star = Some((before, taken + 1));
                (at, place) = (before + 1, taken + 1);
            }
        }
    }
    glob[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn users(config: &Value, image: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        keyring.add_config(json!({"auths": config}).to_string().as_bytes()).expect("a configuration");
        let reference = Reference::parse(image).expect("a reference");
        keyring.credentials(&reference).into_iter().map(|credential| credential.username.clone()).collect()
    }

    fn user(name: &str) -> Value {
        json!({"username": name, "password": "p"})
    }

    #[test]
    fn hosts_ports_and_paths_must_fit() {
        let config = json!({
            "example.com": user("host"), "example.com/team": user("team"), "https://example.com:5000": user("port"),
            "http://example.com/v2/": user("api"),
        });
        assert_eq!(users(&config, "example.com/team/hello:1"), ["team", "host", "api"]);
        assert_eq!(users(&config, "example.com/other/hello:1"), ["host", "api"]);
        assert_eq!(users(&config, "example.com:5000/team/hello"), ["port"]);
        assert_eq!(users(&config, "www.example.com/team/hello"), [""; 0]);
        assert_eq!(users(&config, "team/hello"), [""; 0], "the cluster's own registry wants no password");
    }

    #[test]
    fn globs_stand_for_a_part_of_the_host() {
        let config =
            json!({"*.example.com": user("any"), "app?.example.com": user("app"), "a*c.example.*": user("mid")});
        assert_eq!(users(&config, "app1.example.com/x"), ["any", "app"]);
        assert_eq!(users(&config, "abc.example.com/x"), ["any", "mid"]);
        assert_eq!(users(&config, "example.com/x"), [""; 0]);
        assert_eq!(users(&config, "a.b.example.com/x"), [""; 0]);
    }

    #[test]
    fn dockers_registry_has_several_names() {
        for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"] {
            assert_eq!(users(&json!({ key: user("me") }), "docker.io/nginx"), ["me"], "{key}");
            assert_eq!(users(&json!({ key: user("me") }), "ghcr.io/nginx"), [""; 0], "{key}");
        }
    }

    #[test]
    fn auth_holds_both_and_wins() {
        let auth = base64::engine::general_purpose::STANDARD.encode("me:a:b");
        for auth in [auth.clone(), auth.trim_end_matches('=').to_string()] {
            let mut keyring = Keyring::default();
            let config = json!({"example.com": {"auth": auth, "username": "x"}, "helper.example.com": {}});
            keyring.add_legacy(config.to_string().as_bytes()).expect("a configuration");
            let reference = Reference::parse("example.com/x").expect("a reference");
            let expected = Credential { username: "me".to_string(), password: "a:b".to_string() };
            assert_eq!(keyring.credentials(&reference), [&expected]);
            assert_eq!(keyring.entries.len(), 1);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_content() {
        for (config, word) in [
            ("{\"auths\": {\"a.io\": {\"auth\": \"hunter2!\"}}}", "a.io"),
            ("{\"auths\": {\"a.io\": \"hunter2\"}}", "a.io"),
            ("{\"auths\": {\"a.io\": {\"auth\": \"aHVudGVyMg==\"}}}", "USER:PASSWORD"),
            ("hunter2", "line 1"),
        ] {
            let error = Keyring::default().add_config(config.as_bytes()).expect_err("it cannot be read");
            assert!(error.contains(word) && !error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_key_is_taken_and_one_without_globs_fits_its_own_images(host in "[a-z]{1,8}(\\.[a-z]{1,8}){1,3}(:[0-9]{2,5})?", repository in "[a-z]{1,8}(/[a-z]{1,8}){0,3}", key in "\\PC{0,40}") {
            let config = json!({ host.clone(): user("host"), format!("https://{host}/{repository}"): user("whole"), key: user("any") });
            let found = users(&config, &format!("{host}/{repository}"));
            prop_assert!(found.contains(&"host".to_string()) && found.contains(&"whole".to_string()), "{:?}", found);
        }
    }
}

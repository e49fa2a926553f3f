//! The rules of the layout that the compiler does not hold: which crate may know which, and what a pure crate never names.
//!
//! ARCHITECTURE.md has the reasons. A crate that is new gets a row here; a row that must change is a decision to explain there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What one crate may know.
struct Rule {
    package: &'static str,
    /// Our own crates that it may depend on.
    ours: &'static [&'static str],
    /// Other people's crates that it may not depend on.
    never: &'static [&'static str],
    /// Whether it is a function of its inputs: no files, sockets, clocks, tasks or randomness.
    is_pure: bool,
}

/// Libraries that wait, reach outside, or answer differently each time.
const IMPURE: &[&str] =
    &["tokio", "tokio-util", "hyper", "quinn", "rustls", "openraft", "rand", "uuid", "tempfile", "rustix", "libc"];

/// Words of the standard library and of `jiff` that do the same.
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "std::env",
];

const HTTP: &[&str] = &["http", "hyper"];
const RUNTIME: &[&str] =
    &["shoal-api", "shoal-client", "shoal-link", "shoal-engine", "shoal-images", "shoal-network", "shoal-streams"];
const CONTROLPLANE: &[&str] = &[
    "shoal-api",
    "shoal-state",
    "shoal-store",
    "shoal-link",
    "shoal-apiserver",
    "shoal-registry",
    "shoal-client",
    "shoal-scheduler",
    "shoal-controllers",
];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule { package: "shoal-api", ours: &[], never: IMPURE, is_pure: true },
    Rule { package: "shoal-state", ours: &[], never: IMPURE, is_pure: true },
    Rule { package: "shoal-scheduler", ours: &["shoal-api"], never: IMPURE, is_pure: true },
    Rule { package: "shoal-controllers", ours: &["shoal-api", "shoal-scheduler"], never: IMPURE, is_pure: true },
    Rule { package: "shoal-link", ours: &[], never: &["openraft"], is_pure: false },
    Rule { package: "shoal-store", ours: &["shoal-state", "shoal-link"], never: HTTP, is_pure: false },
    Rule { package: "shoal-streams", ours: &[], never: &["k8s-openapi", "openraft", "quinn", "hyper"], is_pure: false },
    Rule { package: "shoal-apiserver", ours: &["shoal-api", "shoal-store", "shoal-streams"], never: &["openraft", "quinn"], is_pure: false },
    Rule { package: "shoal-registry", ours: &["shoal-images", "shoal-link"], never: &["openraft"], is_pure: false },
    Rule { package: "shoal-client", ours: &["shoal-api", "shoal-link"], never: &["openraft"], is_pure: false },
    Rule { package: "shoal-engine", ours: &[], never: &["k8s-openapi", "openraft", "quinn"], is_pure: false },
    Rule { package: "shoal-images", ours: &[], never: &["k8s-openapi", "wasmtime"], is_pure: false },
    Rule { package: "shoal-network", ours: &["shoal-link"], never: &["k8s-openapi", "wasmtime"], is_pure: false },
    Rule { package: "shoal-runtime", ours: RUNTIME, never: &["openraft", "wasmtime"], is_pure: false },
    Rule { package: "shoal-controlplane", ours: CONTROLPLANE, never: &["wasmtime"], is_pure: false },
    Rule {
        package: "shoal", is_pure: false, never: &["openraft", "quinn", "wasmtime"],
        ours: &["shoal-client", "shoal-controlplane", "shoal-images", "shoal-link", "shoal-runtime"],
    },
    Rule { package: "shoal-tests", ours: &[], never: &["openraft", "wasmtime"], is_pure: false },
];

struct Package {
    name: String,
    folder: PathBuf,
    dependencies: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The members of the workspace with their ordinary dependencies; those of tests alone may be any.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        folder: Path::new(&text(&package["manifest_path"])).parent().expect("a folder").to_owned(),
        dependencies: package["dependencies"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .collect(),
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

fn rule(package: &str) -> &'static Rule {
    let found = RULES.iter().find(|rule| rule.package == package);
    found.unwrap_or_else(|| panic!("the crate {package} has no rule: give it a row in tests/layout"))
}

#[test]
fn every_rule_has_its_crate() {
    let names: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.package.to_owned()).collect();
    assert_eq!(names, ruled);
}

#[test]
fn no_arrow_points_up() {
    for package in packages() {
        let rule = rule(&package.name);
        let ours = package.dependencies.iter().filter(|name| name.starts_with("shoal"));
        let wrong: Vec<&String> = ours.filter(|name| !rule.ours.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{} may not depend on {wrong:?}", package.name);
        let named: Vec<&&str> = rule.never.iter().filter(|name| package.dependencies.contains(**name)).collect();
        assert!(named.is_empty(), "{} may not depend on {named:?}", package.name);
    }
}

#[test]
fn a_pure_crate_does_not_wait_look_at_the_clock_or_roll_dice() {
    for package in packages().iter().filter(|package| rule(&package.name).is_pure) {
        for file in sources(&package.folder.join("src")) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for word in IMPURE_WORDS {
                    assert!(!line.contains(word), "{}:{}: a pure crate names {word}", file.display(), number + 1);
                }
                assert!(!line.contains("async fn"), "{}:{}: a pure crate waits", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn what_takes_long_to_build_is_there_once() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for name in lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')) {
        *copies.entry(name).or_default() += 1;
    }
    for name in [
        "wasmtime",
        "cranelift-codegen",
        "wasmtime-wasi",
        "openraft",
        "quinn",
        "rustls",
        "hyper",
        "tokio",
        "k8s-openapi",
    ] {
        assert_eq!(copies.get(name), Some(&1), "{name}: `cargo tree -i {name}` says who wants another one");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let is_source = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".rs") && !name.contains("tests")
    };
    let inner = folders.iter().filter(|path| !path.ends_with("tests")).flat_map(|path| sources(path));
    files.into_iter().filter(is_source).chain(inner).collect()
}

//! Looking at the directory of manifests again and again, and giving its pods to their workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::manifest;
use super::mirror::{FullName, full_name};
use crate::context::Context;
use crate::limits::{MANIFEST_BYTES, MANIFEST_PERIOD};
use crate::pods::{Origin, Pods};

/// What was found in one look: the pods, and what is wrong with the other files.
#[derive(Debug, Default)]
struct Found {
    pods: BTreeMap<FullName, Arc<Pod>>,
    wrong: BTreeMap<PathBuf, String>,
}

/// Follows the directory for ever.
pub async fn follow(
    context: Arc<Context>,
    pods: Arc<Pods>,
    directory: PathBuf,
    mut range_known: watch::Receiver<bool>,
) {
    // Its sender lives as long as the agent.
    let _ = range_known.wait_for(|known| *known).await;
    let mut ticks = tokio::time::interval(MANIFEST_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = BTreeMap::new();
    loop {
        ticks.tick().await;
        let (path, node) = (directory.clone(), context.config.node_name.clone());
        let Ok(found) = tokio::task::spawn_blocking(move || look(&path, &node)).await else { continue };
        match found {
            Ok(found) => {
                for (path, error) in found.wrong.iter().filter(|(path, error)| told.get(*path) != Some(*error)) {
                    tracing::warn!(path = %path.display(), error, "a manifest is no pod of this node");
                }
                told = found.wrong;
                let wanted: Vec<Arc<Pod>> = found.pods.into_values().collect();
                pods.synchronize(&wanted, Origin::File).await;
            }
            // What cannot be read is not empty: the pods stay.
            Err(error) => tracing::warn!(path = %directory.display(), %error, "the manifests cannot be read"),
        }
    }
}

fn look(directory: &Path, node: &str) -> std::io::Result<Found> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Found::default();
    for path in paths {
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden || !path.is_file() {
            continue;
        }
        match read(&path, node) {
            Ok(pod) if found.pods.contains_key(&full_name(&pod)) => {
                found.wrong.insert(path, "another manifest has a pod of the same name".to_owned());
            }
            Ok(pod) => {
                found.pods.insert(full_name(&pod), Arc::new(pod));
            }
            Err(error) => {
                found.wrong.insert(path, error);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path, node: &str) -> Result<Pod, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MANIFEST_BYTES {
        return Err(format!("it has {size} bytes and may have {MANIFEST_BYTES}"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    manifest::read(&bytes, node).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    #[test]
    fn every_file_is_a_pod_or_says_why_not() {
        let directory = tempfile::tempdir().expect("directory");
        let manifest = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
            )
        };
        for (file, text) in
            [("a.yaml", manifest("a")), ("b.json", manifest("b")), ("c.yaml", manifest("a")), (".d", manifest("d"))]
        {
            std::fs::write(directory.path().join(file), text).expect("a file");
        }
        std::fs::write(directory.path().join("e.yaml"), "kind: Pod").expect("a file");
        let found = look(directory.path(), "n").expect("a directory");
        let names: Vec<&str> = found.pods.values().map(|pod| spec::name(pod)).collect();
        assert_eq!(names, ["a-n", "b-n"]);
        let wrong: Vec<_> = found.wrong.keys().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(wrong, ["c.yaml", "e.yaml"]);
        assert!(look(&directory.path().join("none"), "n").is_err());
    }
}

//! Images: the verbs for the cluster's registry, and another registry that wants a password.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use shoal_images::{Artifact, artifact, media};
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

fn hello() -> PathBuf {
    example("hello", "hello.wasm")
}

pub fn images_are_listed_inspected_and_removed(cluster: &mut Cluster) -> anyhow::Result<()> {
    let failure = |arguments: &[&str]| cluster.shoal(arguments).err().map(|error| format!("{error:#}"));
    for name in ["shelf/hello:1", "shelf/hello:2"] {
        cluster.shoal(&["push", &hello().to_string_lossy(), name])?;
    }
    let listed: serde_json::Value = serde_json::from_str(&cluster.shoal(&["image", "ls", "-o", "json"])?)?;
    let rows: Vec<_> =
        listed.as_array().context("rows")?.iter().filter(|row| row["repository"] == "shelf/hello").collect();
    let tags: Vec<_> = rows.iter().filter_map(|row| row["tag"].as_str()).collect();
    ensure!(tags == ["1", "2"] && rows[0]["kind"] == "Wasm artifact", "{listed}");
    let digest = rows[0]["digest"].as_str().context("a digest")?;
    ensure!(rows[1]["digest"] == digest, "the same module is the same image: {listed}");
    let table = cluster.shoal(&["image", "ls"])?;
    ensure!(table.starts_with("REPOSITORY") && table.contains("shelf/hello"), "{table}");

    let shown = cluster.shoal(&["image", "inspect", "shelf/hello:1"])?;
    for word in [digest, "component", "HTTP function", "wasi:http/proxy@0.2", "wasi:http/incoming-handler@0.2"] {
        ensure!(shown.contains(word), "{word} is not in {shown}");
    }
    let named = format!("shelf/hello@{digest}");
    let shown: serde_json::Value = serde_json::from_str(&cluster.shoal(&["image", "inspect", &named, "-o", "json"])?)?;
    ensure!(shown["module"]["size"] == std::fs::metadata(hello())?.len(), "{shown}");

    cluster.shoal(&["image", "rm", "shelf/hello:1"])?;
    let gone = failure(&["image", "inspect", "shelf/hello:1"]);
    ensure!(gone.as_ref().is_some_and(|text| text.contains("shoal image ls")), "{gone:?}");
    cluster.shoal(&["image", "inspect", "shelf/hello:2"])?;
    cluster.shoal(&["image", "rm", &named])?;
    let gone = failure(&["image", "rm", "shelf/hello:2"]);
    ensure!(gone.as_ref().is_some_and(|text| text.contains("there is no shelf/hello:2")), "{gone:?}");
    let table = cluster.shoal(&["image", "ls"])?;
    ensure!(!table.contains("shelf/hello"), "{table}");
    let refused = failure(&["image", "inspect", "ghcr.io/shelf/hello:1"]);
    ensure!(refused.as_ref().is_some_and(|text| text.contains("another registry")), "{refused:?}");
    Ok(())
}

pub fn a_private_image_is_pulled_with_the_secret_of_the_account(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let registry = Registry::open(&hello())?;
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, {more} containers: [{{name: main, image: '{registry}/team/hello:1', imagePullPolicy: Always}}]}}\n"
        )
    };
    let is_refused = |name: &str| {
        eventually("the registry's refusal is told", PATIENCE, || {
            let events =
                kubectl.ok(&["get", "events", &format!("--field-selector=involvedObject.name={name},type=Warning")])?;
            ensure!(events.contains("refused") && events.contains("team/hello:1"), "{name}: {events}");
            Ok(())
        })
    };
    kubectl.ok_with(&["create", "-f", "-"], &pod("stranger", ""))?;
    is_refused("stranger")?;

    let server = format!("--docker-server={registry}");
    let login = ["--docker-username=me", "--docker-password=secret"];
    kubectl.ok(&[&["create", "secret", "docker-registry", "regcred", &server][..], &login].concat())?;
    kubectl.ok(&["create", "serviceaccount", "puller"])?;
    kubectl.ok(&["patch", "serviceaccount", "puller", "-p", r#"{"imagePullSecrets": [{"name": "regcred"}]}"#])?;
    kubectl.ok_with(&["create", "-f", "-"], &pod("friend", "serviceAccountName: puller,"))?;
    kubectl.ok(&["wait", "pod", "friend", "--for=condition=Ready", "--timeout=60s"])?;
    let secrets = kubectl.ok(&["get", "pod", "friend", "-o", "jsonpath={.spec.imagePullSecrets[*].name}"])?;
    ensure!(secrets == "regcred", "{secrets}");

    // What one pod has fetched is not free for the next, on whichever node it is.
    for name in ["second", "third"] {
        kubectl.ok_with(&["create", "-f", "-"], &pod(name, "imagePullSecrets: [{name: nosuch}],"))?;
        is_refused(name)?;
        let events = kubectl.ok(&["get", "events", &format!("--field-selector=involvedObject.name={name}")])?;
        ensure!(events.contains("FailedToRetrieveImagePullSecret") && events.contains("(nosuch)"), "{events}");
    }
    kubectl.ok(&["delete", "pod", "stranger", "friend", "second", "third", "--timeout=60s"])?;
    kubectl.ok(&["delete", "serviceaccount/puller", "secret/regcred"])?;
    Ok(())
}

/// A registry on this machine that gives the image `team/hello:1` to the user `me` with the password `secret`. It lives as long as
/// the test's process.
struct Registry {
    port: u16,
}

impl std::fmt::Display for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "127.0.0.1:{}", self.port)
    }
}

impl Registry {
    fn open(module: &Path) -> anyhow::Result<Self> {
        let wasm = std::fs::read(module).with_context(|| format!("failed to read {}", module.display()))?;
        let shelf = Arc::new((artifact(&wasm)?, wasm));
        let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = shelf.clone();
                // A client that goes away has its reasons.
                std::thread::spawn(move || answer(stream, &shelf.0, &shelf.1));
            }
        });
        Ok(Self { port })
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, artifact: &Artifact, wasm: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut is_known = false;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        // `me:secret`, in lower case as the whole line is.
        is_known |= line == "authorization: basic bwu6c2vjcmv0";
    }
    let content = match path.strip_prefix("/v2/team/hello/") {
        Some("manifests/1") => Some(artifact.manifest.as_slice()),
        Some(path) if path == format!("manifests/{}", artifact.manifest_digest) => Some(artifact.manifest.as_slice()),
        Some(path) if path == format!("blobs/{}", artifact.module_digest) => Some(wasm),
        Some(path) if path == format!("blobs/{}", artifact.config_digest) => Some(artifact.config.as_slice()),
        _ if path == "/v2/" => Some(&b"{}"[..]),
        _ => None,
    };
    let (status, content) = match (is_known, content) {
        (true, Some(content)) => ("200 OK", content),
        (true, None) => ("404 Not Found", &b"{}"[..]),
        (false, _) => {
            ("401 Unauthorized", &b"{\"errors\": [{\"code\": \"UNAUTHORIZED\", \"message\": \"who are you\"}]}"[..])
        }
    };
    let (length, kind) = (content.len(), media::MANIFEST);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\nWWW-Authenticate: Basic realm=\"shelf\"\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(content)
}

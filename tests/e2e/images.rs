//! Images: the verbs for the cluster's registry, and another registry that wants a password.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::json;
use shoal_images::{Digest, artifact, media};
use shoal_tests::{Cluster, eventually};

use crate::examples::{PATIENCE, example};

/// The SHA-256 of an empty object in JSON.
const EMPTY_JSON: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

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

pub fn tokens_of_service_accounts_open_the_registry(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &hello().to_string_lossy(), "team/hello:1"])?;
    let kubectl = &cluster.kubectl;
    kubectl.ok(&["create", "serviceaccount", "builder"])?;
    let token = kubectl.ok(&["create", "token", "builder"])?;
    let server = kubectl.ok(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let stranger = ["--kubeconfig=/dev/null", "--server", &server, "--insecure-skip-tls-verify"];
    // As registries' clients show it: the password of whatever user.
    let builder = [&stranger[..], &["--username=robot", "--password", token.trim()]].concat();
    let tags = ["get", "--raw", "/v2/team/hello/tags/list"];
    // Without any, kubectl would ask for a user.
    let refused = kubectl.fails_with(&[&stranger[..], &["--token=not.a.token"], &tags].concat(), "")?;
    ensure!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
    let listed = kubectl.ok(&[&builder[..], &tags].concat())?;
    ensure!(listed.contains("\"tags\":[\"1\"]"), "{listed}");
    // A blob of two bytes in one request.
    let blob = "{}";
    let to = |repository: &str| format!("/v2/{repository}/blobs/uploads/?digest=sha256:{EMPTY_JSON}");
    let (own, other) = (to("team/hello"), to("team/other"));
    let upload = ["create", "--raw", &own, "-f", "-"];
    let refused = kubectl.fails_with(&[&builder[..], &upload].concat(), blob)?;
    ensure!(refused.to_lowercase().contains("forbidden"), "{refused}");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: team-pusher}\n\
                rules: [{apiGroups: [registry.shoal.dev], resources: [images], resourceNames: [team/hello], verbs: [push]}]\n";
    kubectl.ok_with(&["apply", "-f", "-"], role)?;
    let account = "--serviceaccount=default:builder";
    kubectl.ok(&["create", "clusterrolebinding", "team-pusher", "--clusterrole=team-pusher", account])?;
    eventually("the role lets the account push", PATIENCE, || {
        kubectl.ok_with(&[&builder[..], &upload].concat(), blob).map(drop)
    })?;
    let elsewhere = ["create", "--raw", &other, "-f", "-"];
    let refused = kubectl.fails_with(&[&builder[..], &elsewhere].concat(), blob)?;
    ensure!(refused.to_lowercase().contains("forbidden"), "{refused}");
    kubectl.ok(&["delete", "clusterrolebinding/team-pusher", "clusterrole/team-pusher", "serviceaccount/builder"])?;
    let refused = kubectl.fails_with(&[&builder[..], &tags].concat(), "")?;
    ensure!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "a token of nobody: {refused}");
    cluster.shoal(&["image", "rm", "team/hello:1"]).map(drop)
}

pub fn a_private_image_is_pulled_with_the_secret_of_the_account(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let registry = Registry::open(&hello())?;
    let of = |name: &str, image: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, {more} containers: [{{name: main, image: '{registry}/team/{image}:1', imagePullPolicy: Always}}]}}\n"
        )
    };
    let pod = |name: &str, more: &str| of(name, "hello", more);
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

    // The module of a container image is what its entrypoint names in its layers.
    kubectl.ok_with(&["create", "-f", "-"], &of("boxed", "boxed", "serviceAccountName: puller,"))?;
    kubectl.ok(&["wait", "pod", "boxed", "--for=condition=Ready", "--timeout=60s"])?;

    // What one pod has fetched is not free for the next, on whichever node it is.
    for name in ["second", "third"] {
        kubectl.ok_with(&["create", "-f", "-"], &pod(name, "imagePullSecrets: [{name: nosuch}],"))?;
        is_refused(name)?;
        let events = kubectl.ok(&["get", "events", &format!("--field-selector=involvedObject.name={name}")])?;
        ensure!(events.contains("FailedToRetrieveImagePullSecret") && events.contains("(nosuch)"), "{events}");
    }
    kubectl.ok(&["delete", "pod", "stranger", "friend", "boxed", "second", "third", "--timeout=60s"])?;
    kubectl.ok(&["delete", "serviceaccount/puller", "secret/regcred"])?;
    Ok(())
}

/// A registry on this machine that gives the image `team/hello:1`, and the container image `team/boxed:1` of the same module, to the
/// user `me` with the password `secret`. It lives as long as the test's process.
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
        let shelf = Arc::new(shelf(&wasm)?);
        let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = shelf.clone();
                // A client that goes away has its reasons.
                std::thread::spawn(move || answer(stream, &shelf));
            }
        });
        Ok(Self { port })
    }
}

/// What is under each path.
type Shelf = BTreeMap<String, Vec<u8>>;

fn shelf(wasm: &[u8]) -> anyhow::Result<Shelf> {
    let mut shelf = Shelf::from([("/v2/".to_owned(), b"{}".to_vec())]);
    let mut put = |repository: &str, kind: &str, name: &str, content: &[u8]| {
        shelf.insert(format!("/v2/team/{repository}/{kind}/{name}"), content.to_vec());
    };
    let made = artifact(wasm)?;
    for version in ["1", &made.manifest_digest.to_string()] {
        put("hello", "manifests", version, &made.manifest);
    }
    put("hello", "blobs", &made.module_digest.to_string(), wasm);
    put("hello", "blobs", &made.config_digest.to_string(), &made.config);

    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(wasm.len() as u64);
    layer.append_data(&mut header, "app/hello.wasm", wasm)?;
    let layer = layer.into_inner()?;
    let config =
        json!({"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": ["/app/hello.wasm"]}}).to_string();
    let mut blob = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content).to_string();
        put("boxed", "blobs", &digest, content);
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    };
    let config = blob(media::IMAGE_CONFIG, config.as_bytes());
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    for version in ["1", &Digest::of(manifest.as_bytes()).to_string()] {
        put("boxed", "manifests", version, manifest.as_bytes());
    }
    Ok(shelf)
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, shelf: &Shelf) -> std::io::Result<()> {
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
    let (status, content) = match (is_known, shelf.get(&path)) {
        (true, Some(content)) => ("200 OK", content.as_slice()),
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

//! Images that must be signed: the policy by `kubectl annotate`, the signatures by the registry's own API, as cosign pushes them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use shoal_tests::signing::{self, MANIFEST, Signer};
use shoal_tests::{Cluster, Tool, eventually, send};

use crate::examples::{PATIENCE, example};

const KEYS: &str = "shoal.dev/image-public-keys";

pub fn images_need_the_signature_that_their_namespace_wants(cluster: &mut Cluster) -> anyhow::Result<()> {
    let hello = example("hello", "hello.wasm");
    for name in ["signed/hello:1", "signed/simple:1", "debug/hello:1"] {
        cluster.shoal(&["push", &hello.to_string_lossy(), name])?;
    }
    let kubectl = &cluster.kubectl;
    // Both workers have the image before anybody wants it signed.
    for worker in ["worker-1", "worker-2"] {
        let on = format!("nodeName: {worker},");
        kubectl.ok_with(&["create", "-f", "-"], &pod("default", &format!("before-{worker}"), "signed/hello:1", &on))?;
    }
    kubectl.ok(&["wait", "pod", "before-worker-1", "before-worker-2", "--for=condition=Ready", "--timeout=60s"])?;

    kubectl.ok(&["create", "namespace", "vault"])?;
    let refused = kubectl.fails_with(&["annotate", "namespace", "vault", &format!("{KEYS}=cosign.pub")], "")?;
    ensure!(
        refused.contains(&format!("metadata.annotations[{KEYS}]")) && refused.contains("remove the annotation"),
        "{refused}"
    );
    let (signer, other) = (Signer::p256(), Signer::ed25519());
    let keys = format!("{KEYS}={}{}", Signer::p256().public_pem(), signer.public_pem());
    kubectl.ok(&["annotate", "namespace", "vault", &keys, "shoal.dev/unsigned-images=debug/*"])?;
    kubectl.ok(&["create", "rolebinding", "-n", "vault", "boss", "--clusterrole=admin", "--user=boss"])?;
    let refused = kubectl.fails_with(&["annotate", "namespace", "vault", &format!("{KEYS}-"), "--as=boss"], "")?;
    ensure!(refused.contains("cannot patch resource \"namespaces\""), "{refused}");

    for (name, image) in [("bundled", "signed/hello:1"), ("simple", "signed/simple:1"), ("exempt", "debug/hello:1")] {
        kubectl.ok_with(&["create", "-f", "-"], &pod("vault", name, image, ""))?;
    }
    kubectl.ok(&["wait", "pod", "exempt", "-n", "vault", "--for=condition=Ready", "--timeout=60s"])?;
    for (name, image) in [("bundled", "signed/hello:1"), ("simple", "signed/simple:1")] {
        is_refused(kubectl, name, &[image, "no signature of it was found", "namespace \"vault\"", KEYS])?;
        let events =
            kubectl.ok(&["get", "events", "-n", "vault", &format!("--field-selector=involvedObject.name={name}")])?;
        ensure!(events.contains("SignatureValidationFailed") && events.contains("no signature of it"), "{events}");
    }

    // Signed later, in each of the forms, they start by themselves.
    let registry = Registry::open(kubectl)?;
    let digest = registry.sign_bundle("signed/hello", "1", &signer)?;
    registry.sign_simple("signed/simple", "1", &[&other, &signer])?;
    kubectl.ok(&["wait", "pod", "bundled", "simple", "-n", "vault", "--for=condition=Ready", "--timeout=120s"])?;
    let shown = cluster.shoal(&["image", "inspect", "signed/hello:1"])?;
    ensure!(shown.contains("Signature  bundle sha256:") && shown.contains(&digest), "{shown}");
    let shown = cluster.shoal(&["image", "inspect", "signed/simple:1"])?;
    ensure!(shown.matches("simple signing sha256:").count() == 2, "{shown}");
    ensure!(cluster.shoal(&["image", "ls"])?.contains("  signature"), "the listing knows signatures");

    // Another key: what runs goes on, what comes waits.
    let keys = format!("{KEYS}={}", other.public_pem());
    kubectl.ok(&["annotate", "namespace", "vault", "--overwrite", &keys])?;
    kubectl.ok_with(&["create", "-f", "-"], &pod("vault", "late", "signed/hello:1", ""))?;
    is_refused(kubectl, "late", &["signed/hello:1", "is by none of the keys that are trusted"])?;
    kubectl.ok_with(&["create", "-f", "-"], &pod("vault", "also", "signed/simple:1", ""))?;
    kubectl.ok(&[
        "wait",
        "pod",
        "also",
        "bundled",
        "simple",
        "-n",
        "vault",
        "--for=condition=Ready",
        "--timeout=60s",
    ])?;
    kubectl.ok(&["delete", "namespace", "vault", "--timeout=60s"])?;
    kubectl.ok(&["delete", "pod", "before-worker-1", "before-worker-2", "--timeout=60s"])?;
    Ok(())
}

pub fn what_starts_again_is_verified_again(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("unruly", "unruly.wasm").to_string_lossy(), "signed/unruly:1"])?;
    let kubectl = &cluster.kubectl;
    let signer = Signer::p256();
    Registry::open(kubectl)?.sign_simple("signed/unruly", "1", &[&signer])?;
    kubectl.ok(&["create", "namespace", "vault"])?;
    kubectl.ok(&["annotate", "namespace", "vault", &format!("{KEYS}={}", signer.public_pem())])?;
    kubectl.ok_with(
        &["create", "-f", "-"],
        &pod("vault", "again", "signed/unruly:1", "").replace("name: main,", "name: main, args: [exit, '1'],"),
    )?;
    let field = |path: &str| {
        kubectl.ok(&[
            "get",
            "pod",
            "again",
            "-n",
            "vault",
            "-o",
            &format!("jsonpath={{.status.containerStatuses[0].{path}}}"),
        ])
    };
    eventually("it runs and is restarted", PATIENCE, || {
        ensure!(field("restartCount")?.parse::<u32>()? >= 1, "restarts");
        Ok(())
    })?;
    let other = format!("{KEYS}={}", Signer::p256().public_pem());
    kubectl.ok(&["annotate", "namespace", "vault", "--overwrite", &other])?;
    is_refused(kubectl, "again", &["signed/unruly:1", "is by none of the keys that are trusted"])?;
    ensure!(field("lastState.terminated.exitCode")? == "1", "its last run is told still");
    kubectl.ok(&["delete", "namespace", "vault", "--timeout=60s"])?;
    Ok(())
}

fn pod(namespace: &str, name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{terminationGracePeriodSeconds: 1, {more} containers: [{{name: main, image: '{image}'}}]}}\n"
    )
}

/// The pod waits in the namespace `vault`, and its status says why, in these words.
fn is_refused(kubectl: &Tool, name: &str, words: &[&str]) -> anyhow::Result<()> {
    eventually("the pod waits for a signature", PATIENCE, || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}: {.status.containerStatuses[0].state.waiting.message}";
        let waiting = kubectl.ok(&["get", "pod", name, "-n", "vault", "-o", path])?;
        ensure!(waiting.contains("SignatureValidationFailed"), "{name}: {waiting:?}");
        for word in words {
            ensure!(waiting.contains(word), "{name}: {word:?} is not in {waiting:?}");
        }
        Ok(())
    })
}

/// The cluster's registry as cosign sees it, through `kubectl proxy`.
struct Registry {
    proxy: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.proxy.kill().and_then(|()| self.proxy.wait());
    }
}

impl Registry {
    fn open(kubectl: &Tool) -> anyhow::Result<Self> {
        let mut command = kubectl.command(&["proxy", "--port=0"]);
        let mut proxy = command.stdout(Stdio::piped()).spawn().context("failed to start kubectl proxy")?;
        let mut line = String::new();
        BufReader::new(proxy.stdout.take().context("no output")?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { proxy, address })
    }

    /// Signs with `signers` in the first of cosign's forms.
    fn sign_simple(&self, name: &str, tag: &str, signers: &[&Signer]) -> anyhow::Result<()> {
        let image = signing::digest(self.manifest(name, tag)?.as_bytes());
        let payload = signing::payload(&image, signing::PAYLOAD_TYPE);
        let signatures: Vec<Vec<u8>> = signers.iter().map(|signer| signer.sign(&payload)).collect();
        let layers: Vec<(&[u8], &[u8])> = signatures.iter().map(|signature| (&payload[..], &signature[..])).collect();
        self.push_blobs(name, &[&payload, signing::CONFIG])?;
        self.push_manifest(name, &signing::simple_tag(&image), &signing::simple_manifest(&layers))
    }

    /// Signs with a bundle; answers the digest of its manifest.
    fn sign_bundle(&self, name: &str, tag: &str, signer: &Signer) -> anyhow::Result<String> {
        let image = self.manifest(name, tag)?;
        let digest = signing::digest(image.as_bytes());
        let statement = signing::statement(&digest, signing::SIGN_PREDICATE);
        let bundle = signing::envelope_bundle(signer, signing::STATEMENT_TYPE, &statement).to_string();
        let manifest = signing::bundle_manifest(image.as_bytes(), bundle.as_bytes());
        self.push_blobs(name, &[bundle.as_bytes(), signing::CONFIG])?;
        let own = signing::digest(&manifest);
        self.push_manifest(name, &own, &manifest)?;
        // As cosign asks for it.
        let kind = "application%2Fvnd.dev.sigstore.bundle.v0.3%2Bjson";
        let path = format!("/v2/{name}/referrers/{digest}?artifactType={kind}");
        let referrers = send(&self.address, http::Request::get(path), &[])?;
        ensure!(referrers.status == 200 && referrers.body.contains(&own), "{referrers:?}");
        Ok(own)
    }

    fn manifest(&self, name: &str, tag: &str) -> anyhow::Result<String> {
        let path = format!("/v2/{name}/manifests/{tag}");
        let answer = send(&self.address, http::Request::get(path).header("accept", MANIFEST), &[])?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.body)
    }

    fn push_blobs(&self, name: &str, blobs: &[&[u8]]) -> anyhow::Result<()> {
        for blob in blobs {
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", signing::digest(blob));
            let request = http::Request::post(path).header("content-type", "application/octet-stream");
            let answer = send(&self.address, request, blob)?;
            ensure!(answer.status == 201, "{answer:?}");
        }
        Ok(())
    }

    fn push_manifest(&self, name: &str, reference: &str, manifest: &[u8]) -> anyhow::Result<()> {
        let path = format!("/v2/{name}/manifests/{reference}");
        let answer = send(&self.address, http::Request::put(path).header("content-type", MANIFEST), manifest)?;
        ensure!(answer.status == 201, "{answer:?}");
        Ok(())
    }
}

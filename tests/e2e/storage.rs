//! Storage that outlives pods: claims, the directories behind them, and the node's own directories.

use std::path::Path;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use shoal_tests::{Cluster, Tool, eventually};

use crate::examples::{PATIENCE, example};

/// A pod that writes its argument into the volume `data` and prints what is there; with STAY it goes on until it is stopped.
fn journal(name: &str, line: &str, stay: bool, volume: &str, mount: &str) -> String {
    let stay = u8::from(stay);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  \
         volumes: [{{name: data, {volume}}}]\n  containers:\n    - name: main\n      image: journal:1\n      args: [{line}]\n      \
         env: [{{name: STAY, value: '{stay}'}}]\n      volumeMounts: [{{name: data, mountPath: /data{mount}}}]\n---\n"
    )
}

fn claim(name: &str, class: Option<&str>) -> String {
    let class = class.map(|class| format!("storageClassName: '{class}', ")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\n\
         spec: {{{class}accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 16Mi}}}}}}\n---\n"
    )
}

fn of_claim(name: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {name}}}")
}

fn push(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("journal", "journal.wasm").to_string_lossy(), "journal:1"]).map(drop)
}

fn field(kubectl: &Tool, what: &[&str], path: &str) -> anyhow::Result<String> {
    kubectl.ok(&[&["get"], what, &["-o", &format!("jsonpath={{{path}}}")]].concat())
}

fn is_field(kubectl: &Tool, what: &[&str], path: &str, expected: &str) -> anyhow::Result<()> {
    eventually(&format!("{what:?} has {path} {expected:?}"), PATIENCE, || {
        let value = field(kubectl, what, path)?;
        ensure!(value == expected, "it is {value:?}: {}", kubectl.ok(&[&["describe"], what].concat())?);
        Ok(())
    })
}

fn is_gone(kubectl: &Tool, what: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("{what:?} is gone"), PATIENCE, || {
        let left = kubectl.ok(&[&["get"], what, &["--ignore-not-found", "-o", "name"]].concat())?;
        ensure!(left.is_empty(), "{left} is still there");
        Ok(())
    })
}

fn says(kubectl: &Tool, name: &str, reason: &str, text: &str) -> anyhow::Result<()> {
    let selector = format!("--field-selector=involvedObject.name={name},reason={reason}");
    eventually(&format!("{reason} is told of {name}"), PATIENCE, || {
        let told = kubectl.ok(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"])?;
        ensure!(told.contains(text), "{told:?}");
        Ok(())
    })
}

fn is_logged(kubectl: &Tool, pod: &str, expected: &str) -> anyhow::Result<()> {
    eventually(&format!("{pod} prints its journal"), PATIENCE, || {
        let log = kubectl.ok(&["logs", pod])?;
        ensure!(log == expected, "{log:?}");
        Ok(())
    })
}

pub fn a_claim_waits_for_its_pod_and_its_data_outlives_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster)?;
    let kubectl = &cluster.kubectl;
    let classes = kubectl.ok(&["get", "sc"])?;
    for part in ["ALLOWVOLUMEEXPANSION", "local-path (default)", "shoal.dev/local-path", "WaitForFirstConsumer"] {
        ensure!(classes.contains(part), "{classes}");
    }
    kubectl.ok_with(&["apply", "-f", "-"], &claim("notes", None))?;
    says(kubectl, "notes", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")?;
    let row = kubectl.ok(&["get", "pvc", "notes", "--no-headers"])?;
    ensure!(row.contains("Pending") && row.contains("local-path"), "{row}");
    kubectl.ok_with(&["apply", "-f", "-"], &journal("writer", "first", false, &of_claim("notes"), ""))?;
    is_field(kubectl, &["pod", "writer"], ".status.phase", "Succeeded")?;
    is_logged(kubectl, "writer", "first\n")?;
    let row = kubectl.ok(&["get", "pvc", "notes", "--no-headers"])?;
    ensure!(row.contains("Bound") && row.contains("16Mi") && row.contains("RWO"), "{row}");
    let volumes = kubectl.ok(&["get", "pv", "--no-headers"])?;
    let own = volumes.lines().find(|row| row.contains("default/notes")).context("no volume of the claim")?;
    for part in ["16Mi", "RWO", "Delete", "Bound", "local-path"] {
        ensure!(own.contains(part), "{own}");
    }
    kubectl.ok(&["delete", "pod", "writer", "--timeout=60s"])?;
    kubectl.ok_with(&["apply", "-f", "-"], &journal("second", "again", true, &of_claim("notes"), ""))?;
    is_logged(kubectl, "second", "first\nagain\n")
}

pub fn a_claim_in_use_is_held_and_its_directory_goes_with_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let volume = field(kubectl, &["pvc", "notes"], ".spec.volumeName")?;
    let directory = field(kubectl, &["pv", &volume], ".spec.local.path")?;
    ensure!(Path::new(&directory).join("journal").is_file(), "{directory} has no journal");
    kubectl.ok(&["delete", "pvc", "notes", "--wait=false"])?;
    let row = kubectl.ok(&["get", "pvc", "notes", "--no-headers"])?;
    ensure!(row.contains("Terminating"), "{row}");
    is_field(kubectl, &["pv", &volume], ".status.phase", "Bound")?;
    ensure!(Path::new(&directory).join("journal").is_file(), "a directory in use was removed");
    kubectl.ok(&["delete", "pod", "second", "--timeout=60s"])?;
    is_gone(kubectl, &["pvc", "notes"])?;
    is_gone(kubectl, &["pv", &volume])?;
    ensure!(!Path::new(&directory).exists(), "{directory} is still there");
    Ok(())
}

pub fn what_is_to_be_retained_stays(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster)?;
    let kubectl = &cluster.kubectl;
    let class = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: keeping}\nprovisioner: shoal.dev/local-path\n\
                 reclaimPolicy: Retain\nvolumeBindingMode: WaitForFirstConsumer\n---\n";
    let manifest =
        class.to_owned() + &claim("kept", Some("keeping")) + &journal("keeper", "kept", false, &of_claim("kept"), "");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    is_field(kubectl, &["pod", "keeper"], ".status.phase", "Succeeded")?;
    let volume = field(kubectl, &["pvc", "kept"], ".spec.volumeName")?;
    let directory = field(kubectl, &["pv", &volume], ".spec.local.path")?;
    kubectl.ok(&["delete", "pod/keeper", "pvc/kept", "sc/keeping", "--timeout=60s"])?;
    is_field(kubectl, &["pv", &volume], ".status.phase", "Released")?;
    kubectl.ok(&["delete", "pv", &volume, "--timeout=60s"])?;
    let text = std::fs::read_to_string(Path::new(&directory).join("journal"))?;
    ensure!(text == "kept\n", "{text:?}");
    Ok(())
}

pub fn a_pod_without_its_volume_says_why_it_waits(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster)?;
    let kubectl = &cluster.kubectl;
    let manifest = claim("unmade", Some("")) + &journal("waiting", "x", false, &of_claim("unmade"), "");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    says(
        kubectl,
        "waiting",
        "FailedScheduling",
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    )?;
    says(
        kubectl,
        "unmade",
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )?;
    kubectl.ok(&["delete", "pod/waiting", "pvc/unmade", "--timeout=60s"])?;
    Ok(())
}

pub fn a_pod_s_own_claim_comes_and_goes_with_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster)?;
    let kubectl = &cluster.kubectl;
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}}";
    kubectl.ok_with(&["apply", "-f", "-"], &journal("passing", "brief", true, template, ""))?;
    is_logged(kubectl, "passing", "brief\n")?;
    is_field(kubectl, &["pvc", "passing-data"], ".status.phase", "Bound")?;
    kubectl.ok(&["delete", "pod", "passing", "--timeout=60s"])?;
    is_gone(kubectl, &["pvc", "passing-data"])
}

pub fn a_directory_of_the_node_needs_the_worker_s_leave(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster)?;
    let host = cluster.data().join("host");
    std::fs::create_dir_all(&host)?;
    let kubectl = &cluster.kubectl;
    let path = |below: &str| format!("hostPath: {{path: {}/{below}, type: DirectoryOrCreate}}", host.display());
    kubectl.ok_with(&["apply", "-f", "-"], &journal("denied", "x", false, &path("a"), ""))?;
    is_field(kubectl, &["pod", "denied"], ".status.reason", "UnsupportedPodSpec")?;
    let row = kubectl.ok(&["get", "pod", "denied", "--no-headers"])?;
    ensure!(row.split_whitespace().nth(2) == Some("UnsupportedPodSpec"), "kubectl get shows {row:?}");
    says(kubectl, "denied", "UnsupportedPodSpec", "spec.volumes[0].hostPath.path")?;
    says(kubectl, "denied", "UnsupportedPodSpec", "--allow-host-path")?;
    ensure!(!host.join("a").exists(), "what is denied was made");

    let here =
        |manifest: String| manifest.replace("restartPolicy: Never", "nodeName: worker-1\n  restartPolicy: Never");
    let again = "nodeSelector: {kubernetes.io/hostname: worker-1}\n  restartPolicy: Always";
    let staying = journal("staying", "started", true, &of_claim("staying"), "").replace("restartPolicy: Never", again);
    kubectl.ok_with(&["apply", "-f", "-"], &(claim("staying", None) + &staying))?;
    is_logged(kubectl, "staying", "started\n")?;
    cluster.add_arguments("worker-1", &["--allow-host-path", &host.to_string_lossy()])?;
    cluster.signal("worker-1", Signal::KILL)?;
    cluster.up(3, 2)?;
    is_logged(kubectl, "staying", "started\nstarted\n")?;
    kubectl.ok(&["delete", "pod/staying", "pvc/staying", "--timeout=60s"])?;

    kubectl.ok_with(&["apply", "-f", "-"], &here(journal("allowed", "written", false, &path("a"), "")))?;
    is_field(kubectl, &["pod", "allowed"], ".status.phase", "Succeeded")?;
    ensure!(std::fs::read_to_string(host.join("a/journal"))? == "written\n", "the node does not have what was written");
    let read_only = here(journal("reading", "x", false, &path("a"), ", readOnly: true"));
    kubectl.ok_with(&["apply", "-f", "-"], &read_only)?;
    is_field(kubectl, &["pod", "reading"], ".status.phase", "Failed")?;
    ensure!(kubectl.ok(&["logs", "reading"])?.contains("/data/journal"), "it failed for another reason");

    std::os::unix::fs::symlink("/", host.join("out"))?;
    kubectl.ok_with(&["apply", "-f", "-"], &here(journal("escaping", "x", false, &path("out"), "")))?;
    says(kubectl, "escaping", "FailedMount", "leads out of the prefixes that the worker allows")?;
    kubectl.ok(&["delete", "pod", "denied", "allowed", "reading", "escaping", "--timeout=60s"])?;
    a_volume_made_by_hand_is_bound(kubectl, &host, here)
}

/// A volume that a person made is bound to a claim that fits, a part of it is mounted, and it is kept.
fn a_volume_made_by_hand_is_bound(kubectl: &Tool, host: &Path, here: impl Fn(String) -> String) -> anyhow::Result<()> {
    let volume = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: by-hand}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], \
         hostPath: {{path: {}}}}}\n---\n",
        host.join("a").display()
    );
    let pod = here(journal("using", "part", false, &of_claim("given"), ", subPath: deep/part"));
    kubectl.ok_with(&["apply", "-f", "-"], &(volume + &claim("given", Some("")) + &pod))?;
    is_field(kubectl, &["pod", "using"], ".status.phase", "Succeeded")?;
    ensure!(
        std::fs::read_to_string(host.join("a/deep/part/journal"))? == "part\n",
        "the part has not what was written"
    );
    is_field(kubectl, &["pv", "by-hand"], ".status.phase", "Bound")?;
    kubectl.ok(&["delete", "pod/using", "pvc/given", "--timeout=60s"])?;
    is_field(kubectl, &["pv", "by-hand"], ".status.phase", "Released")?;
    kubectl.ok(&["delete", "pv", "by-hand", "--timeout=60s"])?;
    ensure!(host.join("a/deep/part/journal").exists(), "what is retained was removed");
    Ok(())
}

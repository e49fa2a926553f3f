//! Fields of a Pod that have a case of their own nowhere else: what it says at its end, its gates, its resources as a whole, volumes
//! in memory, the name of its host, its token.

use anyhow::ensure;
use shoal_tests::{Cluster, Tool, eventually};

use crate::examples::{PATIENCE, example};

/// A pod of the toolbox that runs a line of its shell.
fn shell(name: &str, line: &str, container: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  \
         {spec}\n  containers:\n    - name: main\n      image: toolbox:1\n      command: [sh, -c, '{line}']\n      {container}\n---\n"
    )
}

fn push(cluster: &Cluster, example_name: &str) -> anyhow::Result<()> {
    let wasm = example(example_name, &format!("{example_name}.wasm"));
    cluster.shoal(&["push", &wasm.to_string_lossy(), &format!("{example_name}:1")]).map(drop)
}

fn says(kubectl: &Tool, pod: &str, path: &str, expected: &str) -> anyhow::Result<()> {
    eventually(&format!("{pod} has {path} {expected:?}"), PATIENCE, || {
        let told = kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{{path}}}")])?;
        ensure!(told == expected, "{told:?}: {}", kubectl.ok(&["describe", "pod", pod])?);
        Ok(())
    })
}

pub fn a_container_leaves_a_message_at_its_end(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "toolbox")?;
    let kubectl = &cluster.kubectl;
    let in_volume = "terminationMessagePath: /work/end\n      volumeMounts: [{name: work, mountPath: /work}]";
    let manifest = shell("says", "echo done with it > /dev/termination-log", "", "")
        + &shell("says-elsewhere", "echo all of it > /work/end", in_volume, "volumes: [{name: work, emptyDir: {}}]")
        + &shell(
            "fails",
            "echo first; echo no such thing; exit 1",
            "terminationMessagePolicy: FallbackToLogsOnError",
            "",
        )
        + &shell("says-nothing", "echo first; exit 1", "", "");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    let message = ".status.containerStatuses[0].state.terminated.message";
    for (pod, phase, expected) in [
        ("says", "Succeeded", "done with it\n"),
        ("says-elsewhere", "Succeeded", "all of it\n"),
        ("fails", "Failed", "first\nno such thing\n"),
        ("says-nothing", "Failed", ""),
    ] {
        says(kubectl, pod, ".status.phase", phase)?;
        says(kubectl, pod, message, expected)?;
    }
    kubectl.ok(&["delete", "pod", "says", "says-elsewhere", "fails", "says-nothing", "--timeout=60s"])?;
    Ok(())
}

pub fn a_pod_waits_for_its_gates(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "toolbox")?;
    let kubectl = &cluster.kubectl;
    let gates = "schedulingGates: [{name: example.com/quota}, {name: example.com/team}]";
    kubectl.ok_with(&["apply", "-f", "-"], &shell("gated", "echo here", "", gates))?;
    let row = kubectl.ok(&["get", "pod", "gated", "--no-headers"])?;
    ensure!(row.contains("SchedulingGated"), "{row}");
    let change = |json: &str| format!("--patch={json}");
    let added = r#"[{"op": "add", "path": "/spec/schedulingGates/-", "value": {"name": "example.com/more"}}]"#;
    let refused = kubectl.fails_with(&["patch", "pod", "gated", "--type=json", &change(added)], "")?;
    ensure!(refused.contains("only deletion is allowed"), "{refused}");
    let one = r#"[{"op": "remove", "path": "/spec/schedulingGates/0"}]"#;
    kubectl.ok(&["patch", "pod", "gated", "--type=json", &change(one)])?;
    let nowhere = r#"{"spec": {"nodeSelector": {"shoal.dev/nowhere": "yes"}}}"#;
    kubectl.ok(&["patch", "pod", "gated", &change(nowhere)])?;
    let row = kubectl.ok(&["get", "pod", "gated", "--no-headers"])?;
    ensure!(row.contains("SchedulingGated"), "{row}");
    kubectl.ok(&["patch", "pod", "gated", "--type=json", &change(one)])?;
    says(kubectl, "gated", ".status.conditions[?(@.type==\"PodScheduled\")].reason", "Unschedulable")?;
    let late = kubectl.fails_with(&["patch", "pod", "gated", &change(r#"{"spec": {"nodeSelector": null}}"#)], "")?;
    ensure!(late.contains("pod updates may not change fields"), "{late}");
    kubectl.ok(&["delete", "pod", "gated", "--timeout=60s"])?;
    kubectl.ok_with(&["apply", "-f", "-"], &shell("gated", "echo here", "", gates))?;
    kubectl.ok(&["patch", "pod", "gated", &change(r#"{"spec": {"schedulingGates": null}}"#)])?;
    says(kubectl, "gated", ".status.phase", "Succeeded")?;
    kubectl.ok(&["delete", "pod", "gated", "--timeout=60s"])?;
    Ok(())
}

pub fn the_containers_of_a_pod_share_what_it_has_as_a_whole(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "unruly")?;
    push(cluster, "ticker")?;
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: together}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  resources: {limits: {memory: 48Mi, cpu: 500m}}
  containers:
    - {name: greedy, image: 'unruly:1', args: [eat]}
    - name: modest
      image: ticker:1
      env: [{name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    let of = |container: &str, path: &str| format!(".status.containerStatuses[?(@.name==\"{container}\")].{path}");
    says(kubectl, "together", &of("greedy", "state.terminated.reason"), "OOMKilled")?;
    says(kubectl, "together", &of("greedy", "state.terminated.exitCode"), "137")?;
    says(kubectl, "together", &of("modest", "ready"), "true")?;
    says(kubectl, "together", ".status.qosClass", "Guaranteed")?;
    ensure!(kubectl.ok(&["exec", "together", "-c", "modest", "--", "env"])?.contains("LIMIT=48\n"), "the limit");
    let small = manifest.replace("image: ticker:1", "image: ticker:1\n      resources: {limits: {memory: 64Mi}}");
    let refused = kubectl.fails_with(&["create", "-f", "-"], &small.replace("name: together", "name: apart"))?;
    ensure!(refused.contains("must be less than or equal to pod limits of 48Mi"), "{refused}");
    kubectl.ok(&["delete", "pod", "together", "--timeout=60s"])?;
    Ok(())
}

pub fn a_volume_in_memory_is_not_on_the_disk_and_has_its_size(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "toolbox")?;
    let kubectl = &cluster.kubectl;
    let volume = |size: &str| format!("volumes: [{{name: fast, emptyDir: {{medium: Memory{size}}}}}]");
    let mounted = "volumeMounts: [{name: fast, mountPath: /fast}]";
    let manifest = shell("fast", "echo quick > /fast/file; sleep 600", mounted, &volume(""))
        + &shell("huge", "sleep 1", mounted, &volume("").replace("Memory", "HugePages"))
        + &shell("full", "tar cf /fast/all /bin; sleep 600", mounted, &volume(", sizeLimit: 1Ki"));
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    says(kubectl, "fast", ".status.containerStatuses[0].ready", "true")?;
    eventually("the file is there", PATIENCE, || {
        ensure!(kubectl.ok(&["exec", "fast", "--", "cat", "/fast/file"])? == "quick\n", "the file");
        Ok(())
    })?;
    let uid = kubectl.ok(&["get", "pod", "fast", "-o", "jsonpath={.metadata.uid}"])?;
    let in_memory = || {
        let workers = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        workers.map(|worker| worker.path().join(&uid).join("fast/file")).find(|file| file.is_file())
    };
    let file = in_memory();
    ensure!(file.is_some(), "the file is not in memory");
    says(kubectl, "huge", ".status.reason", "UnsupportedPodSpec")?;
    let told = kubectl.ok(&["get", "pod", "huge", "-o", "jsonpath={.status.message}"])?;
    ensure!(told.starts_with("spec.volumes[0].emptyDir.medium"), "{told}");
    kubectl.ok(&["exec", "full", "--", "sh", "-c", "env > /fast/more"])?;
    says(kubectl, "full", ".status.reason", "Evicted")?;
    kubectl.ok(&["delete", "pod", "fast", "huge", "full", "--timeout=60s"])?;
    eventually("the volume goes with its pod", PATIENCE, || {
        ensure!(in_memory().is_none(), "it is still there");
        Ok(())
    })
}

pub fn a_pod_knows_its_host_by_the_name_that_it_asks_for(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "toolbox")?;
    let kubectl = &cluster.kubectl;
    let whole = "hostname: db\n  subdomain: web\n  setHostnameAsFQDN: true";
    let long = format!("hostname: {}\n  subdomain: web\n  setHostnameAsFQDN: true", "d".repeat(60));
    let manifest = shell("whole", "env", "", whole)
        + &shell("own", "env", "", "hostname: db\n  hostnameOverride: db.example.com")
        + &shell("long", "env", "", &long);
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    for (pod, name) in [("whole", "db.web.default.svc.cluster.local"), ("own", "db.example.com")] {
        says(kubectl, pod, ".status.phase", "Succeeded")?;
        let log = kubectl.ok(&["logs", pod])?;
        ensure!(log.lines().any(|line| line == format!("HOSTNAME={name}")), "{log}");
    }
    eventually("a name that is too long is told", PATIENCE, || {
        let told = kubectl.ok(&["describe", "pod", "long"])?;
        ensure!(told.contains("is too long (64 characters is the max"), "{told}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod", "whole", "own", "long", "--timeout=60s"])?;
    Ok(())
}

pub fn a_pod_that_asks_for_it_has_its_token_where_libraries_look(cluster: &mut Cluster) -> anyhow::Result<()> {
    push(cluster, "toolbox")?;
    let kubectl = &cluster.kubectl;
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let line = format!("cat {place}/namespace; wc -c {place}/token; cat {place}/ca.crt");
    let manifest = shell("talker", &line, "", "automountServiceAccountToken: true") + &shell("quiet", "ls /", "", "");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    for pod in ["talker", "quiet"] {
        says(kubectl, pod, ".status.phase", "Succeeded")?;
    }
    let log = kubectl.ok(&["logs", "talker"])?;
    ensure!(log.starts_with("default") && log.contains("BEGIN CERTIFICATE"), "{log}");
    let volumes = |pod: &str| kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.spec.volumes[*].name}"]);
    ensure!(volumes("talker")?.starts_with("kube-api-access-"), "{}", volumes("talker")?);
    ensure!(volumes("quiet")?.is_empty(), "{}", volumes("quiet")?);
    kubectl.ok(&["delete", "pod", "talker", "quiet", "--timeout=60s"])?;
    Ok(())
}

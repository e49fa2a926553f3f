//! Pods of every kind that the first cluster runs, and what their status says.

use anyhow::ensure;
use shoal_tests::{Cluster, eventually, get};

use crate::examples::{PATIENCE, answered, example};

pub fn exit_codes_and_restarts_are_reported(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let pod = |name: &str, policy: &str, arguments: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  \
             containers: [{{name: main, image: 'unruly:1', args: {arguments}}}]\n---\n"
        )
    };
    let manifest = pod("fails-once", "Never", "[exit, '1']")
        + &pod("fails-again", "Always", "[exit, '1']")
        + &pod("traps", "Never", "[trap]");
    kubectl.ok_with(&["apply", "-f", "-"], &manifest)?;
    let state = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.status.{path}}}")]);
    eventually("the exit code is in the status", PATIENCE, || {
        ensure!(state("fails-once", "phase")? == "Failed", "phase");
        ensure!(state("fails-once", "containerStatuses[0].state.terminated.exitCode")? == "1", "exit code");
        ensure!(state("fails-once", "containerStatuses[0].state.terminated.reason")? == "Error", "reason");
        Ok(())
    })?;
    eventually("a trap is told with its message", PATIENCE, || {
        ensure!(state("traps", "phase")? == "Failed", "phase");
        let message = state("traps", "containerStatuses[0].state.terminated.message")?;
        ensure!(message.contains("unreachable"), "{message:?}");
        ensure!(kubectl.ok(&["logs", "traps"])?.contains("asked to trap"), "the log");
        Ok(())
    })?;
    eventually("a container that fails again and again is backed off", PATIENCE, || {
        ensure!(state("fails-again", "containerStatuses[0].state.waiting.reason")? == "CrashLoopBackOff", "reason");
        ensure!(state("fails-again", "containerStatuses[0].restartCount")?.parse::<u32>()? >= 1, "restarts");
        ensure!(state("fails-again", "containerStatuses[0].lastState.terminated.exitCode")? == "1", "last state");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod", "fails-once", "fails-again", "traps", "--timeout=60s"])?;
    Ok(())
}

pub fn a_container_s_own_rules_restart_it(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.shoal(&["push", &example("unruly", "unruly.wasm").to_string_lossy(), "unruly:1"])?;
    let kubectl = &cluster.kubectl;
    // WASI 0.2 makes each failure an exit code of 1.
    let pod = |name: &str, value: u8, own: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  \
             containers:\n  - name: main\n    image: unruly:1\n    args: [exit, '1']\n    {own}\n    \
             restartPolicyRules: [{{action: Restart, exitCodes: {{operator: In, values: [{value}]}}}}]\n---\n"
        )
    };
    let own = "restartPolicy: Never";
    kubectl.ok_with(&["apply", "-f", "-"], &(pod("tries-again", 1, own) + &pod("gives-up", 3, own)))?;
    let state = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.status.{path}}}")]);
    eventually("the rule decides", PATIENCE, || {
        ensure!(state("gives-up", "phase")? == "Failed", "phase");
        ensure!(state("gives-up", "containerStatuses[0].restartCount")? == "0", "restarts");
        ensure!(state("tries-again", "phase")? == "Running", "phase");
        ensure!(state("tries-again", "containerStatuses[0].restartCount")?.parse::<u32>()? >= 1, "restarts");
        Ok(())
    })?;
    let refused = kubectl.fails_with(&["apply", "-f", "-"], &pod("bad", 3, ""))?;
    ensure!(refused.contains("must specify restartPolicy when restart rules are used"), "{refused}");
    kubectl.ok(&["delete", "pod", "tries-again", "gives-up", "--timeout=60s"])?;
    Ok(())
}

pub fn secrets_and_variables_reach_the_process(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Secret
metadata: {name: whisper}
stringData: {word: abalone}
---
apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: ticker:1
      args: ["$(PREFIX)-$(POD_NAME)"]
      env:
        - {name: PREFIX, value: from}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: MESSAGE, valueFrom: {secretKeyRef: {name: whisper, key: word}}}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
    - {name: secret, secret: {secretName: whisper}}
    - {name: scratch, emptyDir: {}}
  containers:
    - name: main
      image: ticker:1
      env: [{name: MESSAGE_FILE, value: /secret/word}]
      volumeMounts:
        - {name: secret, mountPath: /secret}
        - {name: scratch, mountPath: /scratch}
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    for pod in ["listener", "reader"] {
        eventually("the process says the secret word", PATIENCE, || {
            let log = kubectl.ok(&["logs", pod])?;
            ensure!(log.contains("abalone"), "{pod}: {log}");
            Ok(())
        })?;
    }
    let log = kubectl.ok(&["logs", "listener"])?;
    ensure!(log.contains("from-listener"), "{log}");
    kubectl.ok(&["delete", "pod", "listener", "reader", "--timeout=60s"])?;
    kubectl.ok(&["delete", "secret", "whisper"])?;
    Ok(())
}

pub fn a_part_of_a_volume_is_mounted_in_its_place(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {first: abacus, second: babel}
---
apiVersion: v1
kind: Pod
metadata: {name: parts}
spec:
  volumes:
    - {name: words, configMap: {name: words}}
    - {name: scratch, emptyDir: {}}
  containers:
    - name: reader
      image: ticker:1
      env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: MESSAGE_FILE, value: /etc/app/word.txt}
      volumeMounts:
        - {name: words, mountPath: /etc/app/word.txt, subPath: second}
        - {name: scratch, mountPath: /logs, subPathExpr: logs/$(POD_NAME)}
---
apiVersion: v1
kind: Pod
metadata: {name: no-part}
spec:
  volumes: [{name: words, configMap: {name: words}}]
  containers:
    - name: reader
      image: ticker:1
      volumeMounts: [{name: words, mountPath: /word, subPath: third}]
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    eventually("the file is read in its place", PATIENCE, || {
        let log = kubectl.ok(&["logs", "parts"])?;
        ensure!(log.contains("1 babel"), "{log}");
        Ok(())
    })?;
    eventually("the part that is not there is named", PATIENCE, || {
        let waiting = "jsonpath={.status.containerStatuses[0].state.waiting}";
        let waiting = kubectl.ok(&["get", "pod", "no-part", "-o", waiting])?;
        let is_named = waiting.contains("CreateContainerConfigError") && waiting.contains("third");
        ensure!(is_named, "{waiting}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod/parts", "pod/no-part", "configmap/words", "--timeout=60s"])?;
    Ok(())
}

pub fn hooks_are_asked_after_the_start_and_before_the_end(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  containers:
    - name: hello
      image: hello:1
      ports: [{name: http, containerPort: 8080}]
      lifecycle:
        postStart: {httpGet: {path: /warm, port: http}}
        preStop: {httpGet: {path: /, port: 9}}
---
apiVersion: v1
kind: Pod
metadata: {name: badly-hooked}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: hello
      image: hello:1
      lifecycle: {postStart: {httpGet: {path: /, port: 9}}}
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/hooked", "--timeout=60s"])?;
    let events = |pod: &str, reason: &str| {
        kubectl.ok(&["get", "events", &format!("--field-selector=involvedObject.name={pod},reason={reason}")])
    };
    eventually("a hook that fails is told, and the container starts again", PATIENCE, || {
        let told = events("badly-hooked", "FailedPostStartHook")?;
        ensure!(told.contains("PostStartHook failed"), "{told}");
        let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
        let restarts: u32 = kubectl.ok(&["get", "pod", "badly-hooked", "-o", restarts])?.parse()?;
        ensure!(restarts > 0, "it has not restarted");
        Ok(())
    })?;
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    ensure!(
        kubectl.ok(&["get", "pod", "badly-hooked", "-o", ready])? == "False",
        "it was ready before its hook was done"
    );
    kubectl.ok(&["delete", "pod/hooked", "pod/badly-hooked", "--timeout=60s"])?;
    eventually("the hook before the end was tried", PATIENCE, || {
        let told = events("hooked", "FailedPreStopHook")?;
        ensure!(told.contains("PreStopHook failed"), "{told}");
        Ok(())
    })
}

pub fn a_failing_readiness_probe_takes_a_pod_out_of_its_service(cluster: &mut Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    // The probe asks front, which answers 200 only while `back` can be reached, so the test breaks and mends it from outside.
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: gate, labels: {app: gate}}
spec:
  containers:
    - name: front
      image: front:1
      ports: [{name: http, containerPort: 8080}]
      env: [{name: BACK_URL, value: gate-back}]
      readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: gate}
spec: {type: NodePort, selector: {app: gate}, ports: [{port: 80, targetPort: http, nodePort: 30082}]}
"#;
    kubectl.ok_with(&["apply", "-f", "-"], manifest)?;
    let endpoints =
        || kubectl.ok(&["get", "endpoints", "gate", "-o", "jsonpath={.subsets[*].addresses[*].targetRef.name}"]);
    eventually("the probe is seen to fail", PATIENCE, || {
        let ready =
            kubectl.ok(&["get", "pod", "gate", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"])?;
        ensure!(ready == "False", "Ready is {ready:?}");
        let events = kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=gate,reason=Unhealthy"])?;
        ensure!(events.contains("Readiness probe failed"), "{events}");
        Ok(())
    })?;
    ensure!(endpoints()?.is_empty(), "a pod that is not ready is an endpoint");
    ensure!(get("127.0.1.1:30082", "/")?.status == 503, "a Service without endpoints answers 503");
    let mended = "apiVersion: v1\nkind: Service\nmetadata: {name: gate-back}\nspec: {selector: {app: back}, ports: [{port: 80, targetPort: http}]}\n";
    kubectl.ok_with(&["apply", "-f", "-"], mended)?;
    eventually("the pod is ready and an endpoint", PATIENCE, || {
        ensure!(endpoints()? == "gate", "no endpoint");
        answered("127.0.1.2:30082", "/")
    })?;
    kubectl.ok(&["delete", "pod/gate", "service/gate", "service/gate-back", "--timeout=60s"])?;
    Ok(())
}

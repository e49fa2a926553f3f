//! Properties that every row has, and the cases by which users know a kind.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::resource::{Resource, find, resources};
use crate::table::{IncludeObject, table};

fn row(plural: &str) -> &'static Resource {
    resources().iter().find(|row| row.plural == plural).unwrap()
}

fn born(plural: &str, mut object: Value) -> Value {
    let strategy = row(plural).strategy;
    strategy.prepare_create(&mut object);
    strategy.default(&mut object);
    object
}

fn wrong(plural: &str, object: &Value) -> Vec<String> {
    row(plural).strategy.validate_create(object).iter().map(ToString::to_string).collect()
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "hello:1", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1000m", "memory": "0.5Gi"}}}]})
}

fn workload(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web", "namespace": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}}})
}

fn minimal(plural: &str) -> Value {
    let named = |rest: Value| {
        let mut object = json!({"metadata": {"name": "web", "namespace": "d"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    match plural {
        "pods" => named(json!({"spec": pod_spec()})),
        "deployments" => workload("Deployment"),
        "replicasets" => workload("ReplicaSet"),
        "services" => named(json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})),
        "secrets" => named(json!({"stringData": {"k": "v"}})),
        "endpointslices" => {
            named(json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}))
        }
        "events" => named(json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"}})),
        "rolebindings" | "clusterrolebindings" => named(
            json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]}),
        ),
        "persistentvolumes" => named(
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}),
        ),
        "persistentvolumeclaims" => {
            named(json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}))
        }
        "storageclasses" => named(json!({"provisioner": "example.com/disk"})),
        _ => named(json!({})),
    }
}

#[test]
fn minimal_manifests_are_valid_once_completed_and_stay_as_they_are() {
    for row in resources().iter().filter(|row| !row.is_virtual()) {
        let object = born(row.plural, minimal(row.plural));
        assert_eq!(wrong(row.plural, &object), Vec::<String>::new(), "{}", row.plural);
        let mut again = object.clone();
        row.strategy.default(&mut again);
        assert_eq!(again, object, "{}", row.plural);
        row.strategy.prepare_update(&mut again, &object);
        row.strategy.default(&mut again);
        assert_eq!(again, object, "{}", row.plural);
        assert!(row.strategy.validate_update(&again, &object).is_empty(), "{}", row.plural);
    }
}

#[test]
fn rows_are_told_apart_by_name_and_have_what_clients_need() {
    for row in resources() {
        // Names rather than addresses: the compiler may lay a constant down in more than one place.
        let found = find(row.group, row.version, row.plural).unwrap();
        let same = resources()
            .iter()
            .filter(|other| (other.group, other.version, other.plural) == (row.group, row.version, row.plural));
        assert_eq!((found.kind, found.schema, same.count()), (row.kind, row.schema, 1), "{}", row.plural);
        assert!(!row.singular.is_empty() && !row.schema.is_empty());
        assert!(row.is_virtual() || !row.verbs.is_empty());
    }
}

#[test]
fn a_pod_is_completed_as_in_kubernetes() {
    let pod = born("pods", minimal("pods"));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "1", "memory": "512Mi"}})
    );
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod["spec"]["enableServiceLinks"], true);
}

#[test]
fn a_deployment_is_completed_as_in_kubernetes() {
    let deployment = born("deployments", minimal("deployments"));
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert!(deployment["spec"]["template"]["spec"]["enableServiceLinks"].is_null());
    assert!(deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].is_null());
}

#[test]
fn a_selector_matches_its_template_and_never_changes() {
    let old = born("deployments", minimal("deployments"));
    let mut new = old.clone();
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"});
    assert_eq!(
        wrong("deployments", &new),
        ["spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`"]
    );
    new["spec"]["selector"] = json!({"matchLabels": {"app": "db"}});
    let texts: Vec<String> =
        row("deployments").strategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]);
}

#[test]
fn only_the_image_of_a_pod_changes() {
    let old = born("pods", minimal("pods"));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "hello:2".into();
    assert!(row("pods").strategy.validate_update(&new, &old).is_empty());
    new["spec"]["containers"][0]["args"] = json!(["x"]);
    let problems = row("pods").strategy.validate_update(&new, &old);
    assert!(
        problems[0]
            .to_string()
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,")
    );
}

#[test]
fn a_bad_pod_is_explained() {
    let pod = born(
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "C", "ports": [{"containerPort": 70_000}], "volumeMounts": [{"name": "v", "mountPath": "/x"}], "resources": {"limits": {"cpu": "x"}}}]}}),
    );
    let texts = wrong("pods", &pod);
    for part in [
        "spec.containers[0].name: Invalid value: \"C\"",
        "spec.containers[0].image: Required value",
        "must be between 1 and 65535, inclusive",
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        "quantities must match the regular expression",
    ] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part} in {texts:?}");
    }
}

#[test]
fn a_pod_waits_for_its_gates_and_may_only_be_narrowed_meanwhile() {
    let mut pod = minimal("pods");
    pod["spec"]["schedulingGates"] = json!([{"name": "example.com/quota"}, {"name": "example.com/team"}]);
    pod["spec"]["nodeSelector"] = json!({"zone": "a"});
    let old = born("pods", pod);
    assert_eq!(old["status"]["conditions"][0]["reason"], "SchedulingGated");
    assert!(wrong("pods", &old).is_empty());
    let told = |change: &dyn Fn(&mut Value)| changed("pods", &old, change);
    let accepted: [&dyn Fn(&mut Value); 4] = [
        &|pod| pod["spec"]["schedulingGates"] = json!([{"name": "example.com/team"}]),
        &|pod| drop(pod["spec"].as_object_mut().unwrap().remove("schedulingGates")),
        &|pod| pod["spec"]["nodeSelector"]["disk"] = "fast".into(),
        &|pod| {
            pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}});
        },
    ];
    for change in accepted {
        assert_eq!(told(change), [""; 0]);
    }
    let new_gate = told(&|pod| pod["spec"]["schedulingGates"] = json!([{"name": "example.com/other"}]));
    assert!(new_gate[0].starts_with("spec.schedulingGates[0].name: Forbidden: only deletion"), "{new_gate:?}");
    assert!(told(&|pod| pod["spec"]["nodeSelector"] = json!({"zone": "b"}))[0].starts_with("spec: Forbidden"));
    let mut free = old.clone();
    free["spec"].as_object_mut().unwrap().remove("schedulingGates");
    let late = changed("pods", &free, |pod| pod["spec"]["nodeSelector"]["disk"] = "fast".into());
    assert!(late[0].starts_with("spec: Forbidden"), "{late:?}");
    let mut placed = old.clone();
    placed["spec"]["nodeName"] = "worker-1".into();
    assert!(wrong("pods", &placed)[0].starts_with("spec.nodeName: Forbidden"));
}

#[test]
fn a_pod_as_a_whole_has_resources() {
    let with = |resources: Value| {
        let mut pod = minimal("pods");
        pod["spec"]["resources"] = resources;
        born("pods", pod)
    };
    let pod = with(json!({"limits": {"cpu": "2000m", "memory": "1Gi"}}));
    assert_eq!(pod["spec"]["resources"]["limits"]["cpu"], "2");
    assert_eq!(
        pod["spec"]["resources"]["requests"],
        json!({"cpu": "1", "memory": "512Mi"}),
        "its containers' together"
    );
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let guaranteed = json!({"cpu": "2", "memory": "1Gi"});
    assert_eq!(with(json!({"limits": guaranteed, "requests": guaranteed}))["status"]["qosClass"], "Guaranteed");
    assert!(wrong("pods", &pod).is_empty());
    let small = wrong("pods", &with(json!({"limits": {"cpu": "100m", "memory": "1Gi"}, "requests": {"cpu": "50m"}})));
    for part in [
        "spec.resources.requests[cpu]: Invalid value: \"50m\": must be greater than or equal to aggregate container requests of 1",
        "spec.containers[0].resources.limits[cpu]: Invalid value: \"1\": must be less than or equal to pod limits of 100m",
    ] {
        assert!(small.iter().any(|told| told == part), "{part} in {small:?}");
    }
    let unknown = wrong("pods", &with(json!({"limits": {"example.com/gpu": "1"}})));
    assert!(unknown[0].starts_with("spec.resources.limits[example.com/gpu]: Unsupported value"), "{unknown:?}");
}

#[test]
fn a_host_s_name_goes_before_all_others_or_is_not_given() {
    let with = |rest: Value| {
        let mut pod = minimal("pods");
        pod["spec"].as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        wrong("pods", &born("pods", pod))
    };
    assert_eq!(with(json!({"hostnameOverride": "db.example.com", "hostname": "db"})), [""; 0]);
    assert!(with(json!({"hostnameOverride": "Db"}))[0].starts_with("spec.hostnameOverride: Invalid value"));
    let both = with(json!({"hostnameOverride": "db", "setHostnameAsFQDN": true}));
    assert!(both[0].starts_with("spec.hostnameOverride: Forbidden"), "{both:?}");
    assert!(with(json!({"hostnameOverride": format!("{}.d", "d".repeat(63))}))[0].contains("64"));
}

#[test]
fn whom_a_pod_asks_for_names_is_checked() {
    let with = |rest: Value| {
        let mut pod = minimal("pods");
        pod["spec"].as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        wrong("pods", &born("pods", pod))
    };
    let own = json!({"nameservers": ["192.0.2.53"], "searches": ["corp.example."], "options": [{"name": "ndots", "value": "2"}]});
    assert_eq!(with(json!({"dnsPolicy": "None", "dnsConfig": own})), [""; 0]);
    for (rest, part) in [
        (json!({"dnsPolicy": "None"}), "spec.dnsConfig: Required value"),
        (json!({"dnsPolicy": "None", "dnsConfig": {}}), "spec.dnsConfig.nameservers: Required value"),
        (json!({"dnsConfig": {"nameservers": ["dns.example"]}}), "spec.dnsConfig.nameservers[0]: Invalid value"),
        (json!({"dnsConfig": {"nameservers": ["::1", "::2", "::3", "::4"]}}), "must not have more than 3"),
        (json!({"dnsConfig": {"searches": ["a_b"]}}), "spec.dnsConfig.searches[0]: Invalid value"),
        (json!({"dnsConfig": {"options": [{"value": "1"}]}}), "spec.dnsConfig.options[0]: Required value"),
        (json!({"hostAliases": [{"ip": "home"}]}), "spec.hostAliases[0].ip: Invalid value"),
    ] {
        let told = with(rest);
        assert!(told.len() == 1 && told[0].contains(part), "{part} in {told:?}");
    }
}

#[test]
fn mounts_say_how_they_travel() {
    let mut pod = minimal("pods");
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let with = |mount: Value| {
        let mut pod = pod.clone();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
        wrong("pods", &born("pods", pod))
    };
    let mount = |propagation: &str| json!({"name": "v", "mountPath": "/v", "mountPropagation": propagation});
    assert_eq!(with(mount("HostToContainer")), [""; 0]);
    assert!(with(mount("Sideways"))[0].contains("mountPropagation: Unsupported value"));
    assert!(with(mount("Bidirectional"))[0].contains("mountPropagation: Forbidden"));
    let recursive = json!({"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"});
    assert!(with(recursive)[0].contains("recursiveReadOnly: Forbidden"));
}

#[test]
fn a_pod_with_its_node_s_network_has_the_node_s_ports() {
    let mut spec = pod_spec();
    spec["hostNetwork"] = true.into();
    let pod = |spec: &Value| born("pods", json!({"metadata": {"name": "web", "namespace": "d"}, "spec": spec}));
    assert_eq!(pod(&spec)["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    assert!(wrong("pods", &pod(&spec)).is_empty());
    spec["containers"][0]["ports"][0]["hostPort"] = 8080.into();
    let told = |path: &str| {
        format!(
            "{path}.containers[0].ports[0].hostPort: Invalid value: 8080: must match `containerPort` when `hostNetwork` is true"
        )
    };
    assert_eq!(wrong("pods", &pod(&spec)), [told("spec")]);
    // A template's Pods are completed when they are made.
    let mut deployment = workload("Deployment");
    deployment["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    let deployment = born("deployments", deployment);
    assert!(wrong("deployments", &deployment).is_empty());
    let port = |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0].clone();
    assert!(port(&deployment).get("hostPort").is_none());
    let mut other = deployment;
    other["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = 8080.into();
    assert_eq!(wrong("deployments", &other), [told("spec.template.spec")]);
}

#[test]
fn secrets_keep_text_as_bytes_and_may_be_immutable() {
    let mut secret = born("secrets", minimal("secrets"));
    assert_eq!(
        (&secret["data"]["k"], &secret["type"], &secret["stringData"]),
        (&json!("dg=="), &json!("Opaque"), &Value::Null)
    );
    secret["immutable"] = true.into();
    let mut new = secret.clone();
    new["data"]["k"] = "eA==".into();
    let texts: Vec<String> =
        row("secrets").strategy.validate_update(&new, &secret).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["data: Forbidden: field is immutable when `immutable` is set"]);
}

#[test]
fn a_role_binding_is_bound_once() {
    let old = born("rolebindings", minimal("rolebindings"));
    let mut new = old.clone();
    new["roleRef"]["name"] = "edit".into();
    let problems = row("rolebindings").strategy.validate_update(&new, &old);
    assert!(problems[0].to_string().ends_with("cannot change roleRef"));
}

#[test]
fn pods_show_what_they_are_doing() {
    let cell = |pod: &Value| {
        table(row("pods"), &[pod], IncludeObject::None, Timestamp::UNIX_EPOCH)["rows"][0]["cells"].clone()
    };
    let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"containers": [{}]},
        "status": {"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    assert_eq!(cell(&pod), json!(["p", "1/1", "Running", "0", "0s", "<none>", "<none>", "<none>", "<none>"]));
    pod["status"]["containerStatuses"][0] = json!({"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "1969-12-31T23:59:50Z"}}});
    assert_eq!((&cell(&pod)[2], &cell(&pod)[3]), (&json!("CrashLoopBackOff"), &json!("2 (10s ago)")));
    pod["status"]["initContainerStatuses"] = json!([{"state": {"running": {}}}]);
    pod["spec"]["initContainers"] = json!([{}]);
    assert_eq!(cell(&pod)[2], "Init:0/1");
    pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    assert_eq!(cell(&pod)[2], "Terminating");
}

fn changed(plural: &str, old: &Value, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut new = old.clone();
    change(&mut new);
    row(plural).strategy.validate_update(&new, old).iter().map(ToString::to_string).collect()
}

#[test]
fn storage_is_shown_as_kubectl_shows_it() {
    let shown = |plural: &str, object: &Value| {
        table(row(plural), &[object], IncludeObject::None, Timestamp::UNIX_EPOCH)["rows"][0]["cells"].clone()
    };
    let aged = |mut object: Value| {
        object["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
        object
    };
    let mut volume = aged(born("persistentvolumes", minimal("persistentvolumes")));
    let free = json!(["web", "1Gi", "RWO", "Retain", "Pending", "", "", "<unset>", "", "0s", "Filesystem"]);
    assert_eq!(shown("persistentvolumes", &volume), free);
    volume["spec"]["claimRef"] = json!({"namespace": "d", "name": "data"});
    volume["spec"]["accessModes"] = json!(["ReadWriteMany", "ReadWriteOnce"]);
    volume["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    let cells = shown("persistentvolumes", &volume);
    assert_eq!((&cells[2], &cells[4], &cells[5]), (&json!("RWO,RWX"), &json!("Terminating"), &json!("d/data")));
    let mut claim = aged(born("persistentvolumeclaims", minimal("persistentvolumeclaims")));
    let waiting = json!(["web", "Pending", "", "", "", "", "<unset>", "0s", "Filesystem"]);
    assert_eq!(shown("persistentvolumeclaims", &claim), waiting);
    claim["spec"]["volumeName"] = "v".into();
    claim["spec"]["storageClassName"] = "fast".into();
    claim["status"] = json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}});
    let bound = json!(["web", "Bound", "v", "2Gi", "RWO", "fast", "<unset>", "0s", "Filesystem"]);
    assert_eq!(shown("persistentvolumeclaims", &claim), bound);
    let mut class = aged(born("storageclasses", minimal("storageclasses")));
    class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let usual = json!(["web (default)", "example.com/disk", "Delete", "Immediate", false, "0s"]);
    assert_eq!(shown("storageclasses", &class), usual);
}

#[test]
fn storage_that_makes_no_sense_is_explained() {
    let volume = born(
        "persistentvolumes",
        json!({"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOncePod", "ReadWriteOnce"], "local": {"path": "/a/../b"}}}),
    );
    assert_eq!(
        wrong("persistentvolumes", &volume),
        [
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.capacity: Required value",
            "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ]
    );
    let claim = born("persistentvolumeclaims", json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["Often"]}}));
    let texts = wrong("persistentvolumeclaims", &claim);
    assert!(texts[0].starts_with("spec.accessModes: Unsupported value: \"Often\""), "{texts:?}");
    assert_eq!(texts[1], "spec.resources[storage]: Required value");
    let class = born("storageclasses", json!({"metadata": {"name": "c"}, "reclaimPolicy": "Recycle"}));
    let texts = wrong("storageclasses", &class);
    assert_eq!(texts[0], "provisioner: Required value");
    assert!(texts[1].starts_with("reclaimPolicy: Unsupported value: \"Recycle\""), "{texts:?}");
}

#[test]
fn a_claim_gets_its_volume_once_and_only_grows() {
    let claim = born("persistentvolumeclaims", minimal("persistentvolumeclaims"));
    let spec = |claim: &mut Value, field: &str, value: Value| claim["spec"][field] = value;
    let plural = "persistentvolumeclaims";
    assert!(changed(plural, &claim, |claim| spec(claim, "volumeName", "v".into())).is_empty());
    assert!(changed(plural, &claim, |claim| spec(claim, "storageClassName", "fast".into())).is_empty());
    let refused = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    assert_eq!(changed(plural, &claim, |claim| spec(claim, "accessModes", json!(["ReadWriteMany"]))), [refused]);
    let grow = |claim: &mut Value| claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    assert_eq!(changed(plural, &claim, grow), [refused]);
    let mut bound = claim.clone();
    bound["spec"]["volumeName"] = "v".into();
    bound["status"]["phase"] = "Bound".into();
    assert!(changed(plural, &bound, grow).is_empty());
    let shrink = |claim: &mut Value| claim["spec"]["resources"]["requests"]["storage"] = "1Mi".into();
    assert!(changed(plural, &bound, shrink)[0].starts_with("spec.resources.requests.storage: Forbidden"));
    assert_eq!(changed(plural, &bound, |claim| spec(claim, "volumeName", "w".into())), [refused]);
}

#[test]
fn where_a_volume_is_never_changes() {
    let volume = born("persistentvolumes", minimal("persistentvolumes"));
    let moved = changed("persistentvolumes", &volume, |volume| volume["spec"]["hostPath"]["path"] = "/else".into());
    assert_eq!(
        moved,
        ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
    );
    let kept = changed("persistentvolumes", &volume, |volume| {
        volume["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    });
    assert!(kept.is_empty());
    let class = born("storageclasses", minimal("storageclasses"));
    let other = changed("storageclasses", &class, |class| class["provisioner"] = "example.com/tape".into());
    assert_eq!(other, ["provisioner: Forbidden: updates to provisioner are forbidden."]);
}

fn any_value() -> impl Strategy<Value = Value> {
    let keys = "(metadata|spec|status|capacity|accessModes|hostPath|nodeAffinity|ephemeral|volumeClaimTemplate|requests|storage|path|containers|containerStatuses|conditions|ports|name|labels|type|state|template|data|rules|subsets|endpoints|roleRef|subjects|volumes|resources|limits)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/:. -]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics_whatever_the_object(metadata in any_value(), spec in any_value(), status in any_value(), data in any_value()) {
        for row in resources() {
            let mut object = json!({"metadata": metadata, "spec": spec, "status": status, "data": data, "template": spec, "ports": data, "subsets": data, "rules": data});
            let _ = table(row, &[&object], IncludeObject::Metadata, Timestamp::UNIX_EPOCH);
            row.strategy.default(&mut object);
            let once = object.clone();
            row.strategy.default(&mut object);
            prop_assert_eq!(&once, &object);
            let _ = row.strategy.validate_create(&object);
            let _ = row.strategy.validate_update(&once, &object);
            row.strategy.prepare_update(&mut object, &once);
            row.strategy.prepare_status_update(&mut object, &once);
            row.strategy.prepare_create(&mut object);
        }
    }
}

#[test]
fn a_namespace_s_policy_must_be_readable_where_it_is_written() {
    let namespace =
        |annotations: Value| born("namespaces", json!({"metadata": {"name": "shop", "annotations": annotations}}));
    let broken =
        namespace(json!({"shoal.dev/image-public-keys": "cosign.pub", "shoal.dev/unsigned-images": "debug/*"}));
    let problems = wrong("namespaces", &broken);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let start =
        "metadata.annotations[shoal.dev/image-public-keys]: Invalid value: \"cosign.pub\": it holds no public key";
    assert!(problems[0].starts_with(start), "{problems:?}");
    let tagged = namespace(json!({"shoal.dev/unsigned-images": "debug/* hello:1"}));
    let problems = wrong("namespaces", &tagged);
    let start = "metadata.annotations[shoal.dev/unsigned-images]: Invalid value: \"hello:1\": ";
    assert!(problems[0].starts_with(start) && problems[0].contains("without tag"), "{problems:?}");

    let changed = |new: &Value, old: &Value| row("namespaces").strategy.validate_update(new, old).len();
    let plain = namespace(json!({}));
    assert_eq!((changed(&broken, &plain), changed(&plain, &broken), changed(&broken, &broken)), (1, 0, 0));
}

//! Bodies as clients send them, and what is said of wrong ones.

use serde_json::json;

use super::*;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn json_body(body: &str) -> Result<Decoded, DecodeError> {
    decode_body("application/json", body.as_bytes(), Some(DEPLOYMENT))
}

#[test]
fn unknown_and_repeated_fields_are_named_in_the_order_of_the_body() {
    let decoded = json_body(
        r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "name": "web"},
            "spec": {"unknownField": 1, "unknownField": 2, "replicas": 1, "replicas": 2,
                     "template": {"spec": {"containers": [{"name": "c", "imagee": "x"}]}}}}"#,
    )
    .unwrap();
    assert_eq!(
        decoded.strict,
        [
            r#"duplicate field "metadata.name""#,
            r#"unknown field "spec.unknownField""#,
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.template.spec.containers[0].imagee""#,
        ],
    );
    assert_eq!(decoded.unknown, ["spec.unknownField", "spec.template.spec.containers[0].imagee"]);
    assert_eq!(decoded.duplicate, ["metadata.name", "spec.replicas"]);
    assert_eq!(
        decoded.value["spec"],
        json!({ "replicas": 2, "template": { "spec": { "containers": [{ "name": "c" }] } } })
    );
    assert_eq!((decoded.api_version.as_str(), decoded.kind.as_str()), ("apps/v1", "Deployment"));
}

#[test]
fn a_wrong_type_is_refused_in_the_words_of_go() {
    let problem = |body: &str| json_body(body).unwrap_err().to_string();
    assert_eq!(
        problem(r#"{"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": "three"}}"#),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field \
         DeploymentSpec.spec.replicas of type int32",
    );
    assert!(
        problem(r#"{"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"image": 1}]}}}}"#)
            .ends_with("cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string"),
    );
    assert!(problem(r#"{"spec": {"template": {"spec": {"containers": {}}}}}"#).ends_with("of type []v1.Container"));
    assert!(problem(r#"{"metadata": {"labels": "x"}}"#).ends_with("of type map[string]string"));
    assert!(problem(r#"{"spec": {"replicas": 1.5}}"#).contains("cannot unmarshal number 1.5"));
    assert!(problem("[]").contains("cannot unmarshal array"));
}

#[test]
fn nulls_stand_for_absence() {
    let body = r#"{"metadata": {"name": "x", "creationTimestamp": null, "annotations": {"a": null}}, "spec": null}"#;
    assert_eq!(json_body(body).unwrap().value, json!({ "metadata": { "name": "x", "annotations": { "a": "" } } }));
}

#[test]
fn quantities_and_times_come_out_in_one_form() {
    let body = json!({
        "metadata": { "creationTimestamp": "2026-01-02T03:04:05.5+01:00" },
        "spec": { "template": { "spec": { "containers": [{ "resources": { "limits": { "cpu": "1000m", "memory": 1024 } } }] } } },
    });
    let value = conform(body, Some(DEPLOYMENT)).unwrap().value;
    assert_eq!(value["metadata"]["creationTimestamp"], "2026-01-02T02:04:05Z");
    let limits = &value["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits, &json!({ "cpu": "1", "memory": "1024" }));
    let wrong = json!({ "spec": { "template": { "spec": { "overhead": { "cpu": "lots" } } } } });
    assert!(conform(wrong, Some(DEPLOYMENT)).unwrap_err().to_string().contains("quantities must match"));
}

#[test]
fn yaml_is_read_like_json() {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 1\n  replicas: 2\n  nonsense: true\n";
    let decoded = decode_body("application/yaml; charset=utf-8", yaml.as_bytes(), None).unwrap();
    assert_eq!(decoded.strict, [r#"duplicate field "spec.replicas""#, r#"unknown field "spec.nonsense""#]);
    assert_eq!(decoded.value["spec"], json!({ "replicas": 2 }));
    let text =
        decode_body("application/yaml", b"kind: ConfigMap\napiVersion: v1\ndata:\n  a: \"yes\"\n", None).unwrap();
    assert_eq!(text.value["data"], json!({ "a": "yes" }));
    assert!(matches!(decode_body("application/yaml", b"a: [", None), Err(DecodeError::Malformed(_))));
}

#[test]
fn an_unknown_kind_is_taken_as_it_is() {
    let decoded =
        decode_body("", br#"{"apiVersion": "x/v1", "kind": "Y", "spec": {"z": [null]}, "spec": 1}"#, None).unwrap();
    assert_eq!(decoded.value, json!({ "apiVersion": "x/v1", "kind": "Y", "spec": 1 }));
    assert_eq!(decoded.duplicate, ["spec"]);
}

#[test]
fn limits_hold() {
    assert_eq!(decode_body("", &vec![b' '; MAX_BODY_BYTES + 1], None), Err(DecodeError::TooLarge));
    let deep = format!(r#"{{"a": {}{}}}"#, "[".repeat(MAX_DEPTH + 5), "]".repeat(MAX_DEPTH + 5));
    assert_eq!(decode_body("", deep.as_bytes(), None), Err(DecodeError::TooDeep));
    let deeper = "[".repeat(100_000);
    assert!(matches!(decode_body("", deeper.as_bytes(), None), Err(DecodeError::Malformed(_))));
    assert!(decode_body("application/yaml", deeper.as_bytes(), None).is_err());
    assert!(matches!(decode_body("text/plain", b"{}", None), Err(DecodeError::UnsupportedMediaType(_))));
}

#[test]
fn statuses_say_whose_fault_it_is() {
    assert_eq!(decode_body("text/plain", b"", None).unwrap_err().to_status().code, 415);
    assert_eq!(decode_body("", b"{", None).unwrap_err().to_status().code, 400);
    assert_eq!(DecodeError::TooLarge.to_status().code, 413);
}

#[test]
fn schemas_of_custom_resources_nest() {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": { "versions": [{ "schema": { "openAPIV3Schema": {
            "type": "object",
            "default": null,
            "properties": { "spec": { "additionalProperties": true, "items": { "type": "string" }, "nonsense": 1 } },
        } } }] },
    });
    let decoded = conform(crd, None).unwrap();
    assert_eq!(decoded.unknown, ["spec.versions[0].schema.openAPIV3Schema.properties.spec.nonsense"]);
}

proptest::proptest! {
    #[test]
    fn what_is_decoded_is_decoded_to_itself(replicas in proptest::num::i32::ANY, name in "[a-z]{0,8}", cpu in "[0-9]{1,4}m?") {
        let body = json!({
            "metadata": { "name": name },
            "spec": { "replicas": replicas, "template": { "spec": { "overhead": { "cpu": cpu } } } },
        });
        let once = conform(body, Some(DEPLOYMENT)).unwrap().value;
        let twice = conform(once.clone(), Some(DEPLOYMENT)).unwrap().value;
        proptest::prop_assert_eq!(once, twice);
    }
}

#[test]
fn a_configuration_keeps_its_nulls_and_may_be_yaml_or_json() {
    let schema = Some("io.k8s.api.apps.v1.Deployment");
    let expected = json!({"kind": "Deployment", "metadata": {"creationTimestamp": null}, "spec": {"replicas": null}});
    let yaml = b"kind: Deployment\nmetadata:\n  creationTimestamp: null\nspec:\n  replicas: ~\n  wrong: 1\n";
    let decoded = decode_configuration(yaml, schema).unwrap();
    assert_eq!((decoded.value, decoded.unknown), (expected.clone(), vec!["spec.wrong".to_owned()]));
    assert_eq!(decode_configuration(expected.to_string().as_bytes(), schema).unwrap().value, expected);
    assert!(decode_configuration(b"a: [", schema).is_err());
}

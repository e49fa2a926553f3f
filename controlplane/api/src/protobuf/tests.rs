//! What kubectl 1.35.2 sent, in `fixtures/NAME.bin`, against what it prints for the same command, in `NAME.json`.

use serde_json::{Value, json};

use super::*;
use crate::decode::{conform, decode_body};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name))
    };
}

#[test]
fn bodies_of_kubectl_are_the_objects_that_it_prints() {
    let pairs: [(&[u8], &[u8]); 12] = [
        (fixture!("configmap.bin"), fixture!("configmap.json")),
        (fixture!("secret.bin"), fixture!("secret.json")),
        (fixture!("namespace.bin"), fixture!("namespace.json")),
        (fixture!("deployment.bin"), fixture!("deployment.json")),
        (fixture!("serviceaccount.bin"), fixture!("serviceaccount.json")),
        (fixture!("service.bin"), fixture!("service.json")),
        (fixture!("cronjob.bin"), fixture!("cronjob.json")),
        (fixture!("rolebinding.bin"), fixture!("rolebinding.json")),
        (fixture!("quota.bin"), fixture!("quota.json")),
        (fixture!("pdb.bin"), fixture!("pdb.json")),
        (fixture!("ingress.bin"), fixture!("ingress.json")),
        (fixture!("priorityclass.bin"), fixture!("priorityclass.json")),
    ];
    for (body, printed) in pairs {
        let sent = decode_body(MEDIA_TYPE, body, None).unwrap();
        let printed: Value = serde_json::from_slice(printed).unwrap();
        let mut printed = conform(printed, None).unwrap().value;
        // kubectl does not always print the namespace that it sends.
        let mut sent = sent.value;
        for object in [&mut sent, &mut printed] {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        assert_eq!(sent, printed);
    }
}

#[test]
fn reviews_and_token_requests_are_read() {
    let review = decode(fixture!("review.bin")).unwrap();
    assert_eq!(
        review["spec"]["resourceAttributes"],
        json!({ "namespace": "default", "verb": "get", "resource": "pods" }),
    );
    let request = decode(fixture!("token.bin")).unwrap();
    assert_eq!(request["spec"]["expirationSeconds"], 600);
    assert_eq!(
        decode(fixture!("job.bin")).unwrap()["spec"]["template"]["spec"]["containers"][0]["command"],
        json!(["run", "it"])
    );
}

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    field.extend(content);
    field
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

#[test]
fn delete_options_come_under_any_group() {
    let preconditions = bytes(2, &bytes(1, b"u-1"));
    let raw = [varint(1, 0), preconditions, bytes(4, b"Background")].concat();
    let body = enveloped("apps/v1", "DeleteOptions", &raw);
    let options = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "preconditions": { "uid": "u-1" }, "propagationPolicy": "Background",
    });
    assert_eq!(decode_as(&body, Some(schema::DELETE_OPTIONS)).unwrap(), options);
    assert_eq!(decode(&body).unwrap(), options);
}

#[test]
fn pointers_keep_their_zeros_and_others_lose_them() {
    let spec = [varint(1, 0), varint(5, 0)].concat();
    let body = enveloped("apps/v1", "Deployment", &bytes(2, &spec));
    assert_eq!(decode(&body).unwrap()["spec"], json!({ "replicas": 0 }));
}

#[test]
fn times_are_written_as_text_and_zero_times_are_left_out() {
    let metadata = [bytes(1, b"x"), bytes(8, b""), bytes(9, &varint(1, 1))].concat();
    let body = enveloped("v1", "ConfigMap", &bytes(1, &metadata));
    assert_eq!(decode(&body).unwrap()["metadata"], json!({ "name": "x", "deletionTimestamp": "1970-01-01T00:00:01Z" }));
}

#[test]
fn a_message_in_two_parts_is_one_message() {
    let raw = [bytes(1, &bytes(1, b"x")), bytes(1, &bytes(3, b"ns"))].concat();
    let object = decode(&enveloped("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(object["metadata"], json!({ "name": "x", "namespace": "ns" }));
}

#[test]
fn what_is_no_envelope_or_of_no_kind_is_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoEnvelope));
    let unknown = ProtobufError::UnknownKind { api_version: "a/v1".to_owned(), kind: "B".to_owned() };
    assert_eq!(decode(&enveloped("a/v1", "B", b"")), Err(unknown));
    assert_eq!(decode(&enveloped("v1", "ConfigMap", &[0x0a, 9, 1])), Err(ProtobufError::Malformed));
}

#[test]
fn deep_nesting_is_refused() {
    let mut schema = Vec::new();
    for _ in 0..60 {
        // `not` of JSONSchemaProps is field 28: a tag of two bytes. Lengths stay below 128 for the first levels only.
        let mut wrapped = vec![0xe2, 0x01];
        let mut length = schema.len();
        while length >= 0x80 {
            wrapped.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        wrapped.push(u8::try_from(length).unwrap());
        wrapped.extend(schema);
        schema = wrapped;
    }
    let props = schema::schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    assert_eq!(message(&schema, props, &mut Map::new(), 0), Ok(()));
    assert_eq!(message(&schema, props, &mut Map::new(), 60), Err(ProtobufError::TooDeep));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        let _ = decode(&enveloped("apps/v1", "Deployment", &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }

    #[test]
    fn no_change_of_a_true_body_makes_it_panic(at in 0usize..221, byte in proptest::num::u8::ANY) {
        let mut body = fixture!("deployment.bin").to_vec();
        body[at] = byte;
        let _ = decode_body(MEDIA_TYPE, &body, None);
    }
}

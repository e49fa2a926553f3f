//! The form of an object in the store: its JSON text, ready to send but for its resourceVersion.
//!
//! A value is four bytes, little-endian, and then the text; the number is where in the text `"resourceVersion":"N",`
//! belongs, right behind `"metadata":{`. For `{"kind":"Pod","metadata":{"name":"a"}}` it is 26. The revision itself is
//! not stored: it is known only when the write is committed, and the store keeps it beside the value.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use shoal_store::Revision;

/// The store's bytes could not be read as an object: a broken invariant of this crate or a foreign writer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorruptObject {
    #[error("stored object is shorter than its header")]
    Truncated,
    #[error("stored object is not JSON")]
    Json(#[from] serde_json::Error),
}

/// Encodes an object for the store, without its `resourceVersion`. `object` must have a metadata map.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut text = Vec::with_capacity(512);
    let mut offset = 0_u32;
    text.push(b'{');
    for (index, (key, value)) in object.as_object().into_iter().flatten().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(&mut text, key);
        text.push(b':');
        if key == "metadata" {
            offset = u32::try_from(text.len() + 1).expect("objects are limited to a few MiB");
            write_metadata(&mut text, value);
        } else {
            write(&mut text, value);
        }
    }
    text.push(b'}');
    let mut bytes = BytesMut::with_capacity(text.len() + 4);
    bytes.put_u32_le(offset);
    bytes.extend_from_slice(&text);
    bytes.freeze()
}

fn write_metadata(text: &mut Vec<u8>, metadata: &Value) {
    text.push(b'{');
    let fields = metadata.as_object().into_iter().flatten().filter(|(key, _)| key.as_str() != "resourceVersion");
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(text, key);
        text.push(b':');
        write(text, value);
    }
    text.push(b'}');
}

fn write(text: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(text, value).expect("JSON values can be written to memory");
}

/// Appends an object's JSON text with its revision in place.
pub(crate) fn append(out: &mut Vec<u8>, stored: &[u8], revision: Revision) -> Result<(), CorruptObject> {
    let (head, tail) = split(stored)?;
    out.extend_from_slice(head);
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\",").as_bytes());
    out.extend_from_slice(tail);
    Ok(())
}

/// The object's JSON text with its revision in place.
pub(crate) fn text(stored: &[u8], revision: Revision) -> Result<Bytes, CorruptObject> {
    let mut out = Vec::with_capacity(stored.len() + 40);
    append(&mut out, stored, revision)?;
    Ok(out.into())
}

/// The object as a value, with its revision in place.
pub(crate) fn decode(stored: &[u8], revision: Revision) -> Result<Value, CorruptObject> {
    let json = stored.get(4..).ok_or(CorruptObject::Truncated)?;
    let mut object: Value = serde_json::from_slice(json)?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
    Ok(object)
}

fn split(stored: &[u8]) -> Result<(&[u8], &[u8]), CorruptObject> {
    let (header, text) = stored.split_first_chunk::<4>().ok_or(CorruptObject::Truncated)?;
    let offset = usize::try_from(u32::from_le_bytes(*header)).map_err(|_| CorruptObject::Truncated)?;
    text.split_at_checked(offset).ok_or(CorruptObject::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_revision_stands_right_behind_metadata() {
        let stored = encode(
            &json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "3"}, "spec": {"metadata": {}}}),
        );
        let text = text(&stored, Revision(7)).expect("was encoded here");
        assert_eq!(
            &text[..],
            br#"{"kind":"Pod","metadata":{"resourceVersion":"7","name":"a"},"spec":{"metadata":{}}}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(name in "\\PC{1,20}", data in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,30}", 0..8), revision in 1..u64::MAX) {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
            let stored = encode(&object);
            let mut expected = object;
            expected["metadata"]["resourceVersion"] = revision.to_string().into();
            let spliced: Value = serde_json::from_slice(&text(&stored, Revision(revision)).expect("was encoded here")).expect("is JSON");
            prop_assert_eq!(&spliced, &expected);
            prop_assert_eq!(&decode(&stored, Revision(revision)).expect("was encoded here"), &expected);
        }
    }
}

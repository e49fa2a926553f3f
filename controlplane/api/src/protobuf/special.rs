//! The messages that JSON writes as something else: times, durations, quantities, and JSON inside protobuf.

use jiff::Timestamp;
use serde_json::Value;

use super::{ProtobufError, Reader, Wire, utf8};
use crate::schema::Kind;

/// RFC 3339 in seconds, as `metav1.Time` is written.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in microseconds, as `metav1.MicroTime` is written.
pub(crate) fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The JSON of such a message; null where Go has nothing to write.
pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Value, ProtobufError> {
    match kind {
        Kind::Time | Kind::MicroTime => timestamp(kind, bytes),
        Kind::Duration => Ok(go_duration(number(bytes, 1)? as i64).into()),
        Kind::IntOrString => match number(bytes, 1)? {
            0 => Ok((number(bytes, 2)? as i32).into()),
            _ => Ok(utf8(last(bytes, 3)?)?.into()),
        },
        Kind::Quantity => match last(bytes, 1)? {
            [] => Ok("0".into()),
            text => Ok(utf8(text)?.into()),
        },
        Kind::Object | Kind::Fields | Kind::Json => match last(bytes, 1)? {
            [] => Ok(Value::Null),
            enveloped if enveloped.starts_with(super::MAGIC) => super::decode(enveloped),
            text => serde_json::from_slice(text).map_err(|_| ProtobufError::Malformed),
        },
        Kind::Strings => {
            let mut strings = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.next()? {
                if let (1, Wire::Bytes(text)) = (number, wire) {
                    strings.push(utf8(text)?.into());
                }
            }
            Ok(Value::Array(strings))
        }
        _ => Err(ProtobufError::Malformed),
    }
}

/// Field 1 seconds, field 2 nanoseconds; an empty message is Go's zero time.
fn timestamp(kind: Kind, bytes: &[u8]) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (number(bytes, 1)? as i64, number(bytes, 2)? as i32);
    let timestamp = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed)?;
    Ok(if kind == Kind::Time { time(timestamp) } else { micro_time(timestamp) }.into())
}

fn number(bytes: &[u8], wanted: u32) -> Result<u64, ProtobufError> {
    let mut found = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let (true, Wire::Varint(value)) = (number == wanted, wire) {
            found = value;
        }
    }
    Ok(found)
}

fn last(bytes: &[u8], wanted: u32) -> Result<&[u8], ProtobufError> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let (true, Wire::Bytes(value)) = (number == wanted, wire) {
            found = value;
        }
    }
    Ok(found)
}

/// How Go writes a duration in nanoseconds: `1h30m0s`, `1.5s`, `20ms`.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let fraction = format!("{:0width$}", magnitude % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{dot}{fraction}{name}", magnitude / unit)
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (magnitude / 60_000_000_000, magnitude % 60_000_000_000);
            let fraction = format!("{:09}", rest % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{dot}{fraction}s", rest / 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let written = [0, 1, 1_500, 20_000_000, 1_500_000_000, 90_000_000_000, 5_400_000_000_000, -1_000_000_000]
            .map(go_duration);
        assert_eq!(written, ["0s", "1ns", "1.5µs", "20ms", "1.5s", "1m30s", "1h30m0s", "-1s"]);
    }
}

//! Protobuf's wire format: numbered fields of four forms. Groups are refused.

use super::ProtobufError;

/// A field's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'b [u8]),
}

/// Reads field after field.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field, or none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'b>)>, ProtobufError> {
        let Some(tag) = self.varint()? else { return Ok(None) };
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Malformed)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?.ok_or(ProtobufError::Malformed)?),
            1 => {
                let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| ProtobufError::Malformed)?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?.ok_or(ProtobufError::Malformed)?;
                Wire::Bytes(self.take(usize::try_from(length).map_err(|_| ProtobufError::Malformed)?)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(ProtobufError::Malformed),
        };
        if number == 0 { Err(ProtobufError::Malformed) } else { Ok(Some((number, wire))) }
    }

    /// The next number of seven bits a byte, or none at the end.
    pub(super) fn varint(&mut self) -> Result<Option<u64>, ProtobufError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(Some(value));
            }
        }
        if self.rest.is_empty() { Ok(None) } else { Err(ProtobufError::Malformed) }
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

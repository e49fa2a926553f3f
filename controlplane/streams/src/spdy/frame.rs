//! Frames: what is on the wire, read and written without waiting.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

/// The most bytes of a frame that is read.
const MAX_FRAME: usize = 1 << 20;

const VERSION: u16 = 3;
const HEAD: usize = 8;
const FIN: u8 = 1;

/// The bytes are not SPDY/3.1, or more than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version.
    #[error("a frame of SPDY version {0}; 3 is the only one")]
    Version(u16),
    /// Longer than is taken.
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// Shorter than its type.
    #[error("a frame of type {0} that is too short")]
    TooShort(u16),
    /// A block that is damaged or too large.
    #[error("a header block that is damaged or too large")]
    Headers,
}

/// One frame. Types that say nothing here (settings, windows) are read as [`Frame::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A stream begins.
    SynStream {
        /// Its number, odd for a client's.
        id: u32,
        /// What it is.
        headers: Headers,
        /// Whether nothing comes on it.
        is_last: bool,
    },
    /// A stream is taken.
    SynReply {
        /// Its number.
        id: u32,
        /// What is said of it.
        headers: Headers,
    },
    /// A stream is broken off.
    Reset {
        /// Its number.
        id: u32,
        /// Why: section 2.6.3 of the draft.
        status: u32,
    },
    /// To be answered with the same, if the number is odd.
    Ping(u32),
    /// The connection ends.
    GoAway,
    /// What a stream carries.
    Data {
        /// Its number.
        id: u32,
        /// The bytes.
        bytes: Bytes,
        /// Whether nothing more comes on it.
        is_last: bool,
    },
    /// Anything else, skipped.
    Other,
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Finds the frames in a connection's bytes, however they are cut.
pub struct Reader {
    rest: BytesMut,
    inflater: Inflater,
}

impl Default for Reader {
    fn default() -> Self {
        Self { rest: BytesMut::new(), inflater: Inflater::new() }
    }
}

impl Reader {
    /// Where what comes is put.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.rest
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// [`FrameError`]; nothing that follows can be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(&head) = self.rest.first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, flags, high, middle, low] = head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        if self.rest.len() < HEAD + length {
            return Ok(None);
        }
        self.rest.advance(HEAD);
        let mut body = self.rest.split_to(length).freeze();
        let is_last = flags & FIN != 0;
        if a & 0x80 == 0 {
            return Ok(Some(Frame::Data { id: u32::from_be_bytes([a, b, c, d]), bytes: body, is_last }));
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let number = |body: &mut Bytes| body.try_get_u32().map_err(|_| FrameError::TooShort(kind));
        Ok(Some(match kind {
            SYN_STREAM => {
                let id = number(&mut body)? & 0x7fff_ffff;
                // The stream that it belongs to, a priority and a slot: all unused.
                if body.len() < 6 {
                    return Err(FrameError::TooShort(kind));
                }
                body.advance(6);
                Frame::SynStream { id, headers: self.inflater.decompress(&body)?, is_last }
            }
            SYN_REPLY => {
                let id = number(&mut body)? & 0x7fff_ffff;
                Frame::SynReply { id, headers: self.inflater.decompress(&body)? }
            }
            HEADERS => {
                number(&mut body)?;
                // Read even so: the blocks share their context.
                self.inflater.decompress(&body)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { id: number(&mut body)? & 0x7fff_ffff, status: number(&mut body)? },
            PING => Frame::Ping(number(&mut body)?),
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        }))
    }
}

/// Makes a connection's bytes of frames.
pub struct Writer {
    deflater: Deflater,
}

impl Default for Writer {
    fn default() -> Self {
        Self { deflater: Deflater::new() }
    }
}

impl Writer {
    /// The frame's bytes; nothing for [`Frame::Other`].
    pub fn write(&mut self, frame: &Frame) -> Bytes {
        match frame {
            Frame::Data { id, bytes, is_last } => {
                let mut out = BytesMut::with_capacity(HEAD + bytes.len());
                out.put_u32(*id);
                put_length(&mut out, u8::from(*is_last), bytes.len());
                out.put_slice(bytes);
                out.freeze()
            }
            Frame::SynStream { id, headers, is_last } => {
                let block = self.deflater.compress(headers);
                control(SYN_STREAM, u8::from(*is_last), &[&id.to_be_bytes(), &[0; 6], &block])
            }
            Frame::SynReply { id, headers } => {
                let block = self.deflater.compress(headers);
                control(SYN_REPLY, 0, &[&id.to_be_bytes(), &block])
            }
            Frame::Reset { id, status } => control(RST_STREAM, 0, &[&id.to_be_bytes(), &status.to_be_bytes()]),
            Frame::Ping(id) => control(PING, 0, &[&id.to_be_bytes()]),
            Frame::GoAway => control(GOAWAY, 0, &[&[0; 8]]),
            Frame::Other => Bytes::new(),
        }
    }
}

fn control(kind: u16, flags: u8, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(HEAD + length);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(&mut out, flags, length);
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let id = 1u32..1000;
        let headers = prop::collection::vec(("[a-z]{0,8}", "[ -~]{0,20}"), 0..4).prop_map(Headers);
        prop_oneof![
            (id.clone(), headers.clone(), any::<bool>()).prop_map(|(id, headers, is_last)| Frame::SynStream {
                id,
                headers,
                is_last
            }),
            (id.clone(), headers).prop_map(|(id, headers)| Frame::SynReply { id, headers }),
            (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::Reset { id, status }),
            any::<u32>().prop_map(Frame::Ping),
            Just(Frame::GoAway),
            (id, prop::collection::vec(any::<u8>(), 0..50), any::<bool>())
                .prop_map(|(id, bytes, is_last)| Frame::Data { id, bytes: bytes.into(), is_last }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(frames in prop::collection::vec(frame(), 0..8), cut in 1usize..30) {
            let mut writer = Writer::default();
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| writer.write(frame).to_vec()).collect();
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                reader.buffer().extend_from_slice(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.buffer().extend_from_slice(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }
}

//! A remote command's messages, and how they go over a byte stream between a server and a node.
//!
//! One message is a byte for the channel, four for the length (big endian), then the bytes. The channels are those of
//! Kubernetes' `v5.channel.k8s.io`, so that a WebSocket client's messages pass without a change.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most bytes of one message. Clients split what is longer themselves; a node never sends more.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Bytes before those of the message.
const HEAD: usize = 5;

/// What a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// To the process.
    Stdin,
    /// From the process.
    Stdout,
    /// From the process.
    Stderr,
    /// From the node, once: a `metav1.Status` that says how it ended.
    Error,
    /// To the process: the size of the client's terminal, JSON with `Width` and `Height`.
    Resize,
    /// The one byte of the message is the number of a channel on which nothing more comes.
    Close,
}

impl Channel {
    /// Its number in the protocol.
    pub fn number(self) -> u8 {
        match self {
            Channel::Stdin => 0,
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::Error => 3,
            Channel::Resize => 4,
            Channel::Close => 255,
        }
    }

    /// The channel with this number.
    pub fn of(number: u8) -> Option<Channel> {
        Some(match number {
            0 => Channel::Stdin,
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            3 => Channel::Error,
            4 => Channel::Resize,
            255 => Channel::Close,
            _ => return None,
        })
    }
}

/// A piece of what one channel carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which one.
    pub channel: Channel,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Message {
    /// A message.
    pub fn new(channel: Channel, bytes: impl Into<Bytes>) -> Message {
        Message { channel, bytes: bytes.into() }
    }

    /// Nothing more comes on `channel`.
    pub fn close(channel: Channel) -> Message {
        Message::new(Channel::Close, vec![channel.number()])
    }

    /// Whether it says that nothing more comes on `channel`.
    pub fn closes(&self, channel: Channel) -> bool {
        self.channel == Channel::Close && self.bytes[..] == [channel.number()]
    }
}

/// The message's bytes on a stream.
///
/// # Panics
/// When the message is longer than [`MAX_MESSAGE`].
pub fn encode(message: &Message) -> Bytes {
    assert!(message.bytes.len() <= MAX_MESSAGE, "a message is cut before it is sent");
    let mut bytes = BytesMut::with_capacity(HEAD + message.bytes.len());
    bytes.put_u8(message.channel.number());
    bytes.put_u32(u32::try_from(message.bytes.len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message.bytes);
    bytes.freeze()
}

/// The other side does not speak this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A channel that is none.
    #[error("a message on channel {0}, which does not exist")]
    Channel(u8),
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes; at most {MAX_MESSAGE} are allowed")]
    TooLong(usize),
}

/// Finds the messages in a stream of bytes, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    rest: BytesMut,
}

impl Decoder {
    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing that follows can be understood.
    pub fn next_message(&mut self) -> Result<Option<Message>, DecodeError> {
        let Some(head) = self.rest.get(..HEAD) else { return Ok(None) };
        let channel = Channel::of(head[0]).ok_or(DecodeError::Channel(head[0]))?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_MESSAGE {
            return Err(DecodeError::TooLong(length));
        }
        if self.rest.len() < HEAD + length {
            return Ok(None);
        }
        self.rest.advance(HEAD);
        Ok(Some(Message { channel, bytes: self.rest.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec((prop::sample::select(vec![0u8, 1, 2, 3, 4, 255]), prop::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1usize..20,
        ) {
            let messages: Vec<Message> =
                messages.into_iter().filter_map(|(number, bytes)| Some(Message::new(Channel::of(number)?, bytes))).collect();
            let stream: Vec<u8> = messages.iter().flat_map(|message| encode(message).to_vec()).collect();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(message)) = decoder.next_message() {
                prop_assert!(message.bytes.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_length_that_is_not_allowed_is_refused_before_it_is_awaited() {
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_message(), Err(DecodeError::TooLong(0xffff_ffff)));
    }
}

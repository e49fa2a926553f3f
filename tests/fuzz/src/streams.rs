//! What a client or a node sends while a command runs or a port is forwarded.

use shoal_store::targets::Target;
use shoal_streams::spdy::{Frame, Headers, Reader, Writer};
use shoal_streams::{Channel, Decoder, Message, encode};

/// The targets of this file.
pub const ALL: &[Target] = &[
    Target { name: "spdy", seeds: spdy_seeds, run: read_frames },
    Target { name: "messages", seeds: message_seeds, run: read_messages },
];

fn spdy_seeds() -> Vec<Vec<u8>> {
    let headers = Headers(vec![("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), "8080".to_owned())]);
    let frames = [
        Frame::SynStream { id: 1, headers: headers.clone(), is_last: false },
        Frame::Data { id: 1, bytes: b"GET / HTTP/1.1\r\n\r\n".as_slice().into(), is_last: true },
        Frame::Ping(1),
        Frame::SynStream { id: 3, headers, is_last: true },
        Frame::Reset { id: 3, status: 5 },
        Frame::GoAway,
    ];
    let mut writer = Writer::default();
    vec![frames.iter().flat_map(|frame| writer.write(frame).to_vec()).collect()]
}

fn read_frames(input: &[u8]) {
    let mut reader = Reader::default();
    for piece in input.chunks(61) {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn message_seeds() -> Vec<Vec<u8>> {
    let messages = [
        Message::new(Channel::Stdin, &b"ls -l\n"[..]),
        Message::new(Channel::Resize, &br#"{"Width":80,"Height":24}"#[..]),
        Message::close(Channel::Stdin),
    ];
    vec![messages.iter().flat_map(|message| encode(message).to_vec()).collect()]
}

fn read_messages(input: &[u8]) {
    let mut decoder = Decoder::default();
    for piece in input.chunks(61) {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

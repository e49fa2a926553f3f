//! Bytes that are seldom looked at, small: each of thousands of pods at rest has some.

use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What deflate needs for bytes that cannot be made smaller, beside them: the quickest way takes nine bits for some, and the end has a few.
fn room(length: usize) -> usize {
    length / 8 + 64
}

/// One for all, since each takes a quarter of a megabyte.
static COMPRESS: Mutex<Option<Compress>> = Mutex::new(None);

/// Bytes, compressed.
#[derive(Debug)]
pub struct Packed {
    deflated: Box<[u8]>,
    /// How many bytes they are.
    length: usize,
}

impl Packed {
    /// Packs `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut compress = COMPRESS.lock().unwrap_or_else(PoisonError::into_inner);
        let compress = compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        compress.reset();
        let mut deflated = Vec::with_capacity(bytes.len() + room(bytes.len()));
        let status = compress.compress_vec(bytes, &mut deflated, FlushCompress::Finish);
        assert!(matches!(status, Ok(Status::StreamEnd)), "there is room for all: {status:?}");
        Self { deflated: deflated.into(), length: bytes.len() }
    }

    /// The bytes again.
    pub fn bytes(&self) -> Vec<u8> {
        // A byte more, to see the end.
        let mut bytes = Vec::with_capacity(self.length + 1);
        let status = Decompress::new(false).decompress_vec(&self.deflated, &mut bytes, FlushDecompress::Finish);
        assert!(matches!(status, Ok(Status::StreamEnd)) && bytes.len() == self.length, "they were packed: {status:?}");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_there_again(bytes: Vec<u8>) {
            prop_assert_eq!(Packed::new(&bytes).bytes(), bytes);
        }
    }

    #[test]
    fn large_and_random_bytes_too() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        for length in [0, 1, 65_535, 1 << 20] {
            let bytes: Vec<u8> = (0..length).map(|_| random()).collect();
            assert_eq!(Packed::new(&bytes).bytes(), bytes);
        }
    }

    #[test]
    fn text_that_repeats_itself_is_small() {
        let text = r#"{"name":"web","image":"hello:1"},"#.repeat(100);
        assert!(Packed::new(text.as_bytes()).deflated.len() < text.len() / 10);
    }
}

//! Header blocks: names and values, compressed with a dictionary that both sides know, in one context for a connection's life.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::FrameError;

/// The most bytes of a header block, uncompressed.
const MAX_BLOCK: usize = 64 << 10;

/// Names are lower case; a value may hold several, parted by a zero byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn encode(&self) -> Vec<u8> {
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut block = number(self.0.len()).to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(number(text.len()));
            block.extend(text.as_bytes());
        }
        block
    }

    fn decode(block: &[u8]) -> Result<Headers, FrameError> {
        let mut rest = block;
        let number = |rest: &mut &[u8]| -> Result<usize, FrameError> {
            let (head, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
            *rest = tail;
            Ok(u32::from_be_bytes(*head) as usize)
        };
        let count = number(&mut rest)?;
        // Each takes at least its two lengths.
        if count > rest.len() / 8 {
            return Err(FrameError::Headers);
        }
        let text = |rest: &mut &[u8]| -> Result<String, FrameError> {
            let length = number(rest)?;
            let (text, tail) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
            *rest = tail;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let pairs: Result<_, _> = (0..count).map(|_| Ok((text(&mut rest)?, text(&mut rest)?))).collect();
        pairs.map(Headers)
    }
}

/// Compresses one direction's blocks.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut context = Compress::new(Compression::fast(), true);
        // It fails only on a context that was used.
        let _ = context.set_dictionary(&dictionary());
        Self(context)
    }

    pub(super) fn compress(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.encode();
        let mut out = Vec::with_capacity(block.len() + 64);
        let begun = self.0.total_in();
        loop {
            out.reserve(256);
            let consumed = usize::try_from(self.0.total_in() - begun).unwrap_or(usize::MAX);
            let done = self.0.compress_vec(&block[consumed.min(block.len())..], &mut out, FlushCompress::Sync);
            // A flush is complete when it leaves room.
            if !matches!(done, Ok(Status::Ok)) || out.len() < out.capacity() {
                return out;
            }
        }
    }
}

/// Decompresses the other's.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn decompress(&mut self, compressed: &[u8]) -> Result<Headers, FrameError> {
        let mut block = Vec::with_capacity(1024);
        let mut rest = compressed;
        loop {
            if block.len() > MAX_BLOCK {
                return Err(FrameError::Headers);
            }
            block.reserve(1024);
            let begun = self.0.total_in();
            let done = self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync);
            let consumed = usize::try_from(self.0.total_in() - begun).unwrap_or(usize::MAX);
            rest = rest.get(consumed..).ok_or(FrameError::Headers)?;
            match done {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(_) if rest.is_empty() && block.len() < block.capacity() => return Headers::decode(&block),
                // Neither read nor written: the block is cut off.
                Ok(Status::BufError) => return Err(FrameError::Headers),
                Ok(_) => {}
            }
        }
    }
}

/// The words of the draft's dictionary (section 2.6.10.1), each with its length before it, and then its plain text.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
        allow authorization cache-control connection content-base content-encoding content-language content-length \
        content-location content-md5 content-range content-type date etag expect expires from host if-match \
        if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
        proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
        user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
        keep-alive origin";
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
        Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
        Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
        Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, \
        GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
        publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let word = |word: &str| {
        let word = word.replace('_', " ");
        let length = u32::try_from(word.len()).unwrap_or_default().to_be_bytes();
        [&length[..], word.as_bytes()].concat()
    };
    WORDS.split_whitespace().flat_map(word).chain(TEXT.bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum with which every peer of SPDY/3 names the dictionary.
    #[test]
    fn the_dictionary_is_the_one_that_all_know() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(Compress::new(Compression::fast(), true).set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_connection_share_their_context() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let headers =
            Headers(vec![("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), "80".repeat(600))]);
        for _ in 0..5 {
            assert_eq!(inflater.decompress(&deflater.compress(&headers)).unwrap(), headers);
        }
        assert_eq!(inflater.decompress(&deflater.compress(&Headers::default())).unwrap(), Headers::default());
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let bomb = Headers(vec![("x".to_owned(), "0".repeat(10 << 20))]);
        assert!(Inflater::new().decompress(&Deflater::new().compress(&bomb)).is_err());
    }
}

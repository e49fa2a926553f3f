//! Sealed pieces one after the other: what snapshots and backups are made of.
//!
//! The seal's head, then each piece as its length (u32, little endian) and what is sealed. A piece's number is its place, so that
//! none can be left out, repeated or moved; the content says where the end is.

use std::io::{self, Read, Write};

use crate::seal::{HEAD, Keyring, Sealer, TAG};

/// The largest piece, in bytes: above any chunk of an image, and below what damage would make us allocate.
const LARGEST: usize = 16 << 20;

/// How much memory a piece is given before any of it was read, in bytes.
const AT_ONCE: usize = 1 << 20;

/// Writes pieces.
pub(crate) struct PieceWriter<W> {
    out: W,
    sealer: Sealer,
    number: u64,
}

impl<W: Write> PieceWriter<W> {
    pub(crate) fn new(mut out: W, keys: &Keyring, purpose: &'static str) -> io::Result<Self> {
        let sealer = keys.sealer(purpose).map_err(io::Error::other)?;
        out.write_all(&sealer.head())?;
        Ok(Self { out, sealer, number: 0 })
    }

    pub(crate) fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        let mut piece = Vec::with_capacity(4 + plain.len() + TAG);
        piece.extend_from_slice(&[0; 4]);
        piece.extend_from_slice(plain);
        self.sealer.seal(self.number, &[], &mut piece, 4);
        let length = u32::try_from(piece.len() - 4).map_err(io::Error::other)?;
        piece[..4].copy_from_slice(&length.to_le_bytes());
        self.number += 1;
        self.out.write_all(&piece)
    }

    /// What was written so far, given over.
    pub(crate) fn take(&mut self) -> W
    where
        W: Default,
    {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn into_inner(self) -> W {
        self.out
    }
}

/// Reads pieces.
pub(crate) struct PieceReader<R> {
    input: R,
    opener: Sealer,
    number: u64,
}

impl<R: Read> PieceReader<R> {
    pub(crate) fn new(mut input: R, keys: &Keyring, purpose: &'static str) -> io::Result<Self> {
        let mut head = [0; HEAD];
        input.read_exact(&mut head)?;
        let opener = keys.opener(purpose, &head).map_err(io::Error::other)?;
        Ok(Self { input, opener, number: 0 })
    }

    /// The next piece, which must be there.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a piece claims to have {length} bytes")));
        }
        let mut piece = Vec::with_capacity(length.min(AT_ONCE));
        (&mut self.input).take(length as u64).read_to_end(&mut piece)?;
        if piece.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain = self.opener.open(self.number, &[], &mut piece).map_err(io::Error::other)?.len();
        piece.truncate(plain);
        self.number += 1;
        Ok(piece)
    }
}

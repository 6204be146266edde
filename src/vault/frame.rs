//! Frames before sealing: up to 1 MiB of plaintext, compressed with zstd unless that does not help.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::stream::raw::{CParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{Strategy, compress_bound};

use crate::error::{self, Result};

/// Most plaintext bytes in one frame.
pub const FRAME_SIZE: usize = 1 << 20;

/// The memory that compressing a frame takes; a little more than [`FRAME_SIZE`].
pub const CODED_SIZE: usize = FRAME_SIZE + (FRAME_SIZE >> 7);

/// Most plaintext bytes in one block of zstd (RFC 8878, `Block_Maximum_Size`): less than that is not decompressed.
const BLOCK: usize = 128 << 10;

/// How the plaintext stands in the frame; part of what is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Raw = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

impl Coding {
    /// Reads the byte that stands for a coding.
    pub fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Coding::Raw),
            1 => Ok(Coding::Zstd),
            other => Err(error::integrity(format!("unknown frame coding {other}"))
                .hint("a newer Lifeboat may have written this repository")),
        }
    }
}

/// What a frame holds, as far as that decides how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Pages of a database.
    Pages,
    /// Anything else.
    Other,
}

/// The level at which [`Content::Pages`] has parameters of its own.
const OWN_LEVEL: i32 = 3;

/// zstd's level 3 looks for short matches, too; between pages there are hardly any. One table of 1 MiB for matches of
/// six bytes and more finds more in less time (`docs/decisions/0017-…`).
const OF_PAGES: [CParameter; 3] =
    [CParameter::Strategy(Strategy::ZSTD_fast), CParameter::HashLog(18), CParameter::MinMatch(6)];

/// A compressed frame, ready to be sealed.
#[derive(Debug)]
pub struct Frame {
    /// How `body` holds the plaintext.
    pub coding: Coding,
    /// Length of the plaintext in bytes, at most [`FRAME_SIZE`].
    pub plain_len: u32,
    /// The coded bytes.
    pub body: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Content, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

impl Frame {
    /// Compresses at most [`FRAME_SIZE`] bytes; keeps them raw where compression saves less than 3 %.
    pub fn compress(plaintext: &[u8], level: i32) -> Frame {
        let mut frame = Self::within(Vec::new(), Content::Other, plaintext, level);
        frame.body.shrink_to_fit();
        frame
    }

    /// As [`Frame::compress`], into memory that was used before.
    pub fn within(mut body: Vec<u8>, content: Content, plaintext: &[u8], level: i32) -> Frame {
        assert!(plaintext.len() <= FRAME_SIZE, "a frame holds at most {FRAME_SIZE} bytes");
        let plain_len = plaintext.len() as u32;
        body.clear();
        body.reserve(compress_bound(plaintext.len()));
        let compressed = COMPRESSOR.with_borrow_mut(|slot| {
            if slot.as_ref().is_none_or(|(l, c, _)| (*l, *c) != (level, content)) {
                *slot = compressor(level, content).ok().map(|compressor| (level, content, compressor));
            }
            slot.as_mut().is_some_and(|(.., c)| c.compress_to_buffer(plaintext, &mut body).is_ok())
        });
        if compressed && body.len() + plaintext.len() / 32 < plaintext.len() {
            return Frame { coding: Coding::Zstd, plain_len, body };
        }
        body.clear();
        body.extend_from_slice(plaintext);
        Frame { coding: Coding::Raw, plain_len, body }
    }
}

fn compressor(level: i32, content: Content) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    if level == OWN_LEVEL && content == Content::Pages {
        for parameter in OF_PAGES {
            compressor.set_parameter(parameter)?;
        }
    }
    Ok(compressor)
}

/// Gives back the plaintext of a frame whose coded bytes were authenticated; `memory` holds it where it had to be
/// decompressed.
pub fn decompress<'a>(coding: Coding, plain_len: u32, body: &'a [u8], memory: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let damaged = || error::integrity("a frame does not decompress to the length it announces");
    let length = plain_len as usize;
    if length > FRAME_SIZE {
        return Err(damaged());
    }
    let plaintext = match coding {
        Coding::Raw => body,
        Coding::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| -> Result<_> {
            if slot.is_none() {
                *slot = Decompressor::new().ok();
            }
            let decompressor = slot.as_mut().ok_or_else(no_context)?;
            if memory.len() < length {
                memory.resize(length, 0);
            }
            let filled = decompressor.decompress_to_buffer(body, &mut memory[..length]);
            Ok(&memory[..filled.map_err(|e| damaged().source(e))?])
        })?,
    };
    if plaintext.len() != length {
        return Err(damaged());
    }
    Ok(plaintext)
}

/// Gives back the first `length` bytes, or some more, of the plaintext of a frame whose coded bytes were
/// authenticated. What lies behind them costs nothing, but its decompressed length is not checked either.
pub fn decompress_start<'a>(
    coding: Coding,
    plain_len: u32,
    body: &'a [u8],
    length: u32,
    memory: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let (whole, length) = (plain_len as usize, length as usize);
    if coding == Coding::Raw || length.next_multiple_of(BLOCK) >= whole {
        return decompress(coding, plain_len, body, memory);
    }
    let damaged = || error::integrity("a frame does not decompress");
    if memory.len() < length {
        memory.resize(length, 0);
    }
    DECODER.with_borrow_mut(|slot| -> Result<()> {
        match slot {
            // It stopped in the middle of another frame.
            Some(decoder) => decoder.reinit().map_err(|e| damaged().source(e))?,
            None => *slot = Decoder::new().ok(),
        }
        let decoder = slot.as_mut().ok_or_else(no_context)?;
        let (mut input, mut output) = (InBuffer::around(body), OutBuffer::around(&mut memory[..length]));
        while output.pos() < length {
            let before = (input.pos(), output.pos());
            decoder.run(&mut input, &mut output).map_err(|e| damaged().source(e))?;
            if (input.pos(), output.pos()) == before {
                return Err(damaged());
            }
        }
        Ok(())
    })?;
    Ok(&memory[..length])
}

fn no_context() -> error::Error {
    error::internal("no memory for a zstd context")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_shrinks_and_random_stays_raw() {
        let text = b"promotion ".repeat(5000);
        let frame = Frame::compress(&text, 3);
        assert_eq!(frame.coding, Coding::Zstd);
        assert!(frame.body.len() < text.len() / 10);
        let mut memory = Vec::new();
        assert_eq!(decompress(frame.coding, frame.plain_len, &frame.body, &mut memory).expect("ok"), text);

        let mut noise = vec![0; 100_000];
        aws_lc_rs::rand::fill(&mut noise).expect("random");
        let frame = Frame::compress(&noise, 3);
        assert_eq!(frame.coding, Coding::Raw);
        assert!(decompress(Coding::Zstd, 10, &noise, &mut memory).is_err());
        // Another length than it has, in memory that was used before.
        let Frame { coding, plain_len, body } = Frame::compress(&text, 3);
        for wrong in [plain_len - 1, plain_len + 1] {
            assert!(decompress(coding, wrong, &body, &mut memory).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_are_compressed_in_their_own_way_and_read_like_anything_else() {
        let words = ["delivered", "to", "warehouse", "lot", "4711", "late", "invoice"];
        let text: String = (0..60_000_usize).map(|n| words[n * n / 7 % words.len()]).collect();
        let of = |content, level, body| Frame::within(body, content, text.as_bytes(), level);
        let used = vec![7; 100];
        let pages = of(Content::Pages, 3, used);
        assert_eq!(pages.coding, Coding::Zstd);
        assert_ne!(pages.body, of(Content::Other, 3, Vec::new()).body);
        assert_eq!(of(Content::Pages, 9, Vec::new()).body, of(Content::Other, 9, Vec::new()).body);
        let mut memory = Vec::new();
        let read = decompress(pages.coding, pages.plain_len, &pages.body, &mut memory).expect("sound");
        assert_eq!(read, text.as_bytes());
    }

    #[test]
    fn the_start_of_a_frame_needs_only_the_blocks_that_hold_it() {
        let mut plaintext = vec![0; FRAME_SIZE];
        for (n, word) in plaintext.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(n as u64 * n as u64).to_le_bytes());
        }
        let Frame { coding, plain_len, body } = Frame::compress(&plaintext, 3);
        assert_eq!(coding, Coding::Zstd);
        let mut memory = Vec::new();
        let mut start = |body: &[u8], length: usize| {
            decompress_start(coding, plain_len, body, length as u32, &mut memory).map(<[u8]>::to_vec)
        };
        for length in [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 7, 7 * BLOCK, 7 * BLOCK + 1, FRAME_SIZE, FRAME_SIZE + 1] {
            let found = start(&body, length).expect("sound");
            assert!(found.len() >= length.min(FRAME_SIZE) && plaintext.starts_with(&found), "{length}");
        }
        assert!(start(&body, 100).expect("sound").len() <= BLOCK);
        // What is not needed is not looked at; what is needed and not there is found out.
        let cut = &body[..body.len() / 2];
        assert!(plaintext.starts_with(&start(cut, 2 * BLOCK).expect("the half holds that")));
        assert_eq!(start(cut, 7 * BLOCK).expect_err("cut off").kind(), crate::ErrorKind::Integrity);
        assert!(start(cut, FRAME_SIZE).is_err());
    }
}

//! Frames before sealing: up to 1 MiB of plaintext, compressed with zstd unless that does not help.

use std::cell::RefCell;

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use crate::error::{self, Result};

/// Most plaintext bytes in one frame.
pub const FRAME_SIZE: usize = 1 << 20;

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
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

impl Frame {
    /// Compresses at most [`FRAME_SIZE`] bytes; keeps them raw where compression saves less than 3 %.
    pub fn compress(plaintext: &[u8], level: i32) -> Frame {
        assert!(plaintext.len() <= FRAME_SIZE, "a frame holds at most {FRAME_SIZE} bytes");
        let plain_len = plaintext.len() as u32;
        let compressed = COMPRESSOR.with_borrow_mut(|slot| {
            if slot.as_ref().is_none_or(|(l, _)| *l != level) {
                *slot = zstd::bulk::Compressor::new(level).ok().map(|c| (level, c));
            }
            slot.as_mut().and_then(|(_, c)| c.compress(plaintext).ok())
        });
        match compressed {
            Some(mut body) if body.len() + plaintext.len() / 32 < plaintext.len() => {
                body.shrink_to_fit();
                Frame { coding: Coding::Zstd, plain_len, body }
            }
            _ => Frame { coding: Coding::Raw, plain_len, body: plaintext.to_vec() },
        }
    }
}

/// Gives back the plaintext of a frame whose coded bytes were authenticated.
pub fn decompress(coding: Coding, plain_len: u32, body: Vec<u8>) -> Result<Vec<u8>> {
    let damaged = || error::integrity("a frame does not decompress to the length it announces");
    if plain_len as usize > FRAME_SIZE {
        return Err(damaged());
    }
    let plaintext = match coding {
        Coding::Raw => body,
        Coding::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Decompressor::new().ok();
            }
            let decompressor = slot.as_mut().ok_or_else(|| error::internal("no memory for a zstd context"))?;
            decompressor.decompress(&body, plain_len as usize).map_err(|e| damaged().source(e))
        })?,
    };
    if plaintext.len() != plain_len as usize {
        return Err(damaged());
    }
    Ok(plaintext)
}

/// Gives back the first `length` bytes, or some more, of the plaintext of a frame whose coded bytes were
/// authenticated. What lies behind them costs nothing, but its decompressed length is not checked either.
pub fn decompress_start(coding: Coding, plain_len: u32, body: Vec<u8>, length: u32) -> Result<Vec<u8>> {
    let (whole, length) = (plain_len as usize, length as usize);
    if coding == Coding::Raw || length.next_multiple_of(BLOCK) >= whole {
        return decompress(coding, plain_len, body);
    }
    let damaged = || error::integrity("a frame does not decompress");
    let mut start = Vec::with_capacity(length);
    DECODER.with_borrow_mut(|slot| -> Result<()> {
        match slot {
            // It stopped in the middle of another frame.
            Some(decoder) => decoder.reinit().map_err(|e| damaged().source(e))?,
            None => *slot = Decoder::new().ok(),
        }
        let decoder = slot.as_mut().ok_or_else(|| error::internal("no memory for a zstd context"))?;
        let (mut input, mut output) = (InBuffer::around(&body), OutBuffer::around(&mut start));
        while output.pos() < length {
            let before = (input.pos(), output.pos());
            decoder.run(&mut input, &mut output).map_err(|e| damaged().source(e))?;
            if (input.pos(), output.pos()) == before {
                return Err(damaged());
            }
        }
        Ok(())
    })?;
    Ok(start)
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
        assert_eq!(decompress(frame.coding, frame.plain_len, frame.body).expect("ok"), text);

        let mut noise = vec![0; 100_000];
        aws_lc_rs::rand::fill(&mut noise).expect("random");
        let frame = Frame::compress(&noise, 3);
        assert_eq!(frame.coding, Coding::Raw);
        assert!(decompress(Coding::Zstd, 10, noise).is_err());
    }

    #[test]
    fn the_start_of_a_frame_needs_only_the_blocks_that_hold_it() {
        let mut plaintext = vec![0; FRAME_SIZE];
        for (n, word) in plaintext.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(n as u64 * n as u64).to_le_bytes());
        }
        let Frame { coding, plain_len, body } = Frame::compress(&plaintext, 3);
        assert_eq!(coding, Coding::Zstd);
        let start = |body: &[u8], length: usize| decompress_start(coding, plain_len, body.to_vec(), length as u32);
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

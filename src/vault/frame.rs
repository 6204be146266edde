//! Frames before sealing: up to 1 MiB of plaintext, compressed with zstd unless that does not help.

use std::cell::RefCell;

use crate::error::{self, Result};

/// Most plaintext bytes in one frame.
pub const FRAME_SIZE: usize = 1 << 20;

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
}

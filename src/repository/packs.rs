//! Packs as manifests know them: names, frames, and the numbering of frames through all of them.

use serde::{Deserialize, Serialize};

use crate::error::{self, Error, Result};
use crate::vault::FrameInfo;
use crate::vault::frame::Coding;

/// A pack is closed when it holds this many bytes.
pub const PACK_SIZE: usize = 32 << 20;

/// A stored pack: its name, its size, its frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Name of the object under `data/`.
    pub sha256: String,
    /// Stored size in bytes.
    pub size: u64,
    /// Offset of the first frame.
    pub first: u64,
    /// Per frame: stored length, plaintext length, coding.
    pub frames: Vec<(u32, u32, u8)>,
    /// Metadata object with the sums of its pages ([`super::page_sums`]), where it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<String>,
}

/// The packs that a manifest refers to; frames are numbered through them in order.
#[derive(Debug, Clone, Default)]
pub struct PackTable {
    packs: Vec<PackInfo>,
    /// Number of the first frame of each pack.
    first_frame: Vec<u64>,
    frames: u64,
}

impl PackTable {
    /// A table of these packs.
    pub fn new(packs: Vec<PackInfo>) -> Self {
        let mut table = Self::default();
        for pack in packs {
            table.push(pack);
        }
        table
    }

    /// Adds a pack; returns the number of its first frame.
    pub fn push(&mut self, pack: PackInfo) -> u64 {
        let first = self.frames;
        self.first_frame.push(first);
        self.frames += pack.frames.len() as u64;
        self.packs.push(pack);
        first
    }

    /// The packs.
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// How many frames there are in all packs.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Index of the pack that holds a frame, and the frame's number within it.
    pub fn locate(&self, frame: u64) -> Result<(usize, u32)> {
        if frame >= self.frames {
            return Err(error::integrity(format!(
                "frame {frame} lies outside the {} frames of the manifest",
                self.frames
            )));
        }
        let pack = self.first_frame.partition_point(|first| *first <= frame) - 1;
        Ok((pack, (frame - self.first_frame[pack]) as u32))
    }

    /// Plaintext length of a frame.
    pub fn plain_len(&self, frame: u64) -> Result<u32> {
        let (pack, number) = self.locate(frame)?;
        Ok(self.packs[pack].frames[number as usize].1)
    }

    /// Stored length of a frame.
    pub fn stored_len(&self, frame: u64) -> Result<u64> {
        let (pack, number) = self.locate(frame)?;
        Ok(self.packs[pack].frames[number as usize].0.into())
    }

    /// Where the frames of a pack lie within it.
    pub fn frames_of(&self, pack: usize) -> Result<Vec<FrameInfo>> {
        let mut offset = self.packs[pack].first;
        let mut frames = Vec::with_capacity(self.packs[pack].frames.len());
        for &(stored_len, plain_len, coding) in &self.packs[pack].frames {
            frames.push(FrameInfo { offset, stored_len, plain_len, coding: Coding::from_byte(coding)? });
            offset += u64::from(stored_len);
        }
        Ok(frames)
    }

    /// Number of the first frame of a pack.
    pub fn first_frame_of(&self, pack: usize) -> u64 {
        self.first_frame[pack]
    }

    /// Cuts `length` bytes of the plaintext stream from (`frame`, `offset`) on at frame borders; tells for
    /// each part: frame, offset in it, length, and how many bytes came before.
    pub fn cut(
        &self,
        mut frame: u64,
        mut offset: u32,
        length: u64,
        mut part: impl FnMut(u64, u32, u32, u64),
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let room = self.plain_len(frame)?.saturating_sub(offset);
            let take = u64::from(room).min(length - done) as u32;
            if take > 0 {
                part(frame, offset, take, done);
            }
            done += u64::from(take);
            frame += 1;
            offset = 0;
        }
        Ok(())
    }
}

pub(super) fn panicked(e: tokio::task::JoinError) -> Error {
    error::internal("a worker of the pipeline ended unexpectedly").source(e)
}

/// Unwraps the result of a task.
pub(crate) fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_where_frames_end() {
        let pack = |frames: &[u32]| PackInfo {
            sha256: String::new(),
            size: 0,
            first: 0,
            frames: frames.iter().map(|len| (0, *len, 0)).collect(),
            sums: None,
        };
        let table = PackTable::new(vec![pack(&[100, 100]), pack(&[50])]);
        let mut parts = Vec::new();
        table.cut(0, 90, 130, |frame, offset, length, done| parts.push((frame, offset, length, done))).expect("cut");
        assert_eq!(parts, [(0, 90, 10, 0), (1, 0, 100, 10), (2, 0, 20, 110)]);
        assert!(table.cut(2, 0, 51, |_, _, _, _| {}).is_err());
    }
}

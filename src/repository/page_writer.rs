//! From pages of files to frames: pages of any files fill a frame, and when it has a number each stretch
//! of a file learns where it stands.
//!
//! Every page begins at a page's border of its frame; a file's short last page is padded with zeros. So
//! the sums of pages ([`super::page_sums`]) belong to places in frames, and runs can be cut at any page.

use super::page_sums::{PAGE, PageSum};
use crate::error::Result;
use crate::vault::frame::FRAME_SIZE;

/// Where frames go.
pub trait FrameOut {
    /// Takes a frame and the sums of its pages; gives its number and a buffer for the next one.
    fn frame(&mut self, plaintext: Vec<u8>, sums: &[u8]) -> Result<(u64, Vec<u8>)>;
}

/// A stretch of a file, and where it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The caller's number of the file.
    pub file: u32,
    /// Offset in the file; a multiple of [`PAGE`].
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u32,
    /// Frame that holds it, counted through the packs of the pipeline.
    pub frame: u64,
    /// Offset in the frame; a multiple of [`PAGE`].
    pub offset: u32,
}

/// Fills frames with pages.
#[derive(Debug)]
pub struct PageWriter<O> {
    out: O,
    frame: Vec<u8>,
    sums: Vec<u8>,
    /// Stretches in the frame being filled, which has no number yet.
    pending: Vec<Stored>,
    stored: Vec<Stored>,
}

impl<O: FrameOut> PageWriter<O> {
    /// Nothing written yet.
    pub fn new(out: O) -> Self {
        Self { out, frame: Vec::with_capacity(FRAME_SIZE), sums: Vec::new(), pending: Vec::new(), stored: Vec::new() }
    }

    /// Adds the page of `file` at `file_offset`; at most [`PAGE`] bytes, fewer at the file's end only.
    pub fn page(&mut self, file: u32, file_offset: u64, bytes: &[u8]) -> Result<()> {
        let (offset, length) = (self.frame.len() as u32, bytes.len() as u32);
        match self.pending.last_mut() {
            Some(last) if last.file == file && last.file_offset + u64::from(last.length) == file_offset => {
                last.length += length;
            }
            _ => self.pending.push(Stored { file, file_offset, length, frame: 0, offset }),
        }
        self.sums.extend_from_slice(&PageSum::of(bytes).to_bytes());
        self.frame.extend_from_slice(bytes);
        self.frame.resize(self.frame.len().next_multiple_of(PAGE), 0);
        if self.frame.len() == FRAME_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let (frame, buffer) = self.out.frame(std::mem::take(&mut self.frame), &self.sums)?;
        self.frame = buffer;
        self.sums.clear();
        self.stored.extend(self.pending.drain(..).map(|part| Stored { frame, ..part }));
        Ok(())
    }

    /// Sends what is left; gives the output back, and where everything stands.
    pub fn finish(mut self) -> Result<(O, Vec<Stored>)> {
        if !self.frame.is_empty() {
            self.flush()?;
        }
        Ok((self.out, self.stored))
    }
}

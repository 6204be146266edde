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
    /// Takes a frame and what it holds, in order; gives its number and a buffer for the next. Whoever compresses the
    /// frame makes the sums of its pages (`sums`): that need not be the thread that reads.
    fn frame(&mut self, plaintext: Vec<u8>, parts: &[Stored]) -> Result<(u64, Vec<u8>)>;
}

/// The sums of the pages of a frame that a [`PageWriter`] filled with these parts: of the files' bytes, without what pads
/// them.
pub(super) fn sums(plaintext: &[u8], parts: &[Stored]) -> Vec<u8> {
    let of_part = |part: &Stored| plaintext[part.offset as usize..][..part.length as usize].chunks(PAGE);
    parts.iter().flat_map(of_part).flat_map(|page| PageSum::of(page).to_bytes()).collect()
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
    /// Stretches in the frame being filled, which has no number yet.
    pending: Vec<Stored>,
    stored: Vec<Stored>,
}

impl<O: FrameOut> PageWriter<O> {
    /// Nothing written yet.
    pub fn new(out: O) -> Self {
        Self { out, frame: Vec::with_capacity(FRAME_SIZE), pending: Vec::new(), stored: Vec::new() }
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
        self.frame.extend_from_slice(bytes);
        self.frame.resize(self.frame.len().next_multiple_of(PAGE), 0);
        if self.frame.len() == FRAME_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let (frame, buffer) = self.out.frame(std::mem::take(&mut self.frame), &self.pending)?;
        self.frame = buffer;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::page_sums::SUM;

    /// Takes frames and their sums.
    #[derive(Default)]
    struct Frames(Vec<(Vec<u8>, Vec<u8>)>);

    impl FrameOut for Frames {
        fn frame(&mut self, plaintext: Vec<u8>, parts: &[Stored]) -> Result<(u64, Vec<u8>)> {
            let sums = sums(&plaintext, parts);
            self.0.push((plaintext, sums));
            Ok((self.0.len() as u64 - 1, Vec::new()))
        }
    }

    #[test]
    fn every_page_of_a_frame_has_one_sum_of_the_files_own_bytes() {
        let of_file = |n: usize| vec![n as u8 + 1; [100 + n, 2 * PAGE, PAGE + 7][n % 3]];
        let files: Vec<Vec<u8>> = (0..FRAME_SIZE / PAGE).map(of_file).collect();
        let mut writer = PageWriter::new(Frames::default());
        for (number, bytes) in (0..).zip(&files) {
            for (at, page) in (0..).step_by(PAGE).zip(bytes.chunks(PAGE)) {
                writer.page(number, at, page).expect("written");
            }
        }
        let (Frames(frames), _) = writer.finish().expect("finished");
        assert_eq!(frames.len(), 2);
        let pages = files.iter().flat_map(|bytes| bytes.chunks(PAGE));
        let expected: Vec<u8> = pages.flat_map(|page| PageSum::of(page).to_bytes()).collect();
        assert!(frames.iter().flat_map(|(_, sums)| sums).eq(&expected), "in order, padding left out");
        assert_eq!(frames[0].1.len(), FRAME_SIZE / PAGE * SUM);
    }
}

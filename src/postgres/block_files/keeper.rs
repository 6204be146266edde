//! Keeps the blocks of WAL that passes: beside a reader that collects them, from the start of a
//! segment on, and across its border to the segment before.

use super::{BlockFiles, Stretch};
use crate::postgres::wal::{SegmentName, WalReader};
use crate::units::{Lsn, Timeline};

/// What is to be kept of the segment that a reader is in.
#[derive(Debug)]
pub(in crate::postgres) struct Keeper {
    files: BlockFiles,
    timeline: Timeline,
    segment_size: u64,
    /// Start of the segment.
    at: Lsn,
    /// Of records that start here or later, none was missed; where it is not known, the reader decides.
    from: Option<Lsn>,
    /// Finishes the record that began in the segment before, which another process read.
    border: Option<WalReader>,
}

impl Keeper {
    /// For `reader`, which stands at the start of a segment of the cluster `system_id` and has read nothing.
    pub(in crate::postgres) fn begin(
        files: BlockFiles,
        reader: &mut WalReader,
        system_id: u64,
        timeline: Timeline,
        segment_size: u64,
    ) -> Self {
        let segment = SegmentName::holding(timeline, reader.position(), segment_size);
        let before = files.before(system_id, &segment, segment_size);
        Self::after(before, files, reader, timeline, segment_size)
    }

    /// The same where it is known what was kept of the segment before.
    pub(in crate::postgres) fn after(
        before: Option<Stretch>,
        files: BlockFiles,
        reader: &mut WalReader,
        timeline: Timeline,
        segment_size: u64,
    ) -> Self {
        reader.collect_blocks();
        let border = before.and_then(Stretch::finisher);
        Self { files, timeline, segment_size, at: reader.position(), from: None, border }
    }

    /// Takes the bytes that `reader` has just read.
    pub(in crate::postgres) fn fed(&mut self, bytes: &[u8], reader: &mut WalReader) {
        let Some(border) = &mut self.border else { return };
        let mut whole = None;
        // Page by page: whatever follows the record across the border is the other reader's business.
        for page in bytes.chunks(8192) {
            let start = border.whole_from();
            let mut done = false;
            if border.feed(page, |_| done = true).is_err() {
                // Not the record that goes on here: the beginning stays unknown.
                self.border = None;
                return;
            }
            if done {
                whole = start;
                break;
            }
        }
        if whole.is_some() {
            if let Some(found) = border.take_blocks() {
                reader.add_blocks(&found);
            }
            self.from = whole;
            self.border = None;
        }
    }

    /// What is known of the segment so far.
    pub(in crate::postgres) fn stretch(&self, reader: &WalReader) -> Option<Stretch> {
        Stretch::of(reader, self.timeline, self.segment_size, self.at, self.from)
    }

    /// What is known of a segment that `reader` was given as a whole, these `bytes`.
    pub(in crate::postgres) fn finish(mut self, bytes: &[u8], mut reader: WalReader) -> Option<Stretch> {
        self.fed(bytes, &mut reader);
        self.stretch(&reader)
    }

    /// Keeps what is known of the segment so far.
    pub(in crate::postgres) fn keep(&self, reader: &WalReader) {
        if let Some(stretch) = self.stretch(reader) {
            self.files.write(&stretch);
        }
    }

    /// The segment is complete: keeps all of it and begins the next.
    pub(in crate::postgres) fn complete(&mut self, reader: &mut WalReader) {
        if let Some(stretch) = self.stretch(reader) {
            self.files.complete(&stretch);
            self.from = Some(stretch.end);
        }
        reader.take_blocks();
        self.at = Lsn(self.at.0 + self.segment_size);
        self.border = None;
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::forge::{Draft, Forge, commit};
    use crate::repository::StateDir;
    use crate::runtime::Runtime;

    const SIZE: u64 = Forge::SEGMENT;

    fn block_reference(relation: u32, data: u16) -> Draft {
        let mut body = vec![0, 0x20];
        body.extend(data.to_le_bytes());
        body.extend([1663, 5, relation, 8].iter().flat_map(|n| n.to_le_bytes()));
        body.extend(vec![0xAA; usize::from(data)]);
        Draft { rmgr: 10, info: 0, xid: 7, body }
    }

    fn relations(stretch: &Stretch) -> Vec<u32> {
        let mut found: Vec<u32> = stretch.map.forks().map(|(fork, _)| fork.relation).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn each_file_begins_where_the_one_before_ends() {
        let folder = tempfile::tempdir().expect("dir");
        let files = BlockFiles::new(&StateDir::new(folder.path()), "production", &Runtime::silent());
        let mut forge = Forge::new(Lsn(3 * SIZE));
        forge.record(&block_reference(1, 5));
        let crossing = Lsn(4 * SIZE - 64);
        forge.fill_to(crossing);
        forge.record(&block_reference(2, 9000));
        forge.record(&block_reference(3, 5));
        forge.fill_to(Lsn(5 * SIZE - 24));
        forge.record(&commit(9, 1));
        let bytes = forge.finish();
        let (first, second) = bytes[..2 * SIZE as usize].split_at(SIZE as usize);
        let begin = |at: u64| {
            let mut reader = WalReader::new(SIZE, Lsn(at), Some(Forge::SYSTEM)).expect("a segment");
            let keeper = Keeper::begin(files.clone(), &mut reader, Forge::SYSTEM, Timeline(1), SIZE);
            (reader, keeper)
        };
        let feed = |reader: &mut WalReader, keeper: &mut Keeper, bytes: &[u8]| {
            for part in bytes.chunks(1000) {
                reader.feed(part, |_| {}).expect("sound");
                keeper.fed(part, reader);
            }
        };
        let kept = |number| files.read(&SegmentName::new(Timeline(1), number, SIZE)).expect("kept");

        let (mut reader, mut keeper) = begin(3 * SIZE);
        feed(&mut reader, &mut keeper, &first[..5000]);
        keeper.keep(&reader);
        assert_eq!((kept(3).start, kept(3).unfinished.is_none()), (Lsn(3 * SIZE), true));
        assert!(!kept(3).is_complete() && kept(3).end <= Lsn(3 * SIZE + 5000));
        feed(&mut reader, &mut keeper, &first[5000..]);
        keeper.complete(&mut reader);
        assert_eq!((kept(3).start, kept(3).end, relations(&kept(3))), (Lsn(3 * SIZE), crossing, vec![1]));
        assert!(kept(3).is_complete());
        feed(&mut reader, &mut keeper, second);
        keeper.complete(&mut reader);
        let straight = kept(4);
        assert_eq!((straight.start, straight.end, relations(&straight)), (crossing, Lsn(5 * SIZE - 24), vec![2, 3]));

        // Another process, begun at the border, comes to the same.
        let (mut reader, mut keeper) = begin(4 * SIZE);
        feed(&mut reader, &mut keeper, &second[..20_000]);
        keeper.keep(&reader);
        assert_eq!((kept(4).start, relations(&kept(4))), (crossing, vec![2, 3]));
        feed(&mut reader, &mut keeper, &second[20_000..]);
        keeper.complete(&mut reader);
        assert_eq!(kept(4), straight);

        // Without the file before, what crosses the border stays unknown.
        files.prune(Lsn(4 * SIZE), SIZE);
        let (mut reader, mut keeper) = begin(4 * SIZE);
        feed(&mut reader, &mut keeper, second);
        keeper.complete(&mut reader);
        assert!(kept(4).start > Lsn(4 * SIZE));
        assert_eq!(relations(&kept(4)), [3]);
    }
}

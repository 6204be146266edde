//! Collecting what the records change, and saying of which stretch of WAL that is all.

use super::{State, WalReader};
use crate::postgres::wal::blocks::BlockMap;
use crate::units::Lsn;

impl WalReader {
    /// Collects from now on which blocks the records change.
    pub fn collect_blocks(&mut self) {
        self.blocks.get_or_insert_default();
    }

    /// What was collected, if anything was to be.
    pub fn blocks(&self) -> Option<&BlockMap> {
        self.blocks.as_ref()
    }

    /// Adds to what was collected.
    pub(crate) fn add_blocks(&mut self, map: &BlockMap) {
        if let Some(blocks) = &mut self.blocks {
            blocks.merge(map);
        }
    }

    /// Takes what was collected and begins anew.
    pub(crate) fn take_blocks(&mut self) -> Option<BlockMap> {
        self.blocks.as_mut().map(std::mem::take)
    }

    /// Of records that start here or later, none was missed; unknown while reading is still within a
    /// record that began before the first byte fed.
    pub fn whole_from(&self) -> Option<Lsn> {
        self.whole_from
    }

    /// Every record that starts before this position, and not before [`WalReader::whole_from`], was
    /// handed out.
    pub fn whole_to(&self) -> Lsn {
        match self.state {
            State::Record => Lsn(self.record.start),
            State::Zeros { at } | State::Corrupt { at, .. } => at,
            _ => Lsn(self.last_end.map_or(0, |end| end.0).max(self.position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal::forge::{Draft, Forge};
    use crate::postgres::wal::{Fork, RelationFork, Unfinished};

    const SIZE: u64 = Forge::SEGMENT;
    const BEGIN: Lsn = Lsn(3 * SIZE);

    /// A record with one block of relation `relation` and `data` bytes that belong to it.
    fn touching(relation: u32, block: u32, data: u16) -> Draft {
        let mut body = vec![0, 0x20];
        body.extend(data.to_le_bytes());
        body.extend([1663, 5, relation, block].iter().flat_map(|n| n.to_le_bytes()));
        body.extend(vec![0xAA; usize::from(data)]);
        Draft { rmgr: 10, info: 0, xid: 7, body }
    }

    fn blocks(map: &BlockMap, relation: u32) -> Vec<u32> {
        let fork = RelationFork { tablespace: 1663, database: 5, relation, fork: Fork::Main };
        map.fork(&fork).map(|changed| changed.blocks().iter().collect()).unwrap_or_default()
    }

    fn collecting(at: Lsn) -> WalReader {
        let mut reader = WalReader::new(SIZE, at, Some(Forge::SYSTEM)).expect("a page");
        reader.collect_blocks();
        reader
    }

    #[test]
    fn a_record_across_a_border_is_finished_by_another_reader() {
        for before in [8, 16, 24, 32, 48, 200] {
            let mut forge = Forge::new(BEGIN);
            forge.record(&touching(1, 11, 5));
            forge.fill_to(Lsn(BEGIN.0 + SIZE - before));
            forge.record(&touching(2, 22, 20_000));
            let third = forge.record(&touching(3, 33, 5));
            let bytes = forge.finish();
            let (first, second) = bytes.split_at(SIZE as usize);

            let mut reader = collecting(BEGIN);
            reader.feed(first, |_| {}).expect("sound");
            let border = Lsn(BEGIN.0 + SIZE - before);
            assert_eq!((reader.whole_from(), reader.whole_to()), (Some(BEGIN), border), "{before}");
            let map = reader.take_blocks().expect("collected");
            assert_eq!((blocks(&map, 1), blocks(&map, 2)), (vec![11], vec![]));

            let unfinished = reader.unfinished().expect("a record goes on").to_bytes();
            let unfinished = Unfinished::from_bytes(&unfinished).expect("what was written");
            let resume = |bytes: &[u8]| {
                let mut reader = WalReader::resume(SIZE, Lsn(BEGIN.0 + SIZE), Some(Forge::SYSTEM), unfinished.clone())?;
                reader.feed(bytes, |_| {}).map(|()| reader)
            };
            let resumed = resume(second).expect("sound");
            let map = resumed.blocks().expect("collected");
            assert_eq!((blocks(map, 2), blocks(map, 3)), (vec![22], vec![33]));
            assert_eq!(resumed.whole_from(), Some(border));
            let mut other = second.to_vec();
            other[9000] ^= 1;
            assert!(resume(&other).is_err(), "the rest of another record");

            // Without the beginning, what follows the record is all that is known.
            let mut alone = collecting(Lsn(BEGIN.0 + SIZE));
            alone.feed(&second[..100], |_| {}).expect("sound");
            assert_eq!(alone.whole_from(), None);
            alone.feed(&second[100..], |_| {}).expect("sound");
            let map = alone.blocks().expect("collected");
            assert_eq!((blocks(map, 2), blocks(map, 3)), (vec![], vec![33]));
            let from = alone.whole_from().expect("known by now");
            assert!(from > Lsn(BEGIN.0 + SIZE) && from < third, "{from}");
        }
    }

    #[test]
    fn nothing_is_collected_unasked() {
        let mut forge = Forge::new(BEGIN);
        forge.record(&touching(1, 11, 5));
        let mut reader = WalReader::new(SIZE, BEGIN, None).expect("a page");
        reader.feed(forge.written(), |_| {}).expect("sound");
        assert_eq!(reader.blocks(), None);
    }
}

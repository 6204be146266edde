//! Files of PostgreSQL's own incremental backups (17 and later): `INCREMENTAL.<name>` holds the changed
//! blocks of `<name>` and tells how long the file is now.
//!
//! Layout (`src/backend/backup/basebackup.c`, `src/bin/pg_combinebackup/reconstruct.c`): magic, number of
//! blocks, length to which the file was cut at least, all u32, little endian; then the numbers of the
//! blocks in rising order; where there are blocks, zeros up to a multiple of the block size; the blocks.

use std::io::Read;

use crate::repository::page_sums::PAGE;

/// What the names of such files begin with.
const PREFIX: &str = "INCREMENTAL.";

/// `INCREMENTAL_MAGIC`.
const MAGIC: u32 = 0xD3AE_1F0D;

/// More blocks than a file of a relation can have.
const MOST_BLOCKS: u32 = 131_072;

/// The head of such a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IncrementalHead {
    /// Blocks that follow, in rising order.
    pub(super) blocks: Vec<u32>,
    /// Blocks from here on, unless they follow, are zeros.
    pub(super) cut: u32,
}

impl IncrementalHead {
    /// Reads the head and leaves `reader` at the first block; `Err` says what is wrong.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, String> {
        let mut words = [0; 12];
        let mut exact = |buffer: &mut [u8]| reader.read_exact(buffer).map_err(|e| format!("it ends early: {e}"));
        exact(&mut words)?;
        let word = |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        let (magic, count, cut) = (word(0), word(4), word(8));
        if magic != MAGIC || count > MOST_BLOCKS || cut > MOST_BLOCKS {
            return Err("its head is not that of an incremental file".to_owned());
        }
        let mut numbers = vec![0; count as usize * 4];
        exact(&mut numbers)?;
        let blocks: Vec<u32> = numbers.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_some_and(|last| *last >= MOST_BLOCKS) {
            return Err("its blocks are not in order".to_owned());
        }
        if count > 0 {
            let length = words.len() + numbers.len();
            exact(&mut vec![0; length.next_multiple_of(PAGE) - length])?;
        }
        Ok(Self { blocks, cut })
    }

    /// Blocks of the whole file.
    pub(super) fn length(&self) -> u32 {
        self.blocks.last().map_or(self.cut, |last| self.cut.max(last + 1))
    }
}

/// The path of the whole file, where this is the path of an incremental one.
pub(super) fn whole_path(path: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once('/')?;
    Some(format!("{directory}/{}", name.strip_prefix(PREFIX)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(blocks: &[u32], cut: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = [MAGIC, blocks.len() as u32, cut].iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.extend(blocks.iter().flat_map(|b| b.to_le_bytes()));
        if !blocks.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        }
        bytes
    }

    #[test]
    fn the_head_tells_blocks_and_length() {
        let read = |bytes: &[u8]| {
            let mut reader = bytes;
            IncrementalHead::read(&mut reader).map(|head| (head, reader.len()))
        };
        let (head, left) = read(&[file(&[1, 7], 5), vec![9; 100]].concat()).expect("sound");
        assert_eq!((head.length(), left), (8, 100));
        let (head, left) = read(&file(&[], 3)).expect("sound");
        assert_eq!((head.length(), left), (3, 0));
        assert!(read(&file(&[7, 1], 5)).is_err() && read(&[0; 12]).is_err() && read(&file(&[1], 1)[..20]).is_err());
        assert_eq!(whole_path("base/5/INCREMENTAL.16385.1").as_deref(), Some("base/5/16385.1"));
        assert_eq!(whole_path("base/5/16385"), None);
    }
}

//! Incremental for ever: what a backup stored is laid over what the one before had, so that every
//! manifest is complete and none refers to another.
//!
//! Pure functions over runs: [`splice`] lays changes over a file's runs, [`worn_frames`] finds the frames
//! that hold so little of what is still needed that reading the pages again is better than keeping them,
//! [`compact`] drops packs that nothing refers to any more and numbers frames anew.

use std::collections::HashSet;

use super::base_manifest::{FileEntry, Run};
use super::packs::PackTable;
use super::page_sums::PAGE;
use crate::error::Result;

/// A stretch of a file as this backup found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Offset in the file in bytes.
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Frame and offset where it was stored, within one frame; `None` where it is zeros now.
    pub at: Option<(u64, u32)>,
}

/// A stretch that lies within one frame.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: u64,
    end: u64,
    frame: u64,
    offset: u32,
}

/// The runs of a file of `size` bytes whose runs were `old` in `packs`, after `changes` (sorted, not
/// overlapping).
pub fn splice(old: &[Run], packs: &PackTable, size: u64, changes: &[Change]) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::with_capacity(changes.len() + old.len());
    let mut next = 0;
    let mut stored = |runs: &mut Vec<Run>, before: u64| {
        while let Some(change) = changes.get(next).filter(|c| c.file_offset < before) {
            if let Some((frame, offset)) = change.at {
                add(runs, Piece { from: change.file_offset, end: change.file_offset + change.length, frame, offset });
            }
            next += 1;
        }
    };
    // Where the next old piece may be covered by changes.
    let mut covering = 0;
    for run in old {
        let mut pieces = Vec::new();
        packs.cut(run.frame, run.offset, run.length, |frame, offset, length, done| {
            let from = run.file_offset + done;
            pieces.push(Piece { from, end: (from + u64::from(length)).min(size), frame, offset });
        })?;
        for piece in pieces {
            let mut at = piece.from;
            while at < piece.end {
                while changes.get(covering).is_some_and(|c| c.file_offset + c.length <= at) {
                    covering += 1;
                }
                let hidden = changes.get(covering).filter(|c| c.file_offset < piece.end);
                let end = hidden.map_or(piece.end, |c| c.file_offset.max(at));
                if at < end {
                    stored(&mut runs, at);
                    add(&mut runs, Piece { from: at, end, offset: piece.offset + (at - piece.from) as u32, ..piece });
                }
                at = hidden.map_or(piece.end, |c| c.file_offset + c.length);
            }
        }
    }
    stored(&mut runs, u64::MAX);
    Ok(runs)
}

/// Appends a piece, joined to the last run where it continues it.
fn add(runs: &mut Vec<Run>, piece: Piece) {
    let length = piece.end - piece.from;
    if let Some(last) = runs.last_mut()
        && last.file_offset + last.length == piece.from
        && last.frame == piece.frame
        && u64::from(last.offset) + last.length == u64::from(piece.offset)
    {
        last.length += length;
        return;
    }
    runs.push(Run { file_offset: piece.from, length, frame: piece.frame, offset: piece.offset });
}

/// How much plaintext may have to be read for what is needed, as a multiple of it (in halves), and beyond.
const MOST_HALVES: u64 = 3;
const SLACK: u64 = 64 << 20;

/// Frames of which so little is needed that the whole would have to read more than half as much again as
/// it needs: the emptiest ones, as many as it takes to be within that bound when their pages are stored
/// anew.
pub fn worn_frames<'a>(files: impl IntoIterator<Item = &'a FileEntry>, packs: &PackTable) -> Result<HashSet<u64>> {
    let mut live = vec![0_u32; packs.frames() as usize];
    for run in files.into_iter().flat_map(|f| &f.runs) {
        packs.cut(run.frame, run.offset, run.length, |frame, _, length, _| {
            let slot = &mut live[frame as usize];
            *slot = slot.saturating_add(length.next_multiple_of(PAGE as u32));
        })?;
    }
    let mut frames: Vec<(u64, u64, u64)> = Vec::new();
    for (frame, &needed) in live.iter().enumerate().filter(|(_, needed)| **needed > 0) {
        let whole = u64::from(packs.plain_len(frame as u64)?);
        frames.push((frame as u64, u64::from(needed).min(whole), whole));
    }
    let needed: u64 = frames.iter().map(|f| f.1).sum();
    let mut read: u64 = frames.iter().map(|f| f.2).sum();
    let most = needed / 2 * MOST_HALVES + SLACK;
    frames.sort_by_key(|&(_, needed, whole)| needed * 1024 / whole);
    let mut worn = HashSet::new();
    for (frame, needed, whole) in frames {
        if read <= most {
            break;
        }
        read -= whole - needed;
        worn.insert(frame);
    }
    Ok(worn)
}

/// Drops packs that no run refers to, and numbers the frames of all runs anew.
pub fn compact(files: &mut [FileEntry], packs: PackTable) -> Result<PackTable> {
    let mut used = vec![false; packs.packs().len()];
    for run in files.iter().flat_map(|f| &f.runs) {
        let mut last = run.frame;
        packs.cut(run.frame, run.offset, run.length, |frame, _, _, _| last = frame)?;
        let (first, _) = packs.locate(run.frame)?;
        let (last, _) = packs.locate(last)?;
        used[first..=last].fill(true);
    }
    let mut kept = PackTable::default();
    let mut moved = vec![0; used.len()];
    for (number, pack) in packs.packs().iter().enumerate() {
        if used[number] {
            moved[number] = kept.push(pack.clone());
        }
    }
    for run in files.iter_mut().flat_map(|f| &mut f.runs) {
        let (pack, number) = packs.locate(run.frame)?;
        run.frame = moved[pack] + u64::from(number);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repository::PackInfo;

    const P: u64 = PAGE as u64;

    fn pack(name: &str, frames: &[u32]) -> PackInfo {
        let frames = frames.iter().map(|pages| (1, pages * PAGE as u32, 0)).collect();
        PackInfo { sha256: name.to_owned(), size: 1, first: 0, frames, sums: None }
    }

    fn file(runs: Vec<Run>) -> FileEntry {
        FileEntry { path: "f".into(), size: 100 * P, runs, ..FileEntry::default() }
    }

    /// What stands in each page of a file: frame and page within it.
    fn pages(runs: &[Run], packs: &PackTable, size: u64) -> Vec<Option<(u64, u32)>> {
        let mut pages = vec![None; (size / P) as usize];
        for run in runs {
            packs
                .cut(run.frame, run.offset, run.length, |frame, offset, length, done| {
                    for page in 0..length / PAGE as u32 {
                        let at = ((run.file_offset + done) / P) as usize + page as usize;
                        assert_eq!(pages[at], None, "runs overlap at page {at}");
                        pages[at] = Some((frame, offset / PAGE as u32 + page));
                    }
                })
                .expect("inside");
        }
        pages
    }

    proptest! {
        #[test]
        fn splicing_is_page_by_page_replacement(
            old_size in 0_u64..40,
            size in 0_u64..40,
            holes in prop::collection::vec(any::<bool>(), 40),
            touched in prop::collection::vec(0_u8..4, 40),
        ) {
            // Old content crosses frames of 7 pages; changes stand in frames of 5 behind them.
            let packs = PackTable::new(vec![pack("a", &[7; 6]), pack("b", &[5; 9])]);
            let mut old = Vec::new();
            for page in (0..old_size).filter(|p| !holes[*p as usize]) {
                let joined = old.last_mut().filter(|r: &&mut Run| r.file_offset + r.length == page * P);
                match joined {
                    Some(run) => run.length += P,
                    None => old.push(Run { file_offset: page * P, length: P, frame: page / 7, offset: (page % 7 * P) as u32 }),
                }
            }
            let mut expected = pages(&old, &packs, 40 * P);
            let mut changes = Vec::new();
            for page in 0..size {
                let at = match touched[page as usize] {
                    0 => Some((6 + page / 5, (page % 5 * P) as u32)),
                    1 => None,
                    _ => continue,
                };
                expected[page as usize] = at.map(|(frame, offset)| (frame, offset / PAGE as u32));
                changes.push(Change { file_offset: page * P, length: P, at });
            }
            expected[size as usize..].fill(None);
            let runs = splice(&old, &packs, size * P, &changes).expect("spliced");
            prop_assert!(runs.is_sorted_by_key(|r| r.file_offset));
            prop_assert_eq!(pages(&runs, &packs, 40 * P), expected);
        }
    }

    #[test]
    fn packs_that_nothing_needs_are_dropped_and_frames_numbered_anew() {
        let packs = PackTable::new(vec![pack("a", &[4, 4]), pack("b", &[4]), pack("c", &[4, 4])]);
        let run = |frame, length| Run { file_offset: 0, length: length * P, frame, offset: 0 };
        let mut files = [file(vec![run(1, 2)]), file(vec![run(3, 6)])];
        let kept = compact(&mut files, packs).expect("compact");
        assert_eq!(kept.packs().iter().map(|p| p.sha256.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((files[0].runs[0].frame, files[1].runs[0].frame), (1, 2));
    }

    #[test]
    fn only_the_emptiest_frames_are_worn_and_only_as_many_as_needed() {
        // 400 frames of 1 MiB; half of them hold one needed page, half are full.
        let packs = PackTable::new(vec![pack("a", &[128; 400])]);
        let run = |frame: u64, pages: u64| Run { file_offset: frame * 128 * P, length: pages * P, frame, offset: 0 };
        let sound = file((0..400).map(|f| run(f, 128)).collect());
        assert!(worn_frames([&sound], &packs).expect("counted").is_empty());
        let broken = file((0..400).map(|f| run(f, if f % 2 == 0 { 1 } else { 128 })).collect());
        let worn = worn_frames([&broken], &packs).expect("counted");
        assert!(!worn.is_empty() && worn.len() < 200 && worn.iter().all(|f| f % 2 == 0), "{}", worn.len());
    }

    /// One table of 50 MiB of which one page in a hundred changes every day, each day's pages packed together, as
    /// a backup packs them.
    #[test]
    fn after_a_year_of_incrementals_a_restore_still_reads_at_most_half_as_much_again() {
        const SIZE: u64 = 6_400;
        const FRAME: u64 = 128;
        let mut packs = PackTable::new(vec![pack("full", &[FRAME as u32; (SIZE / FRAME) as usize])]);
        let whole = Run { file_offset: 0, length: SIZE * P, frame: 0, offset: 0 };
        let mut files = [FileEntry { size: SIZE * P, ..file(vec![whole]) }];
        let mut random = 4711_u64;
        let (mut changed, mut stored_anew, mut drawn_anew) = (0_u64, 0_u64, 0_u32);
        for day in 0..365 {
            let worn = worn_frames(&files, &packs).expect("counted");
            let mut touched = vec![false; SIZE as usize];
            for _ in 0..SIZE / 100 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                touched[((random >> 33) % SIZE) as usize] = true;
            }
            changed += touched.iter().filter(|t| **t).count() as u64;
            drawn_anew += u32::from(!worn.is_empty());
            for (page, at) in pages(&files[0].runs, &packs, SIZE * P).into_iter().enumerate() {
                let again = at.is_some_and(|(frame, _)| worn.contains(&frame)) && !touched[page];
                stored_anew += u64::from(again);
                touched[page] |= again;
            }
            let stored: Vec<u64> = (0..SIZE).filter(|page| touched[*page as usize]).collect();
            let frames: Vec<u32> = stored.chunks(FRAME as usize).map(|c| c.len() as u32).collect();
            let first = packs.push(pack(&day.to_string(), &frames));
            let at = |n: usize| (first + n as u64 / FRAME, (n as u64 % FRAME * P) as u32);
            let change = |(n, page): (usize, &u64)| Change { file_offset: page * P, length: P, at: Some(at(n)) };
            let changes: Vec<Change> = stored.iter().enumerate().map(change).collect();
            files[0].runs = splice(&files[0].runs, &packs, SIZE * P, &changes).expect("spliced");
            packs = compact(&mut files, packs).expect("compact");

            let mut needed = vec![false; packs.frames() as usize];
            for (frame, _) in pages(&files[0].runs, &packs, SIZE * P).into_iter().flatten() {
                needed[frame as usize] = true;
            }
            let whole = |frame: usize| u64::from(packs.plain_len(frame as u64).expect("a frame"));
            let read: u64 = (0..needed.len()).filter(|f| needed[*f]).map(whole).sum();
            // What today's changes wore out is for tomorrow's backup to see.
            let today = (SIZE / 100 + FRAME) * P;
            assert!(read <= SIZE * P * MOST_HALVES / 2 + SLACK + today, "day {day}: {read} bytes to read");
        }
        assert!(drawn_anew > 100, "nothing ever wore: {drawn_anew}");
        assert!(stored_anew < 2 * changed, "{stored_anew} pages stored anew for {changed} that changed");
    }
}

//! What is to be done with each file of the cluster: decided before any is read, from what the file
//! system says now and what the previous base backup noted.

use super::listing::{Found, Kind};
use crate::error::Result;
use crate::postgres::changed_blocks::ChangedBlocks;
use crate::postgres::harvest::Seen;
use crate::postgres::kept::Kept;
use crate::postgres::previous::Previous;
use crate::postgres::relation_file::{BLOCKS_IN_FILE, RelationFile};
use crate::repository::base_manifest::{FileEntry, FileStat};
use crate::repository::page_sums::PAGE;

/// A file is trusted to be unchanged only if it was last written so long before it was looked at that no
/// later write can carry the same time: clocks of file systems tick in steps, and may differ from ours.
const SETTLED: i64 = 10_000_000_000;

/// How a file is read.
#[derive(Debug)]
pub(super) enum How {
    /// Not at all: nobody wrote to it since the previous backup read it.
    Unread,
    /// All of it is stored.
    Whole,
    /// A relation: pages are stored that the previous backup does not have as they are.
    Pages(Kept),
    /// A relation of which WAL says what changed: these stretches, by offset, are stored, whatever the LSN of
    /// their pages.
    Stretches(Vec<(u64, u64)>, Kept),
    /// Whatever is not made of pages with an LSN: stored whole if its digest is another.
    IfChanged {
        /// The previous content's digest and size.
        digest: String,
        size: u64,
    },
}

impl How {
    /// Whether anything between these offsets is to be read.
    pub(super) fn touches(&self, from: u64, end: u64) -> bool {
        match self {
            Self::Unread => false,
            Self::Stretches(stretches, _) => {
                let first = stretches.partition_point(|(_, e)| *e <= from);
                stretches.get(first).is_some_and(|(f, _)| *f < end)
            }
            _ => true,
        }
    }
}

/// One file and how it is read.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) found: Found,
    pub(super) how: How,
}

/// Decides for every file but `pg_control`, which is read last; `asked` is when the file system was
/// asked, in nanoseconds since 1970.
pub(super) fn plan(
    files: Vec<Found>,
    previous: &Previous,
    changed: Option<&ChangedBlocks>,
    asked: i64,
) -> Result<(Vec<Task>, Vec<Seen>)> {
    let (mut tasks, mut seen) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    for found in files {
        if found.kind == Kind::Control {
            continue;
        }
        let before = previous.file(&found.path);
        let how = match before {
            Some(before) => how(&found, before, previous, changed)?,
            None => How::Whole,
        };
        let mut entry = entry(&found, asked);
        if let (How::Unread, Some(before)) = (&how, before) {
            entry.digest.clone_from(&before.digest);
        }
        seen.push(Seen { entry, over: !matches!(how, How::Whole), gone: false });
        tasks.push(Task { found, how });
    }
    Ok((tasks, seen))
}

fn entry(found: &Found, asked: i64) -> FileEntry {
    FileEntry {
        path: found.path.clone(),
        size: found.size,
        mode: found.mode,
        mtime: (found.mtime_ns / 1_000_000_000).max(0) as u64,
        stat: Some(FileStat { inode: found.inode, mtime: found.mtime_ns, ctime: found.ctime_ns, asked }),
        ..FileEntry::default()
    }
}

fn how(found: &Found, before: &FileEntry, previous: &Previous, changed: Option<&ChangedBlocks>) -> Result<How> {
    let kept = previous.kept(before)?;
    // Another inode is another file, a copy: however old its pages may look, only their sums tell.
    let Some(stat) = before.stat.filter(|stat| stat.inode == found.inode) else {
        return Ok(pages(found, kept.by_sums()));
    };
    let sound = kept.again.is_empty();
    if before.size == found.size && is_unchanged(found, &stat) && sound {
        return Ok(How::Unread);
    }
    Ok(match (found.kind, &before.digest) {
        (Kind::Relation(file), _) if file.has_lsn() => match (changed, previous.whole_file(&found.path)) {
            // WAL tells what changed since the previous backup, so of files that were whole then.
            (Some(changed), Some(whole)) => {
                let stretches = stretches(&file, changed, &kept.again, whole.size, found.size);
                if stretches.is_empty() { How::Unread } else { How::Stretches(stretches, kept.by_sums()) }
            }
            _ => pages(found, kept),
        },
        (_, Some(digest)) if sound => How::IfChanged { digest: digest.clone(), size: before.size },
        _ => How::Whole,
    })
}

/// Page by page, where that can spare storing any.
fn pages(found: &Found, kept: Kept) -> How {
    match found.kind {
        Kind::Relation(file) if file.has_lsn() && !kept.is_empty() => How::Pages(kept),
        _ => How::Whole,
    }
}

/// What may have changed of a file, in bytes: what WAL touched, what is to be read again, and what lies
/// behind its old end.
fn stretches(
    file: &RelationFile,
    changed: &ChangedBlocks,
    again: &[(u64, u64)],
    old_size: u64,
    size: u64,
) -> Vec<(u64, u64)> {
    let touched = changed.touched(&file.fork);
    let first = file.number.saturating_mul(BLOCKS_IN_FILE);
    let page = |block: u32| u64::from(block.saturating_sub(first)) * PAGE as u64;
    let mut all: Vec<(u64, u64)> = touched.in_file(file.number).map(|b| (page(b), page(b) + PAGE as u64)).collect();
    all.extend(again);
    // A short page at the old end, which is not stored as one, belongs to what is new.
    let whole = old_size - old_size % PAGE as u64;
    all.push((touched.limit().map_or(whole, |limit| page(limit).min(whole)), size));
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, end) in all {
        let end = end.min(size);
        match joined.last_mut() {
            _ if from >= end => {}
            Some(last) if from <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((from, end)),
        }
    }
    joined
}

/// Whether nobody wrote to the file since it was looked at. The time of the inode's change cannot be set
/// by any program, so restored or touched files are noticed; a file that was written shortly before it was
/// looked at, or in the future, is not trusted.
fn is_unchanged(found: &Found, before: &FileStat) -> bool {
    let settled = before.mtime.max(before.ctime).saturating_add(SETTLED) < before.asked;
    settled && (found.mtime_ns, found.ctime_ns) == (before.mtime, before.ctime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::block_files::BlockFiles;
    use crate::postgres::changed_blocks::WalSpan;
    use crate::postgres::resume_tests::{backup_of, left};
    use crate::postgres::wal::TimelineHistory;
    use crate::repository::{StateDir, testing};
    use crate::runtime::Runtime;
    use crate::units::{Lsn, Timeline};

    fn found(mtime_ns: i64, ctime_ns: i64) -> Found {
        let kind = Kind::Other;
        Found { path: "base/1/2".into(), mode: 0o600, size: 8192, inode: 7, mtime_ns, ctime_ns, kind }
    }

    #[test]
    fn only_settled_and_equal_times_mean_unchanged() {
        const S: i64 = 1_000_000_000;
        let before = |mtime, ctime, asked| FileStat { inode: 7, mtime, ctime, asked };
        assert!(is_unchanged(&found(5 * S, 6 * S), &before(5 * S, 6 * S, 17 * S)));
        assert!(!is_unchanged(&found(5 * S, 6 * S), &before(5 * S, 6 * S, 16 * S)), "written too shortly before");
        assert!(!is_unchanged(&found(5 * S, 6 * S), &before(5 * S, 6 * S, 0)), "written in the future");
        assert!(!is_unchanged(&found(5 * S, 6 * S + 1), &before(5 * S, 6 * S, 99 * S)), "time of writing was set back");
        assert!(!is_unchanged(&found(5 * S + 1, 6 * S), &before(5 * S, 6 * S, 99 * S)));
    }

    fn relation(path: &str, inode: u64, pages: u64) -> Found {
        let kind = Kind::Relation(RelationFile::at(path).expect("a relation"));
        Found { path: path.into(), size: pages * PAGE as u64, inode, kind, ..found(5, 5) }
    }

    #[tokio::test]
    async fn what_was_noted_of_a_file_is_not_the_whole_of_it() {
        let (repository, _) = testing::repository_and_writer().await;
        // Page 1 of a file that is new since the previous backup; page 0 was not durable yet.
        let noted = vec![("base/1/1", Some(7), PAGE as u64, vec![1; PAGE])];
        let unfinished = left(&repository, noted, Some("b"), true).await;
        let previous = backup_of(Vec::new(), Lsn(6));
        let previous = previous.resume(&repository, "production", &[], unfinished).await.expect("resumed");
        let folder = tempfile::tempdir().expect("dir");
        let files = BlockFiles::new(&StateDir::new(folder.path()), "production", &Runtime::silent());
        let history = TimelineHistory::first(Timeline(1));
        let span = WalSpan { system_id: 1, segment_size: 1 << 24, history: &history, from: Lsn(6), to: Lsn(6) };
        let nothing = ChangedBlocks::load(&files, &span, None).expect("of no WAL");
        let how = |inode, changed| {
            let (mut tasks, _) = plan(vec![relation("base/1/1", inode, 2)], &previous, changed, 9).expect("planned");
            tasks.remove(0).how
        };
        // WAL that names no block of it says nothing of a file that was not there: all of it is read.
        assert!(matches!(how(7, Some(&nothing)), How::Pages(_)));
        assert!(matches!(how(7, None), How::Pages(_)));
        // In another file only equal pages are spared.
        let How::Pages(kept) = how(8, Some(&nothing)) else { panic!("pages") };
        assert!(kept.page(PAGE as u64, Lsn(1), &[1; PAGE]) && !kept.page(PAGE as u64, Lsn(1), &[2; PAGE]));
    }
}

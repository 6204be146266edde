//! What an interrupted backup noted, and what the next one makes of it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::intake::tests::{header, page, tar_of};
use super::intake::{Item, take_in};
use super::order::Span;
use super::present::Present;
use super::previous::Previous;
use super::progress::{Attempt, Names, Progress, Unfinished};
use super::wal::TimelineHistory;
use crate::repository::base_manifest::{BaseManifest, FileEntry, FileStat};
use crate::repository::page_sums::PAGE;
use crate::repository::page_writer::PageWriter;
use crate::repository::{PackTable, Repository, Written, pack_stream, testing};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

const P: u64 = PAGE as u64;

/// Where the interrupted attempt began.
const BEGAN: u32 = 10;

fn lsn(lsn: u32) -> Lsn {
    Lsn(lsn.into())
}

fn stat(inode: u64) -> FileStat {
    FileStat { inode, mtime: 5, ctime: 5, asked: i64::MAX }
}

fn progress(state: &Path, previous: Option<&str>, hints_logged: bool) -> (Progress, Option<Unfinished>) {
    let history = TimelineHistory::first(Timeline(1));
    let present =
        Present { system_id: 1, history, lsn: lsn(99), server_version: 150_000, checksums: false, log_hints: false };
    let attempt = Attempt {
        repository: "r".into(),
        system_id: 1,
        timeline: Timeline(1),
        start_lsn: lsn(99),
        previous: previous.map(str::to_owned),
        checksums: false,
        hints_logged,
    };
    let began = std::time::Instant::now();
    loop {
        // A process that another test starts holds all locks until it became another program.
        if let Some(free) = Progress::open(state, "production", attempt.clone(), &present).expect("opened") {
            return free;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "it stays locked");
        std::thread::yield_now();
    }
}

fn span() -> Span {
    Span {
        system_id: 1,
        timeline: Timeline(1),
        start_lsn: lsn(BEGAN),
        stop_lsn: Lsn(0),
        start_time: Runtime::silent().now(),
        server_version: 150_000,
        wal_segment_size: 16 << 20,
        checksums: false,
        hints_logged: true,
    }
}

/// A page of a file: path, inode, offset, content.
pub(in crate::postgres) type Page<'a> = (&'a str, Option<u64>, u64, Vec<u8>);

/// What an attempt leaves that stored these pages and was killed.
pub(in crate::postgres) async fn left(
    repository: &Repository,
    pages: Vec<Page<'_>>,
    previous: Option<&str>,
    hints_logged: bool,
) -> Unfinished {
    let folder = tempfile::tempdir().expect("dir");
    let (mut running, before) = progress(folder.path(), previous, hints_logged);
    assert!(before.is_none());
    let names = Names::default();
    pages.iter().for_each(|(path, inode, ..)| names.add(path, inode.map(stat)));
    let watcher = running.watch(&span(), &names, &Runtime::silent()).expect("watch");
    let (content, task) = pack_stream::start_watched(repository, "production", 3, Some(watcher));
    let pages: Vec<(u64, Vec<u8>)> = pages.into_iter().map(|(_, _, offset, bytes)| (offset, bytes)).collect();
    let writing = move || {
        let mut writer = PageWriter::new(content);
        for (number, (offset, bytes)) in pages.iter().enumerate() {
            writer.page(number as u32, *offset, bytes).expect("written");
        }
        writer.finish().expect("finished").0.finish().expect("ended");
    };
    tokio::task::spawn_blocking(writing).await.expect("thread");
    task.written().await.expect("durable");
    drop(running);
    progress(folder.path(), previous, hints_logged).1.expect("notes")
}

/// A previous backup of these files, of which nothing is stored.
pub(in crate::postgres) fn backup_of(files: Vec<FileEntry>, since: Lsn) -> Previous {
    let manifest =
        BaseManifest { header: header(), dirs: Vec::new(), links: Vec::new(), files, packs: PackTable::default() };
    Previous::built_on(manifest, since).expect("previous")
}

#[tokio::test]
async fn a_noted_page_is_known_by_its_lsn_or_by_its_sums() {
    let (repository, _) = testing::repository_and_writer().await;
    let stored = || vec![("base/1/1", Some(7), P, page(3, 1)), ("base/1/1", Some(7), 2 * P, page(12, 2))];
    for hints_logged in [true, false] {
        let unfinished = left(&repository, stored(), None, hints_logged).await;
        let previous = Previous::default().resume(&repository, "production", &[], unfinished).await.expect("resumed");
        let file = previous.file("base/1/1").expect("noted");
        assert!(previous.whole_file("base/1/1").is_none() && !previous.is_empty());
        let kept = previous.kept(file).expect("kept");
        let known = |offset, lsn_of: u32, fill| kept.page(offset, lsn(lsn_of), &page(lsn_of, fill));
        assert!(known(P, 3, 1) && known(2 * P, 12, 2), "the same bytes");
        assert_eq!(known(P, 3, 9), hints_logged, "older than the attempt");
        assert!(!known(2 * P, 12, 9) && !known(P, 12, 1), "other bytes");
        assert!(!known(0, 3, 1) && !known(3 * P, 12, 2), "another place");
        let by_sums = kept.clone().by_sums();
        assert!(by_sums.page(P, lsn(3), &page(3, 1)) && !by_sums.page(P, lsn(3), &page(3, 9)));
    }
}

#[tokio::test]
async fn a_noted_pack_that_is_gone_or_whose_sums_do_not_fit_is_no_help() {
    let (repository, _) = testing::repository_and_writer().await;
    let mut unfinished = left(&repository, vec![("base/1/1", None, 0, page(3, 1))], None, true).await;
    let mut gone = unfinished.packs[0].clone();
    gone.info.sha256 = "0".repeat(64);
    let mut other_size = unfinished.packs[0].clone();
    other_size.info.size += 1;
    let mut misfit = unfinished.packs[0].clone();
    misfit.sums = String::new();
    unfinished.packs = vec![gone, other_size, misfit];
    let previous = Previous::default().resume(&repository, "production", &[], unfinished).await.expect("resumed");
    assert!(previous.is_empty() && previous.packs.packs().is_empty());
}

#[tokio::test]
async fn resume_clears_the_digest_of_a_file_that_a_killed_backup_stored() {
    let (repository, _) = testing::repository_and_writer().await;
    let file = |path: &str| FileEntry {
        path: path.into(),
        size: P,
        stat: Some(stat(7)),
        digest: Some("of what was whole".into()),
        ..FileEntry::default()
    };
    let previous = backup_of(vec![file("base/1/1_vm"), file("base/1/2_vm")], lsn(6));
    let unfinished = left(&repository, vec![("base/1/1_vm", Some(7), 0, page(3, 1))], Some("b"), true).await;
    let previous = previous.resume(&repository, "production", &[], unfinished).await.expect("resumed");
    let digest = |path| previous.file(path).expect("there").digest.clone();
    assert_eq!(digest("base/1/1_vm"), None, "its runs are those of another content now");
    assert_eq!(digest("base/1/2_vm").as_deref(), Some("of what was whole"));
}

#[tokio::test]
async fn content_of_two_inodes_is_of_none() {
    let (repository, _) = testing::repository_and_writer().await;
    let file = |path: &str| FileEntry { path: path.into(), size: P, stat: Some(stat(7)), ..FileEntry::default() };
    let previous = backup_of(vec![file("base/1/1"), file("base/1/2"), file("base/1/3")], lsn(6));
    let stored = vec![
        ("base/1/1", Some(8), 0, page(3, 1)),
        ("base/1/2", Some(7), 0, page(3, 1)),
        ("base/1/3", None, 0, page(3, 1)),
        ("base/1/4", Some(9), 0, page(3, 1)),
    ];
    let unfinished = left(&repository, stored, Some("b"), true).await;
    let previous = previous.resume(&repository, "production", &[], unfinished).await.expect("resumed");
    let stat_of = |path| previous.file(path).expect("there").stat;
    assert_eq!(stat_of("base/1/1"), None);
    assert_eq!((stat_of("base/1/2"), stat_of("base/1/3")), (Some(stat(7)), Some(stat(7))));
    assert_eq!(stat_of("base/1/4"), Some(FileStat { asked: 0, ..stat(9) }), "never read to its end");
}

/// Streams `files` through the intake; the notes are kept if the backup is `killed` before it is committed.
async fn streamed(
    repository: &Repository,
    state: &Path,
    files: &[(&str, Vec<u8>)],
    killed: bool,
) -> Option<(BaseManifest, Written)> {
    let (mut progress, unfinished) = progress(state, None, true);
    let previous = match unfinished {
        Some(unfinished) => {
            Previous::default().resume(repository, "production", &[], unfinished).await.expect("resumed")
        }
        None => Previous::default(),
    };
    let (previous, names) = (Arc::new(previous), Names::default());
    let watcher = progress.watch(&span(), &names, &Runtime::silent()).expect("watch");
    let (content, task) = pack_stream::start_watched(repository, "production", 3, Some(watcher));
    let (send, items) = mpsc::channel(100);
    let known = previous.clone();
    let intake = tokio::task::spawn_blocking(move || take_in(items, content, known, None, names));
    for item in [Item::Archive(String::new()), Item::Data(Bytes::from(tar_of(files))), Item::Finished] {
        send.send(item).await.expect("send");
    }
    let (harvest, _) = intake.await.expect("thread").expect("taken");
    let written = task.written().await.expect("written");
    if killed {
        return None;
    }
    progress.finish();
    Some((harvest.into_manifest(header(), &previous, &written).expect("manifest"), written))
}

#[tokio::test]
async fn a_streamed_backup_stores_only_what_the_killed_one_did_not() {
    let (repository, _) = testing::repository_and_writer().await;
    let state = tempfile::tempdir().expect("dir");
    let relation = [page(3, 1), page(12, 2), page(12, 3)].concat();
    let first = [("PG_VERSION", b"15\n".to_vec()), ("base/1/1", relation), ("base/1/1_fsm", page(0, 7))];
    assert!(streamed(&repository, state.path(), &first, true).await.is_none());
    // Changed, and still before where the next attempt begins; a new page; a file that the first did not come to.
    let relation = [page(3, 1), page(13, 8), page(12, 3), page(13, 4)].concat();
    let second = [("base/1/1_fsm", page(0, 7)), ("base/1/1", relation.clone()), ("base/1/2", page(3, 1))];
    let (manifest, written) = streamed(&repository, state.path(), &second, false).await.expect("committed");
    assert_eq!(written.plain_bytes, 3 * P, "of six");
    assert_eq!(manifest.packs.packs().len(), 2);
    let runs = |path: &str| {
        let file = manifest.files.iter().find(|f| f.path == path).expect("there");
        file.runs.iter().map(|r| (r.file_offset / P, r.length / P, r.frame)).collect::<Vec<_>>()
    };
    assert_eq!(runs("base/1/1"), [(0, 1, 0), (1, 1, 1), (2, 1, 0), (3, 1, 1)]);
    assert_eq!((runs("base/1/1_fsm"), runs("base/1/2")), (vec![(0, 1, 0)], vec![(0, 1, 1)]));
    assert_eq!(manifest.files.len(), 3, "what is not there any more is not taken over");
    assert!(progress(state.path(), None, true).1.is_none(), "the notes are gone");
}

#[tokio::test]
async fn without_lsn_the_sums_of_the_previous_backup_tell() {
    let (repository, _) = testing::repository_and_writer().await;
    let state = tempfile::tempdir().expect("dir");
    let files = [("base/1/1", [page(3, 1), page(4, 2)].concat()), ("base/1/1_vm", page(3, 3))];
    let (manifest, _) = streamed(&repository, state.path(), &files, false).await.expect("committed");
    let since = Lsn(u64::MAX);
    let kept = |previous: &Previous, path: &str, fill| {
        let kept = previous.kept(previous.file(path).expect("there")).expect("kept");
        kept.page(0, lsn(3), &page(3, fill))
    };
    let mut previous = Previous::built_on(manifest, since).expect("previous").without_lsn();
    assert!(!kept(&previous, "base/1/1", 1), "nothing is known");
    previous.read_sums(&repository, "production").await.expect("read");
    assert!(kept(&previous, "base/1/1", 1) && kept(&previous, "base/1/1_vm", 3));
    assert!(!kept(&previous, "base/1/1", 2));
}

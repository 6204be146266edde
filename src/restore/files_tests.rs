//! What a restore writes, and what a delta restore does not: counted to the byte, in a repository in memory.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use super::files::{ClusterTarget, Files, Transfer, write};
use crate::repository::base_manifest::{BaseManifest, FileEntry, Header, Run};
use crate::repository::packs::PackTable;
use crate::repository::page_sums::PAGE;
use crate::repository::page_writer::PageWriter;
use crate::repository::{Repository, pack_stream, testing};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

const SPACE: &str = "/where/it/was";

/// Bytes that differ from page to page and from file to file.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn cluster() -> Vec<(&'static str, Vec<u8>)> {
    let holey = [noise(PAGE, 1), vec![0; 5 * PAGE], noise(PAGE + 100, 2)].concat();
    vec![
        ("PG_VERSION", b"15\n".to_vec()),
        ("backup_label", noise(200, 9)),
        ("base/5/1", noise(400 * PAGE, 3)),
        ("base/5/2", holey),
        ("base/5/3", vec![0; 3 * PAGE]),
        ("base/5/4", Vec::new()),
        ("base/5/5", noise(10 * PAGE, 4)),
        ("global/pg_control", noise(300, 5).into_iter().chain(vec![0; PAGE - 300]).collect()),
        ("pg_tblspc/20000/PG_15_1/5/6", noise(20 * PAGE, 6)),
        ("standby.signal", Vec::new()),
    ]
}

/// Stores files; with `sums`, as backups do, or without, as the first version did.
async fn stored(repository: &Repository, files: Vec<(&str, Vec<u8>)>, sums: bool) -> Arc<BaseManifest> {
    let (content, task) = pack_stream::start(repository, "production", 3);
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = PageWriter::new(content);
        for (number, bytes) in (0..).zip(&contents) {
            for (at, page) in (0..).step_by(PAGE).zip(bytes.chunks(PAGE)) {
                if page.iter().any(|byte| *byte != 0) {
                    writer.page(number, at, page).expect("written");
                }
            }
        }
        let (content, stored) = writer.finish().expect("finished");
        content.finish().expect("finished");
        stored
    });
    let stored = writing.await.expect("a thread");
    let mut packs = task.written().await.expect("stored").packs;
    if !sums {
        packs.iter_mut().for_each(|pack| pack.sums = None);
    }
    let entry = |(number, (path, bytes)): (u32, &(&str, Vec<u8>))| FileEntry {
        path: (*path).to_owned(),
        size: bytes.len() as u64,
        mode: 0o600,
        mtime: 1_700_000_000,
        runs: stored
            .iter()
            .filter(|part| part.file == number)
            .map(|p| Run { file_offset: p.file_offset, length: p.length.into(), frame: p.frame, offset: p.offset })
            .collect(),
        ..FileEntry::default()
    };
    let dirs =
        ["base", "base/5", "global", "pg_wal", "pg_tblspc", "pg_tblspc/20000/PG_15_1", "pg_tblspc/20000/PG_15_1/5"];
    Arc::new(BaseManifest {
        header: Header {
            id: "b".into(),
            system_id: 7,
            timeline: Timeline(1),
            start_lsn: Lsn(0x100),
            server_version: 150_000,
            wal_segment_size: 16 << 20,
            hints_logged: true,
            previous: None,
        },
        dirs: dirs.map(|dir| (dir.to_owned(), 0o700)).to_vec(),
        links: vec![("pg_tblspc/20000".into(), SPACE.into())],
        files: (0..).zip(&files).map(entry).collect(),
        packs: PackTable::new(packs),
    })
}

async fn restore(repository: &Repository, manifest: &Arc<BaseManifest>, home: &Path, reuse: bool) -> Transfer {
    let target = ClusterTarget {
        pgdata: home.join("data"),
        tablespaces: HashMap::from([(SPACE.to_owned(), home.join("space"))]),
        owner: None,
    };
    let files = Files {
        repository,
        environment: "production",
        manifest: manifest.clone(),
        stop: Lsn(0x200),
        target: &target,
        reuse,
        runtime: &Runtime::silent(),
    };
    write(files).await.expect("restored")
}

/// Everything below a directory: kind, mode, size, content.
fn tree(home: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(home).sort_by_file_name().into_iter().map(|e| e.expect("readable"));
    let lines = entries.map(|entry| {
        let (path, about) = (entry.path(), entry.metadata().expect("readable"));
        let content = match () {
            () if about.is_symlink() => "a link".to_owned(),
            () if about.is_file() => crc32c::crc32c(&std::fs::read(path).expect("readable")).to_string(),
            () => String::new(),
        };
        let size = if about.is_file() { about.len() } else { 0 };
        format!("{} {:o} {size} {content}", path.strip_prefix(home).expect("inside").display(), about.mode())
    });
    lines.collect()
}

#[tokio::test]
async fn only_what_differs_is_fetched_and_written() {
    let (repository, _) = testing::repository_and_writer().await;
    for sums in [true, false] {
        let files = cluster();
        let manifest = stored(&repository, files.clone(), sums).await;
        let logical: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let folder = tempfile::tempdir().expect("dir");
        let (fresh, old) = (folder.path().join("fresh"), folder.path().join("old"));
        let full = restore(&repository, &manifest, &fresh, false).await;
        let stored_bytes = logical - 5 * PAGE as u64 - 3 * PAGE as u64;
        assert_eq!((full.kept_bytes, full.written_bytes, full.removed), (0, stored_bytes, 0));
        for (path, bytes) in files.iter().filter(|(path, _)| *path != "standby.signal") {
            assert!(std::fs::read(fresh.join("data").join(path)).expect("restored") == *bytes, "{path}");
        }
        restore(&repository, &manifest, &old, false).await;
        assert_eq!(tree(&fresh), tree(&old));

        // Nothing changed: only pg_control, which was removed first, is written.
        let control = PAGE as u64;
        let same = restore(&repository, &manifest, &old, true).await;
        assert_eq!((same.kept_bytes, same.written_bytes), (logical - control, control));
        // Made anew each time, where it is ours.
        assert_eq!(same.removed, u64::from(sums));
        assert_eq!(sums, old.join("data/backup_manifest").exists());
        if sums {
            assert!(same.fetched_bytes < full.fetched_bytes / 2, "{same:?}, {full:?}");
        }

        let data = old.join("data");
        let change = |path: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = std::fs::read(data.join(path)).expect("readable");
            change(&mut bytes);
            std::fs::write(data.join(path), bytes).expect("written");
        };
        change("base/5/1", &|bytes| {
            bytes[0] ^= 1;
            bytes[200 * PAGE + 77] ^= 1;
            bytes[201 * PAGE] ^= 1;
        });
        change("base/5/2", &|bytes| bytes[3 * PAGE + 5] = 1); // where the backup has zeros
        change("base/5/3", &|bytes| bytes.truncate(PAGE));
        change("base/5/4", &|bytes| bytes.extend([1; 2 * PAGE]));
        change("base/5/5", &|bytes| bytes.truncate(4 * PAGE + 1));
        change("pg_tblspc/20000/PG_15_1/5/6", &|bytes| bytes[20 * PAGE - 1] ^= 1);
        let outside = folder.path().join("outside");
        std::fs::create_dir_all(&outside).expect("dir");
        std::fs::write(outside.join("kept"), "x").expect("written");
        std::fs::write(data.join("pg_wal/000000010000000000000001"), "wal").expect("written");
        std::fs::create_dir_all(data.join("base/6/deep")).expect("dir");
        std::fs::write(data.join("base/6/deep/x"), "x").expect("written");
        symlink(&outside, data.join("base/away")).expect("link");
        symlink(&outside, data.join("pg_tblspc/20001")).expect("link");
        std::fs::write(old.join("space/PG_15_1/5/7"), "x").expect("written");
        std::fs::create_dir_all(old.join("space/PG_16_9")).expect("dir");
        std::fs::set_permissions(data.join("base/5/1"), std::fs::Permissions::from_mode(0o644)).expect("mode");
        std::fs::set_permissions(data.join("base/5"), std::fs::Permissions::from_mode(0o755)).expect("mode");
        // A second name elsewhere, as of a snapshot: it must keep its content.
        let label = std::fs::read(data.join("backup_label")).expect("readable");
        std::fs::write(data.join("backup_label"), "damaged").expect("written");
        std::fs::hard_link(data.join("backup_label"), outside.join("label")).expect("link");

        let delta = restore(&repository, &manifest, &old, true).await;
        let page = PAGE as u64;
        // Three pages and one, the zeros, five whole pages and the rest of one, one page, pg_control, the label.
        let written = 3 * page + page + 6 * page + page + control + label.len() as u64;
        assert_eq!(delta.written_bytes, written, "{sums} {delta:?}");
        // Of what is not written, the holes of files that were too short were never there.
        assert_eq!(delta.kept_bytes, logical - written - 2 * page, "{sums} {delta:?}");
        assert_eq!(delta.removed, 6 + u64::from(sums));
        std::fs::remove_dir(old.join("space/PG_16_9")).expect("another cluster's, which stays");
        assert_eq!(tree(&fresh), tree(&old));
        assert_eq!(std::fs::read(outside.join("label")).expect("there"), b"damaged");
        assert!(outside.join("kept").exists());
    }
}

#[tokio::test]
async fn a_damaged_sum_is_told_before_anything_is_called_right() {
    let (repository, _) = testing::repository_and_writer().await;
    let manifest = stored(&repository, cluster(), true).await;
    let mut other = stored(&repository, vec![("x", noise(PAGE, 8))], true).await;
    let packs = manifest.packs.packs().to_vec();
    let foreign = Arc::get_mut(&mut other).expect("only here");
    let mut mixed: Vec<_> = packs;
    mixed[0].sums = foreign.packs.packs()[0].sums.clone();
    let manifest = BaseManifest {
        header: manifest.header.clone(),
        dirs: manifest.dirs.clone(),
        links: Vec::new(),
        files: manifest.files.clone(),
        packs: PackTable::new(mixed),
    };
    let folder = tempfile::tempdir().expect("dir");
    let target = ClusterTarget { pgdata: folder.path().join("data"), tablespaces: HashMap::new(), owner: None };
    let files = Files {
        repository: &repository,
        environment: "production",
        manifest: Arc::new(manifest),
        stop: Lsn(0x200),
        target: &target,
        reuse: true,
        runtime: &Runtime::silent(),
    };
    let failure = write(files).await.expect_err("sums of another pack");
    assert_eq!(failure.kind(), crate::ErrorKind::Integrity);
    assert!(!folder.path().join("data/global/pg_control").exists());
}

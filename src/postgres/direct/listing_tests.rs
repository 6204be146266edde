//! The listing against BASE_BACKUP of a real server: the same names, kinds and modes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::listing::{Kind, Listing, Rules, list};
use crate::error::ErrorKind;
use crate::postgres::control_file::ControlFile;
use crate::postgres::relation_file::RelationFile;
use crate::postgres::replication::testing::{TestServer, give_to_server};
use crate::postgres::replication::tests::{Backup, backup, replication};
use crate::postgres::replication::{BaseBackupOptions, ManifestChecksums};
use crate::postgres::wal::{Fork, RelationFork};

fn plant(path: PathBuf) {
    fs::create_dir_all(path.parent().expect("below the data directory")).expect("created");
    fs::write(&path, "").expect("written");
    give_to_server(path.parent().expect("below the data directory"));
    give_to_server(&path);
}

/// One line for each thing that BASE_BACKUP sent.
fn sent(backup: &Backup) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (archive, tablespace) in backup.archives.iter().zip(&backup.tablespaces) {
        let prefix = tablespace.oid.map(|oid| format!("pg_tblspc/{oid}/")).unwrap_or_default();
        for entry in tar::Archive::new(&archive[..]).entries().expect("a tar archive") {
            let entry = entry.expect("an entry");
            let path = entry.path().expect("a name").display().to_string();
            let path = path.trim_start_matches("./").trim_end_matches('/');
            let mode = entry.header().mode().expect("a mode") & 0o7777;
            match entry.header().entry_type() {
                tar::EntryType::Directory if path.is_empty() => {}
                tar::EntryType::Directory => drop(lines.insert(format!("d {prefix}{path} {mode:o}"))),
                tar::EntryType::Symlink => {
                    let target = entry.link_name().expect("a target").expect("a target").display().to_string();
                    lines.insert(format!("l {prefix}{path} {target}"));
                }
                _ if path == "backup_label" => {}
                _ => drop(lines.insert(format!("f {prefix}{path} {mode:o}"))),
            }
        }
    }
    lines
}

fn found(listing: &Listing) -> BTreeSet<String> {
    let directories = listing.directories.iter().map(|d| format!("d {} {:o}", d.path, d.mode));
    let links = listing.links.iter().map(|l| format!("l {} {}", l.path, l.target));
    let files = listing.files.iter().map(|f| format!("f {} {:o}", f.path, f.mode));
    directories.chain(links).chain(files).collect()
}

fn rules(data: &Path, major: u32) -> Rules<'static> {
    let control = fs::read(data.join("global/pg_control")).expect("readable");
    let catalog = ControlFile::parse(&control).expect("valid").catalog_version;
    Rules { major, catalog, stats_temp_directory: (major < 15).then_some("pg_stat_tmp") }
}

#[tokio::test]
async fn the_same_files_as_base_backup() {
    for major in 13..=18 {
        if let Some(server) = TestServer::of_version(major, &["autovacuum = off"], &[]).await {
            compare(&server, major).await;
        }
    }
}

async fn compare(server: &TestServer, major: u32) {
    let space = server.path().join("space");
    fs::create_dir(&space).expect("created");
    give_to_server(&space);
    let sql = server.sql().await;
    sql.batch_execute(&format!("CREATE TABLESPACE far LOCATION '{}'", space.display())).await.expect("tablespace");
    for statement in [
        "CREATE TABLE kept AS SELECT generate_series(1, 10000) AS n",
        "CREATE UNLOGGED TABLE near_unlogged AS SELECT generate_series(1, 10000) AS n",
        "CREATE UNLOGGED TABLE far_unlogged (n int PRIMARY KEY) TABLESPACE far",
        "INSERT INTO far_unlogged SELECT generate_series(1, 10000)",
        "CREATE TABLE far_kept TABLESPACE far AS SELECT generate_series(1, 10000) AS n",
        "CREATE TEMP TABLE passing AS SELECT generate_series(1, 10000) AS n",
        "VACUUM kept, near_unlogged, far_unlogged, far_kept, passing",
    ] {
        sql.batch_execute(statement).await.expect(statement);
    }
    let location = |table: &str| {
        let query = format!("SELECT pg_relation_filepath('{table}'), pg_relation_filenode('{table}')::text");
        let sql = &sql;
        async move {
            let row = sql.query_one(&query, &[]).await.expect("a path");
            (row.get::<_, String>(0), row.get::<_, String>(1))
        }
    };
    let ((near, _), (far, far_node), (temp, _)) =
        (location("near_unlogged").await, location("far_unlogged").await, location("passing").await);
    sql.batch_execute("CHECKPOINT").await.expect("a checkpoint");
    let data = server.data();
    // Later segments, and what servers leave behind, run into or are asked to ignore.
    let database = Path::new(&near).parent().expect("a database").display().to_string();
    for path in [
        format!("{near}.1"),
        format!("{near}_fsm.1"),
        format!("{far}.7"),
        format!("{far}_vm.1"),
        format!("{temp}.1"),
        format!("{database}/pgsql_tmp/pgsql_tmp1.0"),
        format!("{database}/pg_internal.init.4711"),
        format!("{database}/t7_9_fsm"),
        format!("{database}/t7x9"),
        "base/pgsql_tmp/pgsql_tmp1.1.sharedfileset/x".into(),
        "pg_stat_tmp/global.stat".into(),
        "pg_wal/archive_status/000000010000000000000001.done".into(),
        "pg_wal/other/file".into(),
        "pg_snapshots/00000003-00000001-1".into(),
        "pg_notify/0000".into(),
        "pg_subtrans/000A".into(),
        "pg_replslot/gone/state".into(),
        "postgresql.auto.conf.tmp".into(),
        "current_logfiles.tmp".into(),
        "current_logfiles".into(),
        "backup_label.old".into(),
        "tablespace_map.old".into(),
        "backup_manifest".into(),
        "standby.signal.away".into(),
        "log/today.log".into(),
        "log/pg_notify/inner".into(),
        "extra/base/12/12_init".into(),
        "extra/base/12/12".into(),
    ] {
        plant(data.join(path));
    }
    for directory in ["base/pgsql_tmp", "pg_replslot", "extra", "extra/base"] {
        give_to_server(&data.join(directory));
    }
    symlink("/etc/passwd", data.join("a-link")).expect("a link");
    fs::set_permissions(data.join("log/today.log"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .expect("chmod");
    plant(space.join("PG_99_1/5/5"));

    let listing = list(&data, &rules(&data, major)).expect("listed");
    let options = BaseBackupOptions { manifest_checksums: ManifestChecksums::None, ..Default::default() };
    let oracle = sent(&backup(replication(server).await, &options).await);
    let ours = found(&listing);
    let more: Vec<_> = ours.difference(&oracle).collect();
    let missing: Vec<_> = oracle.difference(&ours).collect();
    assert!(more.is_empty() && missing.is_empty(), "{major}: more: {more:#?}\nmissing: {missing:#?}");

    assert!(ours.iter().any(|line| line.contains(&format!("{far}_init "))), "{far}");
    assert!(!ours.contains(&format!("f {far}.7 600")) && !ours.contains(&format!("f {temp} 600")));
    assert_eq!(listing.skipped, ["a-link"]);
    let init = listing.files.iter().find(|f| f.path == format!("{far}_init")).expect("kept");
    let oids: Vec<u32> = far.split('/').filter_map(|part| part.parse().ok()).collect();
    let (tablespace, database, node) = (oids[0], oids[1], far_node.parse().expect("a number"));
    assert_eq!(init.kind, relation(tablespace, database, node, Fork::Init, 0));
    let kind = |path: &str| listing.files.iter().find(|f| f.path == path).map(|f| f.kind);
    assert_eq!(kind("global/pg_control"), Some(Kind::Control));
    assert_eq!(kind("global/pg_filenode.map"), Some(Kind::Other));
    let shared = relation(1664, 0, 1262, Fork::FreeSpaceMap, 0);
    assert_eq!(kind("global/1262_fsm"), Some(shared));
    let looked = fs::metadata(data.join("global/pg_filenode.map")).expect("there");
    let map = listing.files.iter().find(|f| f.path == "global/pg_filenode.map").expect("listed");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((map.size, map.inode), (looked.len(), looked.ino()));
    assert_eq!(map.mtime_ns, looked.mtime() * 1_000_000_000 + looked.mtime_nsec());
}

fn relation(tablespace: u32, database: u32, relation: u32, fork: Fork, number: u32) -> Kind {
    Kind::Relation(RelationFile { fork: RelationFork { tablespace, database, relation, fork }, number })
}

#[test]
fn tablespaces_inside_and_in_place_are_read_once() {
    let home = tempfile::tempdir().expect("dir");
    let data = home.path().join("data");
    for path in [
        "PG_VERSION",
        "global/pg_control",
        "pg_tblspc/20000/PG_16_1/5/100.1",
        "pg_tblspc/20000/PG_15_1/5/100",
        "inside/PG_16_1/5/200_init",
        "inside/PG_16_1/5/200",
        "stats/x",
        "pg_wal/summaries/y",
    ] {
        plant(data.join(path));
    }
    symlink(data.join("inside"), data.join("pg_tblspc/20001")).expect("link");
    symlink(home.path().join("dropped"), data.join("pg_tblspc/20002")).expect("link");
    fs::remove_dir_all(data.join("pg_wal")).expect("removed");
    plant(home.path().join("wal/0001"));
    symlink(home.path().join("wal"), data.join("pg_wal")).expect("link");
    let rules = Rules { major: 16, catalog: 1, stats_temp_directory: Some("./stats") };
    let listing = list(&data, &rules).expect("listed");
    let files: Vec<_> = listing.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(
        files,
        ["PG_VERSION", "global/pg_control", "pg_tblspc/20000/PG_16_1/5/100.1", "pg_tblspc/20001/PG_16_1/5/200_init"]
    );
    assert_eq!(listing.files[2].kind, relation(20000, 5, 100, Fork::Main, 1));
    let directories: Vec<_> = listing.directories.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(
        directories,
        [
            "global",
            "inside",
            "pg_tblspc",
            "pg_tblspc/20000",
            "pg_tblspc/20000/PG_16_1",
            "pg_tblspc/20000/PG_16_1/5",
            "pg_tblspc/20001/PG_16_1",
            "pg_tblspc/20001/PG_16_1/5",
            "pg_wal",
            "pg_wal/archive_status",
            "stats"
        ]
    );
    assert_eq!(listing.links.len(), 2, "a link that leads nowhere is kept: the tablespace may be empty");
}

#[test]
fn what_cannot_be_listed_is_an_error() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = tempfile::tempdir().expect("dir");
    let rules = Rules { major: 15, catalog: 1, stats_temp_directory: None };
    let foreign = list(home.path(), &rules).expect_err("no data directory");
    assert!(foreign.message().contains("is not a data directory"), "{foreign}");
    plant(home.path().join("PG_VERSION"));
    fs::write(home.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "").expect("written");
    let named = list(home.path(), &rules).expect_err("a name that is not UTF-8");
    assert_eq!(named.kind(), ErrorKind::Source);
    assert!(named.message().contains("not UTF-8"), "{named}");
}

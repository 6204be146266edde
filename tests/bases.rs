//! Base backups: both readers bring the same bytes back, an incremental stores what changed and is
//! complete in itself, damage is named, and what was stored before a crash is used again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Estate, Scratch, as_server, majors, server_bin, skip, tool, wait_until};

/// Rows in two tablespaces, an unlogged table, a sequence and every kind of index that PostgreSQL has.
const LOAD: &str = "
    CREATE TABLE here (id serial PRIMARY KEY, body text, place point);
    CREATE TABLE there (id serial PRIMARY KEY, body text) TABLESPACE far;
    CREATE UNLOGGED TABLE volatile AS SELECT generate_series(1, 10000) i;
    INSERT INTO here (body, place) SELECT md5(i::text), point(i, i) FROM generate_series(1, 30000) i;
    INSERT INTO there (body) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 2000) i;
    CREATE INDEX ON here USING hash (body);
    CREATE INDEX ON here USING brin (id);
    CREATE INDEX ON here USING gist (place);
    CREATE INDEX ON here USING gin (string_to_array(body, 'a'));
    CREATE TABLE cut AS SELECT generate_series(1, 20000) i;
    CREATE TABLE dropped AS SELECT generate_series(1, 20000) i;";

/// Changes of every kind: scattered and dense, cut, dropped, rewritten, created.
const CHANGES: &str = "
    UPDATE here SET body = body || '!' WHERE id % 501 = 0;
    DELETE FROM there WHERE id % 11 = 0;
    TRUNCATE cut;
    INSERT INTO cut SELECT generate_series(1, 5000);
    DROP TABLE dropped;
    CREATE TABLE made AS SELECT i, md5(i::text) body FROM generate_series(1, 5000) i;
    ALTER TABLE there SET TABLESPACE pg_default;
    CREATE DATABASE copied TEMPLATE template0;
    SELECT nextval('here_id_seq');";

fn config() -> &'static str {
    "autovacuum = off\nwal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 64MB"
}

fn start(scratch: &Scratch) -> Cluster {
    let cluster = Cluster::builder(scratch).config(config()).wal_segment_mib(1).tablespace("far").start();
    cluster.psql("postgres", LOAD);
    cluster
}

/// Sets all hint bits, so that looking at tables changes nothing any more; and lets the server forget WAL.
/// Makes the changes, each in a transaction of its own.
fn change(cluster: &Cluster) {
    for statement in CHANGES.split(';').filter(|s| !s.trim().is_empty()) {
        cluster.psql("postgres", statement);
    }
}

fn settle(cluster: &Cluster) {
    cluster.psql("postgres", "VACUUM");
    for _ in 0..3 {
        cluster.psql("postgres", "SELECT pg_switch_wal()");
        cluster.psql("postgres", "CHECKPOINT");
    }
}

fn base(estate: &Estate, more: &[&str]) -> Value {
    let base = estate.run(&[&["backup", "base"], more].concat()).ok().json()["base_backup"].clone();
    judge_wal(estate, &base);
    base
}

/// Fetches the WAL without which the backup is worthless, and lets PostgreSQL's own tool read it from the start to
/// the stop of the backup.
fn judge_wal(estate: &Estate, base: &Value) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let major = text(&base["server_version"]).split('.').next().and_then(|m| m.parse().ok()).expect("a version");
    let Some(judge) = tool(major, "pg_waldump").filter(|t| server_bin(major).is_some_and(|bin| t.starts_with(bin)))
    else {
        return;
    };
    let (first, last) = (text(&base["wal"]["first"]), text(&base["wal"]["last"]));
    let folder = estate.scratch.server_dir(&format!("wal-of-{}", id(base)));
    for segment in estate.objects(&format!("wal/{}", &first[..8])) {
        let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
        if name.len() == 24 && (first.as_str()..=last.as_str()).contains(&name.as_str()) {
            let place = folder.join(&name);
            let fetch = ["wal", "fetch", "-e", "production", &name, place.to_str().expect("UTF-8")];
            estate.lifeboat.run(&fetch).ok();
        }
    }
    let (start, stop) = (text(&base["start_lsn"]), text(&base["stop_lsn"]));
    let timeline = base["timeline"].to_string();
    let mut command = std::process::Command::new(judge);
    command.args(["--quiet", "-t", &timeline, "-s", &start, "-e", &stop, "-p"]).arg(&folder);
    let judged = command.output().expect("pg_waldump runs");
    assert!(judged.status.success(), "{base}: {}", String::from_utf8_lossy(&judged.stderr));
}

/// Every file of relations below a restored directory, by path.
fn relations(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for below in ["base", "global", "pg_tblspc"] {
        for entry in walkdir::WalkDir::new(data.join(below)).follow_links(true).into_iter().filter_map(Result::ok) {
            let path = entry.path().strip_prefix(data).expect("below").display().to_string();
            if entry.file_type().is_file() && !path.ends_with("pg_control") {
                files.insert(path, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    files
}

/// Restores the files of a base backup as they are, nothing replayed, and lets PostgreSQL's own tool judge
/// them.
fn files_of(estate: &Estate, id: &str, name: &str) -> BTreeMap<String, Vec<u8>> {
    let place = estate.place(name);
    let old = estate.scratch.join("pg/tablespace-far");
    let mapping = format!("{}={}", old.display(), estate.scratch.server_dir(&format!("{name}-far")).display());
    let far: &[&str] = if old.exists() { &["--tablespace-mapping", &mapping] } else { &[] };
    estate.restore(&format!("backup:{id}"), &place, &[&["--no-start"], far].concat()).ok();
    let major = fs::read_to_string(place.join("PG_VERSION")).expect("restored").trim().parse().expect("a number");
    if let Some(judge) = tool(major, "pg_verifybackup") {
        let judged =
            as_server(&judge).args(["-n", "-i", "recovery.signal", "-i", "postgresql.auto.conf"]).arg(&place).output();
        let judged = judged.expect("pg_verifybackup runs");
        assert!(judged.status.success(), "{name}: {}", String::from_utf8_lossy(&judged.stderr));
    }
    relations(&place)
}

fn assert_same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
    let different: Vec<&String> = one.iter().filter(|(path, bytes)| other[*path] != **bytes).map(|(p, _)| p).collect();
    assert!(different.is_empty(), "{different:?}");
}

fn id(base: &Value) -> &str {
    base["id"].as_str().expect("an id")
}

#[test]
fn both_readers_bring_the_same_bytes_back() {
    let scratch = Scratch::new();
    let cluster = start(&scratch);
    settle(&cluster);
    let estate = Estate::builder(&scratch, &cluster).init();
    let direct = base(&estate, &["--full", "--reader", "direct"]);
    let streamed = base(&estate, &["--full", "--reader", "streamed"]);
    assert_eq!((direct["reader"].as_str(), streamed["reader"].as_str()), (Some("direct"), Some("streamed")));
    let files = files_of(&estate, id(&direct), "direct");
    assert_same(&files, &files_of(&estate, id(&streamed), "streamed"));
    let unlogged = cluster.psql("postgres", "SELECT pg_relation_filepath('volatile')");
    assert!(files.contains_key(&format!("{unlogged}_init")) && !files.contains_key(&unlogged));
    // What lies on the disk is what came back.
    let here = cluster.psql("postgres", "SELECT pg_relation_filepath('here')");
    assert_eq!(files[&here], fs::read(cluster.data_dir().join(&here)).expect("readable"));
}

#[test]
fn an_incremental_is_complete_whichever_way_changes_are_found() {
    let scratch = Scratch::new();
    let cluster = start(&scratch);
    let estate = Estate::builder(&scratch, &cluster).init();
    let receiver = estate.receive(&cluster);
    let first = base(&estate, &[]);
    assert_eq!((&first["previous"], &first["reader"]), (&Value::Null, &Value::from("direct")));
    cluster.psql("postgres", "CHECKPOINT");
    change(&cluster);
    // What changed is known from what the receiver kept, or not at all.
    settle(&cluster);
    estate.caught_up(&cluster);
    receiver.kill9();
    let known = scratch.join("state/blocks");
    let by_wal = base(&estate, &[]);
    assert_eq!(by_wal["previous"], first["id"]);
    fs::remove_dir_all(&known).expect("kept by the receiver");

    let by_lsn = base(&estate, &["--reader", "streamed"]);
    assert_eq!(by_lsn["previous"], by_wal["id"]);
    let whole = base(&estate, &["--full", "--reader", "direct"]);
    let read = |base: &Value| base["bytes_read"].as_u64().expect("a number");
    assert!(read(&by_wal) * 2 < read(&whole), "{} of {}", read(&by_wal), read(&whole));
    let stored = |base: &Value| base["stored_bytes"].as_u64().expect("a number");
    assert!(stored(&by_wal) * 2 < stored(&whole), "{} of {}", stored(&by_wal), stored(&whole));
    let files = files_of(&estate, id(&whole), "whole");
    assert_same(&files_of(&estate, id(&by_wal), "by-wal"), &files);
    assert_same(&files_of(&estate, id(&by_lsn), "by-lsn"), &files);
    // The first backup is what it was: nothing was taken from it.
    files_of(&estate, id(&first), "first");
    estate.run(&["verify", "--deep"]).ok();
}

#[test]
fn pages_looked_at_and_pages_named_by_wal_give_the_same_backup() {
    let scratch = Scratch::new();
    let cluster = start(&scratch);
    let estate = Estate::builder(&scratch, &cluster).init();
    base(&estate, &[]);
    change(&cluster);
    settle(&cluster);
    // No receiver kept anything, and the server has no WAL of that time any more.
    let by_lsn = base(&estate, &["--reader", "direct"]);
    let whole = base(&estate, &["--full", "--reader", "direct"]);
    assert_same(&files_of(&estate, id(&by_lsn), "by-lsn"), &files_of(&estate, id(&whole), "whole"));
    let nothing = base(&estate, &[]);
    assert_eq!(nothing["previous"], whole["id"]);
    assert!(nothing["stored_bytes"].as_u64() < Some(200_000), "{nothing}");
    assert_same(&files_of(&estate, id(&nothing), "nothing"), &files_of(&estate, id(&whole), "again"));
}

#[test]
fn without_logged_hint_bits_no_page_is_believed_by_its_lsn() {
    let scratch = Scratch::new();
    let cluster =
        Cluster::builder(&scratch).config(config()).no_checksums().wal_segment_mib(1).tablespace("far").start();
    cluster.psql("postgres", LOAD);
    let estate = Estate::builder(&scratch, &cluster).init();
    base(&estate, &[]);
    // VACUUM marks the pages of tables as all-visible, and their LSN stays what it was.
    settle(&cluster);
    let by_file = base(&estate, &["--reader", "direct"]);
    let streamed = base(&estate, &["--reader", "streamed"]);
    let full = base(&estate, &["--full"]);
    // Their sums tell which pages are stored already.
    let stored = |base: &Value| base["stored_bytes"].as_u64().expect("a number");
    assert!(stored(&by_file) * 2 < stored(&full), "{} of {}", stored(&by_file), stored(&full));
    assert!(stored(&streamed) * 5 < stored(&full), "{} of {}", stored(&streamed), stored(&full));
    let whole = files_of(&estate, id(&full), "whole");
    assert_same(&files_of(&estate, id(&by_file), "by-file"), &whole);
    assert_same(&files_of(&estate, id(&streamed), "streamed"), &whole);
}

#[test]
fn the_servers_own_incremental_goes_straight_into_the_map() {
    for major in majors().into_iter().filter(|major| *major >= 17) {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch)
            .major(major)
            .config(config())
            .config("summarize_wal = on")
            .tablespace("far")
            .start();
        cluster.psql("postgres", LOAD);
        let estate = Estate::builder(&scratch, &cluster).init();
        let first = base(&estate, &["--reader", "streamed"]);
        change(&cluster);
        settle(&cluster);
        let output = estate.run(&["backup", "base", "--reader", "streamed"]).ok();
        assert!(!output.stderr.contains("sends every block"), "{}", output.stderr);
        let second = output.json()["base_backup"].clone();
        assert_eq!(second["previous"], first["id"], "{major}");
        let read = |base: &Value| base["bytes_read"].as_u64().expect("a number");
        assert!(read(&second) * 3 < read(&first) * 2, "{major}: {} of {}", read(&second), read(&first));
        let whole = base(&estate, &["--full", "--reader", "direct"]);
        assert_same(&files_of(&estate, id(&second), "second"), &files_of(&estate, id(&whole), "whole"));
    }
    if majors().iter().all(|major| *major < 17) {
        skip!("no PostgreSQL 17 or 18");
    }
}

#[test]
fn a_damaged_page_makes_the_backup_partial_until_it_is_mended() {
    let scratch = Scratch::new();
    let mut cluster = start(&scratch);
    let path = cluster.psql("postgres", "SELECT pg_relation_filepath('here')");
    cluster.stop();
    let file = fs::File::options().write(true).read(true).open(cluster.data_dir().join(&path)).expect("a file");
    let mut page = vec![0; 8192];
    file.read_exact_at(&mut page, 3 * 8192).expect("page 3");
    file.write_all_at(&[page[5000] ^ 1], 3 * 8192 + 5000).expect("a flipped bit");
    cluster.start();
    let estate = Estate::builder(&scratch, &cluster).init();
    for attempt in ["full", "incremental"] {
        let output = estate.run(&["backup", "base"]).expect_code(11);
        let json = output.json();
        let damaged = &json["base_backup"]["damaged"];
        assert_eq!(damaged.as_array().map(Vec::len), Some(1), "{attempt}: {json}");
        assert_eq!((damaged[0]["path"].as_str(), damaged[0]["block"].as_u64()), (Some(path.as_str()), Some(3)));
        assert!(output.stdout.contains("block 3"), "{}", output.stdout);
    }
    cluster.psql("postgres", "TRUNCATE here");
    assert_eq!(base(&estate, &[])["damaged"], Value::Array(Vec::new()));
}

#[test]
fn a_backup_does_not_build_on_one_that_is_damaged() {
    let scratch = Scratch::new();
    let cluster = start(&scratch);
    let estate = Estate::builder(&scratch, &cluster).init();
    base(&estate, &[]);
    fs::remove_file(&estate.objects("data")[0]).expect("a pack");
    let output = estate.run(&["backup", "base"]).ok();
    assert!(output.stderr.contains("does not build on it"), "{}", output.stderr);
    let second = output.json()["base_backup"].clone();
    assert_eq!(second["previous"], Value::Null);
    files_of(&estate, id(&second), "second");
}

#[test]
fn what_a_killed_backup_stored_is_used_again() {
    a_killed_backup_is_gone_on_with("direct", "direct");
}

#[test]
fn what_a_killed_streamed_backup_stored_is_used_again() {
    a_killed_backup_is_gone_on_with("streamed", "streamed");
}

#[test]
fn one_reader_goes_on_with_what_the_other_stored() {
    a_killed_backup_is_gone_on_with("streamed", "direct");
    a_killed_backup_is_gone_on_with("direct", "streamed");
}

#[test]
fn a_killed_incremental_of_the_server_is_gone_on_with() {
    let Some(major) = majors().into_iter().filter(|major| *major >= 17).max() else { skip!("no PostgreSQL 17 or 18") };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).major(major).config(config()).config("summarize_wal = on").start();
    cluster.psql("postgres", "CREATE TABLE calm AS SELECT i, md5(i::text) body FROM generate_series(1, 20000) i");
    settle(&cluster);
    let estate = Estate::builder(&scratch, &cluster).postgres("max_rate = \"40MiB\"").init();
    let first = base(&estate, &["--reader", "streamed"]);
    cluster.psql("postgres", NOISE);
    cluster.psql("postgres", "UPDATE calm SET body = '' WHERE i % 1000 = 0");
    let second = kill_and_go_on(&estate, &cluster, "streamed", "streamed");
    assert_eq!(second["previous"], first["id"]);
}

/// Text that hardly compresses: three packs of it.
const NOISE: &str = "
    CREATE TABLE noise AS SELECT i, (SELECT string_agg(md5((i * 100 + j)::text), '') FROM generate_series(1, 60) j) body
    FROM generate_series(1, 45000) i";

fn a_killed_backup_is_gone_on_with(killed: &str, next: &str) {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config(config()).start();
    cluster.psql("postgres", NOISE);
    let estate = Estate::builder(&scratch, &cluster).postgres("max_rate = \"40MiB\"").init();
    kill_and_go_on(&estate, &cluster, killed, next);
}

/// Kills a backup as soon as a pack is noted; the next stores the rest and is as good as one that was never interrupted.
fn kill_and_go_on(estate: &Estate, cluster: &Cluster, killed: &str, next: &str) -> Value {
    // So that what looks at the tables later does not change them.
    settle(cluster);
    let in_packs = || -> u64 { estate.objects("data").iter().map(|pack| pack.metadata().expect("a file").len()).sum() };
    let before = in_packs();
    let running = estate.spawn(&["backup", "base", "--reader", killed]);
    let notes = estate.scratch.join("state/base/production.progress");
    wait_until("a pack is stored", Duration::from_secs(60), || {
        let text = fs::read_to_string(&notes).unwrap_or_default();
        // The whole line: what a kill cuts off does not count.
        text.split_once("{\"pack\"").is_some_and(|(_, line)| line.contains('\n'))
    });
    running.kill9();
    let left = in_packs() - before;
    estate.reconfigure("max_rate = \"40MiB\"", "");
    cluster.psql("postgres", "UPDATE noise SET i = i WHERE i < 100; CHECKPOINT");
    let output = estate.run(&["backup", "base", "--reader", next]).ok();
    assert!(output.stderr.contains("going on with a backup that was interrupted"), "{}", output.stderr);
    let all = in_packs() - before;
    let backup = output.json()["base_backup"].clone();
    assert_eq!(backup["reader"], next);
    assert!(left > 20 << 20 && backup["stored_bytes"].as_u64() > Some(all - (1 << 20)), "{left} {all} {backup}");
    assert!(!notes.exists(), "a backup that is committed needs no notes");
    let whole = base(estate, &["--full"]);
    let fresh = whole["stored_bytes"].as_u64().expect("a number");
    assert!(all < fresh + fresh / 4, "{all} stored in two attempts, {fresh} in one");
    assert_same(&files_of(estate, id(&backup), "resumed"), &files_of(estate, id(&whole), "whole"));
    estate.run(&["verify", "--deep"]).ok();
    let copy = estate.restored(&format!("backup:{}", id(&backup)), "copy", cluster);
    assert_eq!(copy.psql("postgres", "SELECT count(*) FROM noise"), "45000");
    backup
}

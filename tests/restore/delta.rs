//! Delta restores: the same bytes as a restore into an empty directory, only what differs written, and nothing
//! given up that exists nowhere else.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use super::{PATIENCE, refused};
use crate::common::{Cluster, Estate, Scratch, as_server, own, wait_until};

const PAGE: u64 = 8192;

/// Kind, mode, owner, size and content of everything below a directory.
fn tree(directory: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter().map(|e| e.expect("readable"));
    let lines = entries.map(|entry| {
        let (path, about) = (entry.path(), entry.metadata().expect("metadata"));
        let content = match () {
            () if about.is_file() => format!("{} {}", about.len(), crc32c::crc32c(&fs::read(path).expect("readable"))),
            () if about.is_symlink() => fs::read_link(path).expect("a link").display().to_string(),
            () => String::new(),
        };
        let name = path.strip_prefix(directory).expect("inside");
        format!("{} {:o} {}:{} {content}", name.display(), about.mode(), about.uid(), about.gid())
    });
    lines.collect()
}

#[track_caller]
fn same(left: &Path, right: &Path) {
    let (left, right) = (tree(left), tree(right));
    let differ: Vec<_> = left.iter().filter(|line| !right.contains(line)).collect();
    let other: Vec<_> = right.iter().filter(|line| !left.contains(line)).collect();
    assert!(differ.is_empty() && other.is_empty(), "{differ:#?}\n{other:#?}");
}

fn verified_by_postgresql(cluster: &Cluster, data: &Path) {
    let verdict =
        as_server(&cluster.bin_dir().join("pg_verifybackup")).arg("-n").arg(data).output().expect("pg_verifybackup");
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn equal_to_a_fresh_restore_and_only_the_difference_is_written() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).tablespace("far").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql(
        "postgres",
        "CREATE TABLE a AS SELECT i AS id, repeat(md5(i::text), 8) AS x FROM generate_series(1, 60000) i;
         CREATE TABLE t TABLESPACE far AS SELECT i AS id, md5(i::text) AS x FROM generate_series(1, 20000) i;
         CREATE TABLE gone AS SELECT 1 AS id",
    );
    let receiver = estate.receive(&cluster);
    estate.backup();
    // An incremental one, whose pages stand in the packs of two backups.
    cluster.psql("postgres", "UPDATE a SET x = 'new' WHERE id % 1000 = 0; CHECKPOINT");
    let base = estate.backup();
    let (a, t) = ("a", "t").map_path(&cluster);
    cluster.psql("postgres", "INSERT INTO t VALUES (0, 'last'); DROP TABLE gone");
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.stop();

    let (fresh, old) = (estate.place("fresh"), estate.place("old"));
    let space = scratch.join("pg/tablespace-far");
    let mapping = |name: &str| format!("{}={}", space.display(), scratch.join(name).join("space").display());
    let (to_fresh, to_old) = (mapping("fresh"), mapping("old"));
    let to = format!("backup:{base}");
    let restore = |place: &Path, mapping: &str, more: &[&str]| {
        estate.restore(&to, place, &[&["--no-start", "--tablespace-mapping", mapping], more].concat())
    };
    let full = restore(&fresh, &to_fresh, &[]).ok().json();
    assert_eq!(full["transfer"]["kept_bytes"], 0, "{full}");
    verified_by_postgresql(&cluster, &fresh);
    let written = |json: &serde_json::Value| {
        let number = |name: &str| json["transfer"][name].as_u64().expect("a number");
        (number("kept_bytes"), number("written_bytes"), number("fetched_bytes"), number("removed"))
    };
    // What a restore writes into an absent directory is the same with --delta.
    let absent = restore(&old, &to_old, &["--delta"]).ok().json();
    assert_eq!(written(&absent), written(&full));

    let again = restore(&old, &to_old, &["--delta"]).ok().json();
    let (kept, wrote, _, removed) = written(&again);
    assert_eq!(wrote, PAGE, "pg_control, which was removed first");
    assert_eq!(removed, 2, "recovery.signal and the manifest that is ours");
    assert!(kept > written(&full).1 - PAGE);

    let edit = |path: &str, at: u64| {
        let file = fs::OpenOptions::new().write(true).open(old.join(path)).expect("a file");
        file.write_all_at(b"damage", at).expect("written");
    };
    edit(&a, 5 * PAGE + 100);
    edit(&a, 900 * PAGE + 100);
    edit(&t, PAGE);
    fs::remove_file(old.join("PG_VERSION")).expect("removed");
    let told = refused(restore(&old, &to_old, &["--delta"]), 2);
    assert!(told.contains("something else than a PostgreSQL cluster"), "{told}");
    fs::write(old.join("PG_VERSION"), "14\n").expect("written");
    fs::write(old.join("pg_wal/000000010000000000000099"), "old WAL").expect("written");
    fs::create_dir_all(old.join("pg_replslot/slot")).expect("a slot");
    fs::write(old.join("pg_replslot/slot/state"), "x").expect("written");
    let outside = scratch.write("outside/file", "stays");
    symlink(&outside, old.join("base/link")).expect("a link");
    symlink(scratch.join("outside"), old.join("base/linked")).expect("a link");
    own(&scratch.join("old"));
    let delta = restore(&old, &to_old, &["--delta"]).ok().json();
    let (kept, wrote, fetched, removed) = written(&delta);
    assert_eq!(wrote, 4 * PAGE + 3, "three pages, pg_control, PG_VERSION");
    assert_eq!(removed, 2 + 4, "a segment, a slot, two links");
    assert!(kept > 0 && fetched < written(&full).2, "{delta}");
    verified_by_postgresql(&cluster, &old);
    // Both have a link to their own tablespace; everything else is the same, byte for byte.
    for place in [&fresh, &old] {
        let link = fs::read_dir(place.join("pg_tblspc")).expect("links").next().expect("one").expect("readable").path();
        fs::remove_file(link).expect("removed");
    }
    same(&scratch.join("fresh"), &scratch.join("old"));
    assert_eq!(fs::read_to_string(&outside).expect("still there"), "stays");
}

/// Files of two tables.
trait MapPath {
    fn map_path(self, cluster: &Cluster) -> (String, String);
}

impl MapPath for (&str, &str) {
    fn map_path(self, cluster: &Cluster) -> (String, String) {
        let path = |table: &str| cluster.psql("postgres", &format!("SELECT pg_relation_filepath('{table}')"));
        (path(self.0), path(self.1))
    }
}

#[test]
fn what_exists_nowhere_else_is_not_given_up() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).tablespace("far").start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql("postgres", "CREATE TABLE t (id int) TABLESPACE far; INSERT INTO t VALUES (1)");
    let receiver = estate.receive(&cluster);
    estate.backup();
    cluster.psql("postgres", "INSERT INTO t VALUES (2)");
    estate.caught_up(&cluster);
    receiver.kill9();
    let production = cluster.data_dir().to_owned();
    let delta = |place: &Path, more: &[&str]| estate.restore("latest", place, &[&["--delta"], more].concat());

    // A server that runs there, or uses the tablespace of a copy of it.
    let told = refused(delta(&production, &["--force"]), 2);
    assert!(told.contains("runs in"), "{told}");
    let copy = scratch.server_dir("copy").join("data");
    fs::create_dir(&copy).expect("a directory");
    for name in ["PG_VERSION", "global/pg_control"] {
        fs::create_dir_all(copy.join("global")).expect("a directory");
        fs::copy(production.join(name), copy.join(name)).expect("copied");
    }
    let link = fs::read_dir(production.join("pg_tblspc")).expect("links").next().expect("one").expect("readable");
    fs::create_dir(copy.join("pg_tblspc")).expect("a directory");
    symlink(scratch.join("pg/tablespace-far"), copy.join("pg_tblspc").join(link.file_name())).expect("a link");
    let before = tree(&copy);
    let told = refused(delta(&copy, &["--force"]), 2);
    assert!(told.contains("uses the tablespace"), "{told}");
    assert_eq!(tree(&copy), before);
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM t"), "2");

    // Transactions that only its own WAL has.
    cluster.psql("postgres", "INSERT INTO t VALUES (3)");
    cluster.kill9();
    let before = tree(&production);
    let told = refused(delta(&production, &[]), 2);
    assert!(told.contains("transaction(s) that the repository lacks") && told.contains("--force"), "{told}");
    let plan = delta(&production, &["--plan"]).ok().json();
    assert!(plan["plan"]["warnings"].to_string().contains("would be refused"), "{plan}");
    // Another cluster, and no cluster at all.
    let mut other = Cluster::builder(&scratch).name("other").start();
    other.stop();
    let told = refused(delta(other.data_dir(), &[]), 2);
    assert!(told.contains("another cluster"), "{told}");
    let precious = scratch.join("precious");
    fs::create_dir(&precious).expect("a directory");
    fs::write(precious.join("x"), "x").expect("a file");
    for more in [&[][..], &["--force"]] {
        let told = refused(delta(&precious, more), 2);
        assert!(told.contains("something else"), "{told}");
    }
    assert_eq!(refused_usage(estate.restore("latest", &precious, &["--force"])), 2);
    assert_eq!(tree(&production), before);

    // Given up knowingly: the crashed production directory becomes the restored cluster, with its own tablespace.
    let done = delta(&production, &["--force"]).ok().json();
    assert!(done["transfer"]["kept_bytes"].as_u64() > done["transfer"]["written_bytes"].as_u64(), "{done}");
    let restored = Cluster::adopt(&scratch, &production, cluster.major());
    assert_eq!(restored.psql("postgres", "SELECT array_agg(id ORDER BY id) FROM t"), "{1,2}");
    // What was written to the restored copy is nowhere else, either.
    restored.psql("postgres", "INSERT INTO t VALUES (4)");
    drop(restored);
    let told = refused(delta(&production, &[]), 2);
    assert!(told.contains("transaction(s)") && told.contains("on timeline 2"), "{told}");
}

fn refused_usage(output: crate::common::Output) -> i32 {
    output.code().expect("an exit code")
}

#[test]
fn a_killed_delta_restore_goes_on_or_gives_way_to_another() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql(
        "postgres",
        "CREATE TABLE a AS SELECT i AS id, repeat(md5(i::text), 8) AS x FROM generate_series(1, 300000) i",
    );
    let receiver = estate.receive(&cluster);
    let base = estate.backup();
    cluster.psql("postgres", "UPDATE a SET x = 'after' WHERE id % 3 = 0");
    estate.caught_up(&cluster);
    let digest = "SELECT count(*), sum(hashtext(x)::bigint) FROM a";
    let expected = cluster.psql("postgres", digest);
    cluster.psql("postgres", "CHECKPOINT");
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.stop();
    let place = cluster.data_dir().to_owned();
    let arguments = ["restore", "--to", "latest", "--pgdata", text(&place), "--delta"];
    let control = place.join("global/pg_control");
    let mut running = estate.spawn(&arguments);
    wait_until("pg_control is gone", PATIENCE, || !control.exists() || !running.is_running());
    assert!(running.is_running(), "it was done before: {}", running.said());
    running.kill9();
    assert!(!control.exists(), "a half-written directory could be started");
    // Without --delta it is somebody else's unfinished work.
    let told = refused(estate.restore("latest", &place, &[]), 2);
    assert!(told.contains("--delta"), "{told}");
    // Another target takes over, though nothing but the journal tells whose directory it is.
    let to = format!("backup:{base}");
    let other = estate.restore(&to, &place, &["--delta", "--no-start"]).ok().json();
    assert!(other["transfer"]["kept_bytes"].as_u64() > Some(0), "{other}");
    verified_by_postgresql(&cluster, &place);
    estate.run(&arguments).ok();
    let restored = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(restored.psql("postgres", digest), expected);
}

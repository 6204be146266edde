//! Looking at a repository: what `show`, `verify`, `evidence` and `doctor` say about a sound one, and
//! that every kind of damage to every kind of object turns the right command red.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Cluster, Lifeboat, Output, Scratch, free_port, wait_until};

/// An estate with one environment, `production`, in a folder.
struct Estate {
    scratch: Scratch,
    cluster: Cluster,
    lifeboat: Lifeboat,
    recipient: String,
}

impl Estate {
    /// A new repository; the cluster's WAL segments are of 1 MiB, so that there are many.
    fn new() -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).wal_segment_mib(1).tcp().start();
        let recipient = keygen(&scratch, "recovery.key");
        let mut estate = Self { lifeboat: Lifeboat::new(scratch.join("lifeboat.toml")), scratch, cluster, recipient };
        estate.configure("", &estate.cluster.dsn(), Some("recovery.key"), "state");
        estate.run(&["init"]).ok();
        estate
    }

    /// With two base backups and a dozen WAL segments behind and between them.
    fn filled() -> Self {
        let estate = Self::new();
        estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
        estate.run(&["backup", "base", "-e", "production"]).ok();
        for _ in 0..4 {
            estate.switch();
        }
        estate.receive();
        estate.run(&["backup", "base", "-e", "production"]).ok();
        for _ in 0..4 {
            estate.switch();
        }
        estate.cluster.psql("postgres", "INSERT INTO t VALUES ('in the segment that is being written')");
        estate.receive();
        estate
    }

    fn configure(&mut self, repository: &str, dsn: &str, identity: Option<&str>, state: &str) {
        self.lifeboat = self.with("lifeboat.toml", repository, dsn, identity, state);
    }

    /// Lifeboat with a configuration of its own.
    fn with(&self, file: &str, repository: &str, dsn: &str, identity: Option<&str>, state: &str) -> Lifeboat {
        let repository = match repository {
            "" => format!("url = \"file://{}\"", self.repository().display()),
            other => other.to_owned(),
        };
        let identity = identity.map(|file| format!("identity = {{ file = \"{file}\" }}\n")).unwrap_or_default();
        let config = format!(
            "[repository]\n{repository}\nretry_for = \"2s\"\n[keys]\nrecipients = [\"{}\"]\n{identity}state_dir = \"{state}\"\n\
             [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\nslot = \"lifeboat\"\n{}\n",
            self.recipient,
            if dsn.contains('\n') { dsn.to_owned() } else { format!("dsn = \"{dsn}\"") },
        );
        Lifeboat::new(self.scratch.write(file, config))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.lifeboat.run(arguments)
    }

    fn repository(&self) -> PathBuf {
        self.scratch.join("repository")
    }

    /// Fills a segment and begins the next.
    fn switch(&self) {
        self.cluster.psql("postgres", "INSERT INTO t SELECT repeat('x', 200) FROM generate_series(1, 500)");
        self.cluster.psql("postgres", "SELECT pg_switch_wal()");
    }

    /// Receives everything that the server has written.
    fn receive(&self) {
        let lsn = self.cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
        self.run(&["wal", "receive", "-e", "production", "--until-lsn", &lsn]).ok();
    }

    /// Objects below a folder of the repository, by name.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.repository().join(folder)).sort_by_file_name();
        let files = files.into_iter().filter_map(Result::ok).filter(|e| e.file_type().is_file());
        files.map(walkdir::DirEntry::into_path).collect()
    }

    /// Complete WAL segments.
    fn segments(&self) -> Vec<PathBuf> {
        self.objects("production/wal").into_iter().filter(|p| name(p).len() == 24).collect()
    }

    fn verify(&self) -> Output {
        self.run(&["verify", "-e", "production"])
    }

    fn deep(&self) -> Output {
        self.run(&["verify", "-e", "production", "--deep"])
    }
}

fn keygen(scratch: &Scratch, file: &str) -> String {
    let bare = Lifeboat::new(scratch.write("none.toml", ""));
    let path = scratch.join(file).display().to_string();
    let key = bare.run(&["--format", "json", "keygen", "-o", &path]).ok();
    key.json()["recipient"].as_str().expect("a recipient").to_owned()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// What can happen to an object.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip,
    Truncate,
    Delete,
    /// Its bytes and those of another object change places.
    Swap,
}

/// Does harm, and undoes it when dropped.
struct Harmed(Vec<(PathBuf, Vec<u8>)>);

impl Harmed {
    fn new(harm: Harm, object: &Path, other: &Path) -> Self {
        let saved = |path: &Path| (path.to_owned(), fs::read(path).expect("an object"));
        let (this, that) = (saved(object), saved(other));
        let mut bytes = this.1.clone();
        match harm {
            Harm::Flip => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(object, bytes).expect("written");
            }
            Harm::Truncate => fs::write(object, &bytes[..bytes.len() - 1]).expect("written"),
            Harm::Delete => fs::remove_file(object).expect("deleted"),
            Harm::Swap => {
                fs::write(object, &that.1).expect("written");
                fs::write(other, &bytes).expect("written");
            }
        }
        Self(vec![this, that])
    }
}

impl Drop for Harmed {
    fn drop(&mut self) {
        for (path, bytes) in &self.0 {
            fs::write(path, bytes).expect("put back");
        }
    }
}

#[test]
fn every_kind_of_damage_to_every_kind_of_object_is_found_and_named() {
    use Harm::{Delete, Flip, Swap, Truncate};
    let estate = Estate::filled();
    let sound = estate.deep().ok();
    assert!(sound.stdout.starts_with("sound: production"), "{}", sound.stdout);
    estate.verify().ok();
    estate.run(&["evidence", "verify", "-e", "production"]).ok();

    let one = |folder: &str| {
        let objects = estate.objects(folder);
        (objects[0].clone(), objects[1].clone())
    };
    let (pack, other_pack) = one("production/data");
    let (meta, other_meta) = one("production/meta");
    let (entry, other_entry) = one("production/ledger");
    let checkpoint = estate.repository().join("production/ledger/checkpoint");
    // Both base backups need segments behind this one only from the first on.
    let segments = estate.segments();
    let (segment, other_segment) = (segments[2].clone(), segments[3].clone());
    let piece = estate.objects("production/wal-live").pop().expect("a piece of the segment being written");
    let key = estate.repository().join("keys/1.age");
    let descriptor = estate.repository().join("lifeboat.json");

    // What is harmed, how, with what; whether the shallow run must see it, and the deep run, and the
    // auditor; a word that the first that sees it must say.
    let table: &[(&Path, Harm, &Path, bool, bool, &str)] = &[
        (&pack, Flip, &pack, false, false, "do not match its name"),
        (&pack, Truncate, &pack, true, false, "bytes instead of"),
        (&pack, Delete, &pack, true, false, "missing"),
        (&pack, Swap, &other_pack, true, false, "bytes instead of"),
        (&meta, Flip, &meta, true, false, "damaged"),
        (&meta, Truncate, &meta, true, false, "damaged"),
        (&meta, Delete, &meta, true, false, "missing"),
        (&meta, Swap, &other_meta, true, false, "damaged"),
        (&entry, Flip, &entry, true, true, "00000000000000000001.json"),
        (&entry, Truncate, &entry, true, true, "00000000000000000001.json"),
        (&entry, Delete, &entry, true, true, "missing"),
        (&entry, Swap, &other_entry, true, true, "under another number"),
        (&checkpoint, Flip, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Truncate, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Delete, &checkpoint, true, true, "checkpoint"),
        (&checkpoint, Swap, &entry, true, true, "checkpoint"),
        (&segment, Flip, &segment, false, false, "the seal of a frame is broken"),
        (&segment, Truncate, &segment, true, false, "the ledger recorded"),
        (&segment, Delete, &segment, true, false, "missing WAL segment"),
        (&segment, Swap, &other_segment, false, false, "WAL segment"),
        (&piece, Flip, &piece, false, false, "wal-live"),
        (&key, Flip, &key, true, false, "keys/1.age"),
        (&key, Truncate, &key, true, false, "keys/1.age"),
        (&key, Delete, &key, true, false, "keys/1.age"),
        (&key, Swap, &pack, true, false, "keys/1.age"),
        (&descriptor, Truncate, &descriptor, true, true, "lifeboat.json"),
        (&descriptor, Delete, &descriptor, true, false, "lifeboat.json is missing"),
        (&descriptor, Swap, &entry, true, true, "lifeboat.json"),
    ];
    for (object, harm, other, shallow, auditor, word) in table {
        let place = format!("{harm:?} {}", object.display());
        let _harmed = Harmed::new(*harm, object, other);
        let told = |output: &Output| format!("{}{}", output.stdout, output.stderr);
        let seen = estate.verify();
        assert_eq!(seen.code(), Some(if *shallow { 6 } else { 0 }), "verify, {place}\n{}", told(&seen));
        let deep = estate.deep();
        assert_eq!(deep.code(), Some(6), "verify --deep, {place}\n{}", told(&deep));
        let words = told(if *shallow { &seen } else { &deep });
        assert!(words.contains(word), "{place}: no \"{word}\" in\n{words}");
        let audited = estate.run(&["evidence", "verify", "-e", "production"]);
        if *auditor {
            assert_eq!(audited.code(), Some(6), "evidence verify, {place}\n{}", told(&audited));
        }
    }
    estate.deep().ok();
}

#[test]
fn what_damage_costs_is_said_with_the_backups_concerned() {
    let estate = Estate::filled();
    let bases: Vec<String> = {
        let shown = estate.run(&["--format", "json", "show"]).ok().json();
        let bases = shown["environments"][0]["bases"].as_array().expect("bases").clone();
        bases.iter().map(|b| b["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(bases.len(), 2);
    let needed = |base: usize| {
        let shown = estate.run(&["--format", "json", "show"]).ok().json();
        shown["environments"][0]["bases"][base]["wal"]["last"].as_str().expect("a segment").to_owned()
    };
    let (first, second) = (needed(0), needed(1));
    let segments = estate.segments();
    let between = segments.iter().find(|s| name(s) > first && name(s) < second).expect("one between the bases");

    let harmed = Harmed::new(Harm::Delete, between, &segments[0]);
    let report = estate.run(&["--format", "json", "verify", "-e", "production"]).expect_code(6).json();
    let problems = report["verify"]["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 1, "{report:#}");
    let (what, affects) = (problems[0]["what"].as_str().expect("words"), problems[0]["affects"].to_string());
    assert!(what.contains(&format!("missing WAL segment {} makes", name(between))), "{what}");
    assert!(affects.contains(&format!("from base backup {} nothing behind", bases[0])), "{affects}");
    assert!(!affects.contains(&bases[1]), "the second base does not need it: {affects}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains(&format!("WAL has a hole: segment {} is missing", name(between))), "{shown}");
    assert!(shown.contains("also from"), "two windows: {shown}");
    drop(harmed);

    // A segment that the second base needs itself.
    let own = segments.iter().find(|s| name(s) == second).expect("archived");
    let _harmed = Harmed::new(Harm::Delete, own, &segments[0]);
    let report = estate.run(&["--format", "json", "verify", "-e", "production"]).expect_code(6).json();
    let affects = report["verify"]["problems"].to_string();
    assert!(affects.contains(&format!("base backup {} cannot be restored", bases[1])), "{affects}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("NO: WAL segment"), "{shown}");
    let doctor = estate.run(&["doctor"]).expect_code(6).stdout;
    assert!(doctor.contains(&format!("{} cannot be restored", bases[1])), "{doctor}");
}

#[test]
fn a_deep_verification_without_the_recovery_key_checks_hashes_and_says_so() {
    let estate = Estate::filled();
    let host = estate.with("host.toml", "", &estate.cluster.dsn(), None, "state");
    let report = host.run(&["--format", "json", "verify", "-e", "production", "--deep"]).ok().json();
    let report = &report["verify"];
    assert_eq!((report["opened"].as_bool(), report["checked"]["frames_opened"].as_u64()), (Some(false), Some(0)));
    assert!(report["notes"].to_string().contains("nothing under data/ and wal/ was opened"), "{report:#}");
    let pack = &estate.objects("production/data")[0];
    let _harmed = Harmed::new(Harm::Flip, pack, pack);
    host.run(&["verify", "-e", "production", "--deep"]).expect_code(6);
}

#[test]
fn objects_that_nothing_names_are_counted_and_are_no_damage() {
    let estate = Estate::filled();
    fs::write(estate.repository().join("production/data").join("0".repeat(64)), [0; 5000]).expect("written");
    let verified = estate.deep().ok();
    assert!(verified.stdout.contains("unreferenced: 1 object (4.9 KiB)"), "{}", verified.stdout);
}

#[test]
fn show_answers_first_and_works_with_any_key_and_without_postgresql_or_store() {
    let mut estate = Estate::new();
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.starts_with("production: nothing can be restored – there is no base backup"), "{shown}");
    assert!(shown.contains("lifeboat backup all -e production"), "{shown}");
    estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
    estate.run(&["backup", "base", "-e", "production"]).ok();
    estate.receive();

    let shown = estate.run(&["show", "-e", "production"]).ok().stdout;
    for phrase in [
        "production: can be restored from 20",
        "every second of it",
        "nothing is known to be broken",
        "restore -e production --to latest --pgdata",
        "watermark: none – a part was never backed up",
        "would be lost now: ",
        "base backups\n",
        "timeline 1: 0000000100000000000000",
        "last drill: never",
        "PostgreSQL: running, at 0/",
        "slot lifeboat: NOBODY RECEIVES WAL; reserved, PostgreSQL keeps",
    ] {
        assert!(shown.contains(phrase), "no \"{phrase}\" in\n{shown}");
    }
    let only_index_key = estate.with("host.toml", "", &estate.cluster.dsn(), None, "state");
    let only_identity = estate.with("clean.toml", "", &estate.cluster.dsn(), Some("recovery.key"), "no-state");
    let unmounted = estate.with("unmounted.toml", "", &estate.cluster.dsn(), Some("absent.key"), "state");
    for lifeboat in [only_index_key, only_identity, unmounted] {
        let shown = lifeboat.run(&["show"]).ok().stdout;
        assert!(shown.contains("can be restored from"), "{shown}");
    }

    // The store is away: what PostgreSQL holds back is told all the same, and nothing is claimed of the rest.
    for _ in 0..3 {
        estate.switch();
    }
    let hidden = estate.scratch.join("hidden");
    fs::rename(estate.repository(), &hidden).expect("moved away");
    let away = estate.run(&["show"]).expect_code(5).stdout;
    assert!(away.contains("what can be restored is not known") && !away.contains("last drill"), "{away}");
    assert!(away.contains("PostgreSQL keeps 3.0 MiB for it"), "{away}");
    let doctor = estate.run(&["doctor"]).expect_code(5).stdout;
    assert!(doctor.contains("FAIL     store: ") && doctor.contains("PostgreSQL keeps 3.0 MiB"), "{doctor}");
    fs::rename(&hidden, estate.repository()).expect("moved back");

    estate.cluster.stop();
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("can be restored from"), "{shown}");
    assert!(shown.contains("PostgreSQL: not reachable, so its slot and its WAL are not known"), "{shown}");
}

#[test]
fn an_auditor_needs_a_copy_and_nothing_else() {
    let estate = Estate::filled();
    let copy = estate.scratch.join("copy");
    for object in walkdir::WalkDir::new(estate.repository()).into_iter().filter_map(Result::ok) {
        let to = copy.join(object.path().strip_prefix(estate.repository()).expect("below"));
        if object.file_type().is_dir() {
            fs::create_dir_all(to).expect("a folder");
        } else if !object.path().to_string_lossy().contains("/data/") {
            fs::copy(object.path(), to).expect("copied");
        }
    }
    let auditor = Lifeboat::new(estate.scratch.join("there-is-no-configuration.toml"));
    let copy = copy.display().to_string();
    let arguments = ["evidence", "verify", "-e", "production", "--repository", &copy];
    let proven = auditor.run(&arguments).ok();
    assert!(proven.stdout.starts_with("proven: every one of the"), "{}", proven.stdout);
    assert!(proven.stdout.contains("signed by "), "{}", proven.stdout);

    let rows = auditor.run(&["evidence", "show", "-e", "production", "--repository", &copy]).ok().stdout;
    assert!(rows.contains("base backup") && rows.contains("restorable from"), "{rows}");
    let show = ["evidence", "show", "-e", "production", "--repository", &copy, "--sequence", "1"];
    let entry = auditor.run(&show).ok().json();
    assert_eq!(entry["statement"]["predicate"]["body"]["kind"], "base_backup", "{entry:#}");
    auditor.run(&["evidence", "verify", "-e", "staging", "--repository", &copy]).expect_code(5);
    auditor.run(&["evidence", "verify", "-e", "production", "--repository", "/nowhere"]).expect_code(5);

    // Who was handed a key relies on that key alone.
    let descriptor = fs::read(Path::new(&copy).join("lifeboat.json")).expect("there");
    let descriptor: serde_json::Value = serde_json::from_slice(&descriptor).expect("JSON");
    let key = |signer: usize| descriptor["signers"][signer]["key"].as_str().expect("a key").to_owned();
    auditor.run(&[&arguments[..], &["--key", &key(0)]].concat()).ok();
    auditor.run(&[&arguments[..], &["--key", &key(1)]].concat()).expect_code(6);
    auditor.run(&[&arguments[..], &["--key", "nonsense"]].concat()).expect_code(2);

    let entry = Path::new(&copy).join("production/ledger/00000000000000000001.json");
    let _harmed = Harmed::new(Harm::Flip, &entry, &entry);
    let refuted = auditor.run(&arguments).expect_code(6);
    assert!(refuted.stdout.starts_with("NOT PROVEN:") && refuted.stdout.contains("entry 1:"), "{}", refuted.stdout);
}

/// The finding called `name`, as `state: words`.
fn finding(doctor: &Output, name: &str) -> String {
    let json = doctor.json();
    let findings = json["findings"].as_array().expect("a list");
    let of = findings.iter().filter(|f| f["name"] == name).map(|f| {
        let to_do = f["to_do"].as_array().expect("a list").iter().map(|t| t.to_string()).collect::<String>();
        format!("{}: {} {to_do}", f["state"].as_str().unwrap_or_default(), f["words"].as_str().unwrap_or_default())
    });
    let of: Vec<String> = of.collect();
    assert!(!of.is_empty(), "no finding {name} in {json:#}");
    of.join("\n")
}

#[test]
fn doctor_finds_nothing_wrong_where_nothing_is() {
    let estate = Estate::filled();
    let mut receiver = estate.lifeboat.spawn(&["wal", "receive", "-e", "production"]);
    wait_until("the receiver streams", Duration::from_secs(30), || {
        assert!(receiver.is_running(), "{}", receiver.stderr());
        estate.cluster.psql("postgres", "SELECT count(*) FROM pg_replication_slots WHERE active") == "1"
    });
    let doctor = estate.run(&["--format", "json", "doctor"]).ok();
    for name in [
        "configuration",
        "state directory",
        "store",
        "repository",
        "recovery identity",
        "host keys",
        "PostgreSQL session",
        "replication session",
        "PostgreSQL version",
        "wal_level",
        "max_wal_senders",
        "data_checksums",
        "full_page_writes",
        "clocks",
        "slot",
        "ledger",
        "base backup",
        "programs for a restore",
    ] {
        let told = finding(&doctor, name);
        assert!(told.starts_with("ok: "), "{name}: {told}");
    }
    let text = estate.run(&["doctor"]).ok().stdout;
    assert!(text.contains("ok       PostgreSQL session: SQL works"), "{text}");
    assert!(text.contains("max_slot_wal_keep_size: unlimited"), "{text}");
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let estate = Estate::new();
    let doctor = |lifeboat: &Lifeboat| lifeboat.run(&["--format", "json", "doctor"]);

    estate.scratch.write("password", "wrong");
    set_private(&estate.scratch.join("password"));
    let dsn = format!("dsn = \"{}\"\npassword = {{ file = \"password\" }}", estate.cluster.tcp_dsn());
    let refused = doctor(&estate.with("password.toml", "", &dsn, Some("recovery.key"), "state")).expect_code(4);
    let told = finding(&refused, "PostgreSQL session");
    assert!(told.starts_with("fail: ") && told.contains("password"), "{told}");

    estate.cluster.psql("postgres", "CREATE ROLE reader LOGIN");
    let dsn = estate.cluster.dsn_for("postgres", "reader");
    let refused = doctor(&estate.with("reader.toml", "", &dsn, Some("recovery.key"), "state")).expect_code(4);
    assert!(finding(&refused, "PostgreSQL session").starts_with("ok: "));
    let told = finding(&refused, "replication session");
    assert!(told.starts_with("fail: ") && told.contains("REPLICATION"), "{told}");

    let absent = doctor(&estate.with("absent.toml", "", "host=/nowhere user=x", Some("recovery.key"), "state"));
    assert!(finding(&absent.expect_code(4), "PostgreSQL session").starts_with("fail: "));

    let dead =
        format!("url = \"s3://estate/x\"\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"", free_port());
    let down = doctor(&estate.with("down.toml", &dead, &estate.cluster.dsn(), None, "state")).expect_code(5);
    assert!(finding(&down, "store").starts_with("fail: "));
    assert!(finding(&down, "PostgreSQL session").starts_with("ok: "), "the rest is examined all the same");

    keygen(&estate.scratch, "other.key");
    let wrong = doctor(&estate.with("wrong.toml", "", &estate.cluster.dsn(), Some("other.key"), "state"));
    let told = finding(&wrong.expect_code(10), "recovery identity");
    assert!(told.starts_with("fail: ") && told.contains("does not open"), "{told}");

    let missing = doctor(&estate.with("missing.toml", "", &estate.cluster.dsn(), Some("absent.key"), "state"));
    assert!(finding(&missing.expect_code(3), "recovery identity").contains("absent.key"));

    estate.scratch.write("broken.toml", "[repository]\n");
    let broken = doctor(&Lifeboat::new(estate.scratch.join("broken.toml"))).expect_code(3);
    assert!(finding(&broken, "configuration").starts_with("fail: "));

    let stranger = doctor(&estate.with("stranger.toml", "", &estate.cluster.dsn(), None, "no-state"));
    assert!(finding(&stranger.expect_code(3), "host keys").contains("holds no keys"));
}

#[test]
fn doctor_knows_another_cluster_and_a_lost_slot() {
    let estate = Estate::new();
    estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
    estate.run(&["backup", "base", "-e", "production"]).ok();
    estate.receive();
    let other = Cluster::builder(&estate.scratch).name("other").start();
    let doctor = |lifeboat: &Lifeboat| lifeboat.run(&["--format", "json", "doctor"]);
    let confused = doctor(&estate.with("other.toml", "", &other.dsn(), Some("recovery.key"), "state")).expect_code(6);
    assert!(finding(&confused, "system identifier").contains("this is another cluster"));

    estate.cluster.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    estate.cluster.psql("postgres", "ALTER SYSTEM SET max_wal_size = '2MB'");
    estate.cluster.psql("postgres", "SELECT pg_reload_conf()");
    let status = || {
        estate.switch();
        estate.cluster.psql("postgres", "CHECKPOINT");
        estate.cluster.psql("postgres", "SELECT wal_status FROM pg_replication_slots")
    };
    wait_until("PostgreSQL gives the slot up", Duration::from_secs(60), || status() == "lost");
    let lost = doctor(&estate.lifeboat).expect_code(4);
    let told = finding(&lost, "slot");
    assert!(told.starts_with("fail: ") && told.contains("take a base backup now"), "{told}");
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("take a base backup now"), "{shown}");
}

#[test]
fn doctor_removes_what_killed_writers_left_behind_a_day_ago() {
    let estate = Estate::new();
    let folder = estate.repository().join("production/data");
    fs::create_dir_all(&folder).expect("a folder");
    let (old, new) = (folder.join(format!("{}#1", "a".repeat(64))), folder.join(format!("{}#2", "b".repeat(64))));
    for file in [&old, &new] {
        fs::write(file, [0; 2048]).expect("written");
    }
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    fs::File::options().write(true).open(&old).expect("there").set_modified(two_days_ago).expect("set");
    let doctor = estate.run(&["--format", "json", "doctor"]).ok();
    assert!(finding(&doctor, "leftovers").contains("1 unfinished file of killed writers removed (2.0 KiB)"));
    assert!(!old.exists() && new.exists());
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("own file");
}

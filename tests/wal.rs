//! WAL on its way: received, pushed, fetched, and what happens when something on that way breaks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{
    Cluster, FlakyProxy, Journal, Lifeboat, Moto, Running, Scratch, own, pgbench_init, pgbench_run, skip, tool,
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// An estate whose repository holds one environment, `production`.
struct Estate {
    scratch: Scratch,
    lifeboat: Lifeboat,
}

impl Estate {
    /// With a repository in a folder.
    fn in_folder(scratch: &Scratch, cluster: &Cluster) -> Self {
        Self::with(scratch, &format!("url = \"file://{}\"", scratch.join("repository").display()), &cluster.dsn())
    }

    fn with(scratch: &Scratch, repository: &str, dsn: &str) -> Self {
        let bare = Lifeboat::new(scratch.write("none.toml", ""));
        let key =
            bare.run(&["--format", "json", "keygen", "-o", &scratch.join("recovery.key").display().to_string()]).ok();
        let recipient = key.json()["recipient"].as_str().expect("a recipient").to_owned();
        let config = format!(
            "[repository]\n{repository}\nretry_for = \"3s\"\n[keys]\nrecipients = [\"{recipient}\"]\n\
             identity = {{ file = \"recovery.key\" }}\nstate_dir = \"state\"\n\
             [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"{dsn}\"\nslot = \"lifeboat\"\nheartbeat = \"1s\"\n",
        );
        let lifeboat = Lifeboat::new(scratch.write("lifeboat.toml", config));
        let estate = Self { scratch: scratch.clone(), lifeboat };
        fs::create_dir_all(scratch.join("repository")).expect("a folder");
        estate.lifeboat.run(&["init"]).ok();
        estate
    }

    fn receive(&self) -> Running {
        self.lifeboat.spawn(&["wal", "receive", "-e", "production"])
    }

    fn receive_until(&self, lsn: &str) -> serde_json::Value {
        let arguments = ["--format", "json", "wal", "receive", "-e", "production", "--until-lsn", lsn];
        self.lifeboat.run(&arguments).ok().json()
    }

    /// Exit code of `wal fetch` and the path that it was to write.
    fn fetch(&self, name: &str) -> (i32, PathBuf) {
        let to = self.scratch.join(format!("fetched-{name}"));
        let code = self.lifeboat.run(&["wal", "fetch", "-e", "production", name, to.to_str().expect("UTF-8")]);
        (code.code().expect("an exit code"), to)
    }

    #[track_caller]
    fn fetched(&self, name: &str) -> Vec<u8> {
        let (code, path) = self.fetch(name);
        assert_eq!(code, 0, "{name}");
        fs::read(path).expect("a file")
    }

    fn push(&self, path: &Path) -> crate::common::Output {
        self.lifeboat.run(&["wal", "push", "-e", "production", path.to_str().expect("UTF-8")])
    }

    /// Files below a folder of the repository, by name.
    fn stored(&self, prefix: &str) -> Vec<String> {
        let folder = self.scratch.join("repository/production").join(prefix);
        let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
        files.filter(|f| f.file_type().is_file()).map(|f| f.file_name().to_string_lossy().into_owned()).collect()
    }
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

fn switch(cluster: &Cluster) {
    cluster.psql("postgres", "SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()");
}

fn current(cluster: &Cluster) -> String {
    cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()")
}

#[test]
fn what_is_received_is_what_postgresql_wrote() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("wal_keep_size = 1GB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
    let begin = cluster.psql("postgres", "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots");
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    switch(&cluster);
    cluster.psql("postgres", "INSERT INTO pgbench_history (tid) VALUES (1)");
    let end = current(&cluster);
    let received = estate.receive_until(&end);
    assert_eq!(received["received"]["reached"], true);
    assert!(received["received"]["segments"].as_u64() > Some(1), "{received}");
    assert!(estate.stored("wal/00000001").contains(&begin));
    for name in estate.stored("wal/00000001") {
        let original = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("kept");
        assert!(estate.fetched(&name) == original, "{name} differs");
    }
    // The segment being written: its pieces, padded.
    let live = cluster.psql("postgres", &format!("SELECT pg_walfile_name('{end}')"));
    let piece = estate.fetched(&live);
    let written = (lsn(&end) % (16 << 20)) as usize;
    let original = fs::read(cluster.data_dir().join("pg_wal").join(&live)).expect("there");
    assert_eq!(piece.len(), 16 << 20);
    assert!(piece[..written] == original[..written], "{live} differs");
}

impl Estate {
    /// Every complete segment from the first archived one on is there, up to `end`, as PostgreSQL wrote it;
    /// so is the part of the segment being written.
    #[track_caller]
    fn assert_holds(&self, cluster: &Cluster, first: &str, end: &str) {
        let size = cluster.psql("postgres", "SELECT pg_size_bytes(current_setting('wal_segment_size'))");
        let (size, end) = (size.parse::<u64>().expect("a number"), lsn(end));
        let (timeline, per_log) = (&first[..8], (1 << 32) / size);
        let number = |name: &str| {
            let part = |range| u64::from_str_radix(&name[range], 16).expect("hex");
            part(8..16) * per_log + part(16..24)
        };
        let last = (end - 1) / size;
        let mut checked = 0;
        for segment in number(first)..=last {
            let name = format!("{timeline}{:08X}{:08X}", segment / per_log, segment % per_log);
            let original = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("kept by wal_keep_size");
            let fetched = self.fetched(&name);
            assert_eq!(fetched.len(), original.len(), "{name}");
            let length = if segment == last { (end - 1) % size + 1 } else { size } as usize;
            assert!(fetched[..length] == original[..length], "{name} differs");
            checked += 1;
        }
        assert!(checked > 0, "{first} lies behind");
    }

    fn cluster_with_slot(scratch: &Scratch, segment_mib: u32) -> (Cluster, String) {
        let builder =
            Cluster::builder(scratch).wal_segment_mib(segment_mib).config("max_wal_size = 4GB\nwal_keep_size = 2GB");
        let cluster = builder.start();
        cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
        let first = cluster.psql("postgres", "SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots");
        (cluster, first)
    }
}

/// What PostgreSQL was told to be safe.
fn flushed(cluster: &Cluster) -> Option<String> {
    let sql = "SELECT flush_lsn FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn IS NOT NULL";
    Some(cluster.psql("postgres", sql)).filter(|text| !text.is_empty())
}

#[track_caller]
fn wait_flushed(cluster: &Cluster, at_least: &str) {
    wait_until(&format!("{at_least} is durable"), PATIENCE, || {
        flushed(cluster).is_some_and(|f| lsn(&f) >= lsn(at_least))
    });
}

#[test]
fn a_receiver_that_is_killed_again_and_again_loses_nothing() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    let estate = Estate::in_folder(&scratch, &cluster);
    assert!(pgbench_init(&cluster, "postgres", 1), "pgbench");
    let load = pgbench_run(&scratch, &cluster, "postgres", 2, 600);
    for pause in [400, 50, 900, 10, 600, 200] {
        let receiver = estate.receive();
        let begin = current(&cluster);
        wait_flushed(&cluster, &begin);
        std::thread::sleep(Duration::from_millis(pause)); // a moment that nothing announces
        let told = flushed(&cluster).expect("streaming");
        receiver.kill9();
        // What was told to be flushed is there, though the receiver is not.
        estate.assert_holds(&cluster, &cluster.psql("postgres", &format!("SELECT pg_walfile_name('{told}')")), &told);
    }
    drop(load);
    let end = current(&cluster);
    estate.receive_until(&end);
    estate.assert_holds(&cluster, &first, &end);
    assert!(estate.stored("wal/00000001").len() > 5);
    if let Some(waldump) = tool(cluster.major(), "pg_waldump") {
        let folder = scratch.join("waldump");
        fs::create_dir(&folder).expect("a folder");
        let names = estate.stored("wal/00000001");
        for name in &names {
            fs::write(folder.join(name), estate.fetched(name)).expect("a file");
        }
        let read =
            Command::new(waldump).arg("-q").arg("-p").arg(&folder).args([&names[0], &names[names.len() - 2]]).output();
        let read = read.expect("pg_waldump");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn segments_of_64_mib_are_received_too() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 64);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 100000) g");
    switch(&cluster);
    cluster.psql("postgres", "CREATE TABLE u AS SELECT * FROM t");
    let end = current(&cluster);
    wait_flushed(&cluster, &end);
    receiver.signal(Signal::SIGTERM);
    let stopped = receiver.wait(PATIENCE).ok();
    assert!(stopped.peak_rss < 256 << 20, "{}", stopped.peak_rss);
    estate.assert_holds(&cluster, &first, &end);
}

#[test]
fn a_service_that_is_stopped_leaves_everything_in_order() {
    let scratch = Scratch::new();
    let (mut cluster, first) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    // PostgreSQL restarts; the receiver comes back by itself.
    cluster.restart();
    switch(&cluster);
    wait_flushed(&cluster, &current(&cluster));
    assert!(receiver.stderr().contains("no WAL comes from PostgreSQL"), "{}", receiver.stderr());
    // The second one is refused, with the reason.
    let second = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(10);
    assert!(second.stderr.contains("another receiver uses the replication slot"), "{}", second.stderr);
    receiver.signal(Signal::SIGTERM);
    let stopped = receiver.wait(PATIENCE).ok();
    assert!(stopped.stdout.contains("is durable in the repository"), "{}", stopped.stdout);
    let end = flushed_by_slot(&cluster);
    estate.assert_holds(&cluster, &first, &end);
    let ledger = estate.lifeboat.run(&["--format", "json", "evidence", "show", "-e", "production"]).ok().stdout;
    assert!(ledger.contains("wal_range"), "{ledger}");
    let verified = estate.lifeboat.run(&["verify", "-e", "production", "--deep"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
}

fn flushed_by_slot(cluster: &Cluster) -> String {
    cluster.psql("postgres", "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'lifeboat'")
}

#[test]
fn an_idle_cluster_beats_and_its_pieces_stay_few() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    wait_flushed(&cluster, &current(&cluster));
    let before = lsn(&current(&cluster));
    wait_until("heartbeats are durable", PATIENCE, || lsn(&flushed(&cluster).expect("streaming")) > before + 300);
    for _ in 0..40 {
        cluster.psql("postgres", "SELECT pg_logical_emit_message(true, 'test', 'x')");
        wait_flushed(&cluster, &current(&cluster));
    }
    let end = flushed(&cluster).expect("streaming");
    assert!(estate.stored("wal-live").len() < 34, "{:?}", estate.stored("wal-live"));
    receiver.kill9();
    estate.assert_holds(&cluster, &cluster.psql("postgres", &format!("SELECT pg_walfile_name('{end}')")), &end);
}

#[test]
fn a_store_that_is_away_costs_time_and_nothing_else() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("LIFEBOAT_TEST_MOTO is not set") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    cluster.psql("postgres", "ALTER SYSTEM SET wal_sender_timeout = '2s'");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    let repository = format!(
        "url = \"s3://estate/x\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key_id = {{ env = \"AWS_ACCESS_KEY_ID\" }}\nsecret_access_key = {{ env = \"AWS_SECRET_ACCESS_KEY\" }}",
        proxy.endpoint()
    );
    let estate = Estate::with(&scratch, &repository, &cluster.dsn());
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    let walsender = "SELECT pid FROM pg_stat_replication WHERE application_name = 'lifeboat'";
    let pid = cluster.psql("postgres", walsender);
    proxy.cut();
    let before = flushed(&cluster).expect("streaming");
    cluster.psql("postgres", "INSERT INTO t SELECT generate_series(1, 200000)");
    let end = current(&cluster);
    // Longer than wal_sender_timeout and than retry_for.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(cluster.psql("postgres", walsender), pid, "PostgreSQL heard from the receiver all the time");
    let now = flushed(&cluster).expect("streaming");
    assert!(lsn(&now) < lsn(&before) + (2 << 20), "{now} cannot be durable");
    // What does not fit into memory stays with PostgreSQL; a fetch now is an error and no absence.
    let (code, path) = estate.fetch(&first);
    assert!(code > 125 && !path.exists(), "{code}");
    proxy.restore();
    wait_flushed(&cluster, &end);
    assert!(receiver.stderr().contains("the store failed"), "{}", receiver.stderr());
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    estate.assert_holds(&cluster, &first, &end);
}

#[test]
fn a_store_that_refuses_ends_the_receiver_and_says_who_keeps_the_wal() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    cluster.psql("postgres", "CREATE TABLE t (i int)");
    wait_flushed(&cluster, &current(&cluster));
    fs::rename(scratch.join("repository"), scratch.join("elsewhere")).expect("a folder");
    fs::write(scratch.join("repository"), "a file where the folder was").expect("a file");
    cluster.psql("postgres", "INSERT INTO t VALUES (1)");
    let ended = receiver.wait(PATIENCE).expect_code(5);
    assert!(ended.stderr.contains("keeps its WAL in slot \"lifeboat\" from"), "{}", ended.stderr);
}

#[test]
fn a_promoted_standby_is_followed_and_the_old_primary_is_not() {
    let scratch = Scratch::new();
    let (mut cluster, first) = Estate::cluster_with_slot(&scratch, 1);
    let Some(standby) = cluster.standby("standby") else { skip!("no pg_basebackup") };
    let estate = Estate::in_folder(&scratch, &cluster);
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 50000) i");
    estate.receive_until(&current(&cluster));
    cluster.psql("postgres", "INSERT INTO t SELECT generate_series(1, 20000)");
    let end = current(&cluster);
    wait_until("the standby has all", PATIENCE, || {
        standby.psql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    cluster.kill9();
    standby.promote();
    standby.psql("postgres", "INSERT INTO t SELECT generate_series(1, 50000)");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &standby.dsn()));
    let end_of_two = current(&standby);
    let received = estate.receive_until(&end_of_two);
    assert_eq!(received["received"]["timeline"], 2);
    assert!(estate.stored("wal/00000002").contains(&"00000002.history".to_owned()));
    let history = fs::read(standby.data_dir().join("pg_wal/00000002.history")).expect("there");
    assert_eq!(estate.fetched("00000002.history"), history);
    let history = String::from_utf8(history).expect("text");
    let switch = history.split_whitespace().nth(1).expect("a position").to_owned();
    // The old timeline is there to its very end, the new one from the segment of the switch on.
    let of_old = format!("SELECT '00000001' || substr(pg_walfile_name('{switch}'), 9)");
    let (old, new) =
        (standby.psql("postgres", &of_old), standby.psql("postgres", &format!("SELECT pg_walfile_name('{switch}')")));
    let length = (lsn(&switch) % (1 << 20)) as usize;
    assert!(estate.fetched(&old)[..length] == estate.fetched(&new)[..length]);
    assert!(estate.stored("wal/00000001").contains(&first));
    estate.assert_holds(&standby, &new, &end_of_two);
    // The old primary comes back and goes on alone.
    cluster.start();
    cluster.psql("postgres", "INSERT INTO t VALUES (0)");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&standby.dsn(), &cluster.dsn()));
    let refused = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(6);
    assert!(refused.stderr.contains("was left at"), "{}", refused.stderr);
}

#[test]
fn the_wal_of_another_cluster_is_refused() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let other = Cluster::builder(&scratch).name("other").wal_segment_mib(1).start();
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    let segment = other.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    switch(&other);
    let before = estate.stored("wal");
    let refused = estate.push(&other.data_dir().join("pg_wal").join(&segment)).expect_code(6);
    assert!(refused.stderr.contains("another cluster"), "{}", refused.stderr);
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &other.dsn()));
    for command in [["wal", "receive"], ["backup", "base"]] {
        let refused = estate.lifeboat.run(&[command[0], command[1], "-e", "production"]).expect_code(6);
        assert!(refused.stderr.contains("another cluster"), "{}", refused.stderr);
    }
    assert_eq!(estate.stored("wal"), before);
    assert!(estate.stored("data").is_empty());
}

#[test]
fn a_cluster_that_diverged_overwrites_nothing() {
    let scratch = Scratch::new();
    let (mut cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let estate = Estate::in_folder(&scratch, &cluster);
    let data = cluster.data_dir().to_owned();
    cluster.stop();
    let copy = scratch.server_dir("copy").join("data");
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&copy).status().expect("cp");
    assert!(copied.success());
    own(&copy);
    cluster.start();
    cluster.psql("postgres", "CREATE TABLE a AS SELECT 1 AS i");
    let end = current(&cluster);
    estate.receive_until(&end);
    let before = estate.stored("wal-live");
    cluster.stop();
    // A clone of the same cluster goes another way from the same position.
    let conf = copy.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("there");
    fs::write(&conf, format!("{text}\nunix_socket_directories = '{}'\n", scratch.join("copy").display()))
        .expect("there");
    let clone = Cluster::adopt(&scratch, &copy, cluster.major());
    clone.psql("postgres", "CREATE TABLE b AS SELECT generate_series(1, 1000) AS i");
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("there");
    scratch.write("lifeboat.toml", config.replace(&cluster.dsn(), &clone.dsn()));
    let refused = estate.lifeboat.run(&["wal", "receive", "-e", "production"]).expect_code(6);
    assert!(refused.stderr.contains("with other content"), "{}", refused.stderr);
    assert_eq!(estate.stored("wal-live"), before);
}

#[test]
fn removed_wal_is_a_gap_that_is_told_and_not_hidden() {
    let scratch = Scratch::new();
    let cluster =
        Cluster::builder(&scratch).wal_segment_mib(1).config("min_wal_size = 2MB\nmax_wal_size = 4MB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    cluster.psql("postgres", "SELECT pg_drop_replication_slot('lifeboat')");
    for _ in 0..20 {
        switch(&cluster);
    }
    cluster.psql("postgres", "CHECKPOINT");
    cluster.psql("postgres", "CHECKPOINT");
    let output = estate.lifeboat.run(&["wal", "receive", "-e", "production", "--until-lsn", &current(&cluster)]).ok();
    assert!(output.stderr.contains("removed WAL before it was archived"), "{}", output.stderr);
    let ledger = estate.lifeboat.run(&["--format", "json", "evidence", "show", "-e", "production"]).ok().stdout;
    assert!(ledger.contains("removed WAL before it was archived"), "{ledger}");
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    let names = estate.stored("wal/00000001");
    let last = u64::from_str_radix(&names[names.len() - 1][16..], 16).expect("hex");
    let first = u64::from_str_radix(&names[0][16..], 16).expect("hex");
    assert!(last - first + 1 > names.len() as u64, "there is a gap: {names:?}");
}

#[test]
fn push_is_idempotent_and_never_replaces() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("wal_keep_size = 1GB").start();
    let estate = Estate::in_folder(&scratch, &cluster);
    let name = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let path = cluster.data_dir().join("pg_wal").join(&name);
    let unfinished = estate.push(&path).expect_code(6);
    assert!(unfinished.stderr.contains("not complete"), "{}", unfinished.stderr);
    switch(&cluster);
    assert!(estate.push(&path).ok().stdout.contains("archived,"));
    assert!(estate.push(&path).ok().stdout.contains("same content"));
    let original = fs::read(&path).expect("there");
    assert!(estate.fetched(&name) == original);
    // Same name, other content: sound or not, it is refused and the first stays.
    let mut damaged = original.clone();
    damaged[100_000] ^= 1;
    let copy = scratch.write(&format!("copy/{name}"), &damaged);
    assert_eq!(estate.push(&copy).code(), Some(6));
    let history = scratch.write("00000002.history", "1\t0/3000000\tno reason\n");
    estate.push(&history).ok();
    estate.push(&history).ok();
    scratch.write("00000002.history", "1\t0/4000000\tno reason\n");
    assert_eq!(estate.push(&history).code(), Some(6));
    assert_eq!(estate.fetched("00000002.history"), b"1\t0/3000000\tno reason\n");
    assert!(estate.fetched(&name) == original);
    // A wrong name for a right file.
    let renamed = scratch.write("copy/00000001000000000000000F", &original);
    assert_eq!(estate.push(&renamed).code(), Some(6));
    assert_eq!(estate.push(&scratch.write("nonsense", "x")).code(), Some(2));
}

#[test]
fn only_a_proven_absence_is_exit_code_1() {
    let scratch = Scratch::new();
    let (cluster, first) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    switch(&cluster);
    estate.receive_until(&current(&cluster));
    assert_eq!(estate.fetch(&first).0, 0);
    for absent in ["0000000100000000000000FF", "00000009.history", "0000000100000000000000FF.00000028.backup"] {
        let (code, path) = estate.fetch(absent);
        assert!(code == 1 && !path.exists(), "{absent}: {code}");
    }
    assert_eq!(estate.fetch("nonsense").0, 130);
    assert_eq!(estate.lifeboat.run(&["wal", "fetch", "-e", "production", &first]).code(), Some(130));
    assert_eq!(estate.lifeboat.run(&["wal", "fetch", "-e", "nobody", &first, "x"]).code(), Some(130));
    // Damage.
    let stored = scratch.join("repository/production/wal/00000001").join(&first);
    let mut bytes = fs::read(&stored).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&stored).expect("there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&stored, permissions).expect("own file");
    fs::write(&stored, bytes).expect("own file");
    fs::remove_file(scratch.join(format!("fetched-{first}"))).expect("fetched before");
    let (code, path) = estate.fetch(&first);
    assert!(code == 134 && !path.exists(), "{code}");
    // A key of somebody else.
    let key = scratch.join("recovery.key");
    let right = fs::read(&key).expect("there");
    fs::remove_file(&key).expect("there");
    estate.lifeboat.run(&["keygen", "-o", key.to_str().expect("UTF-8")]).ok();
    assert_eq!(estate.fetch("00000009.history").0, 138);
    fs::write(&key, right).expect("own file");
    // The folder is gone, as an unmounted disk.
    fs::rename(scratch.join("repository"), scratch.join("elsewhere")).expect("a folder");
    let (code, _) = estate.fetch("00000009.history");
    assert!(code > 125, "{code}");
}

#[test]
fn a_base_backup_alone_can_be_restored() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::in_folder(&scratch, &cluster);
    assert!(pgbench_init(&cluster, "postgres", 2), "pgbench");
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(20);
    let before = journal.acknowledged().len();
    let backup = estate.lifeboat.run(&["--format", "json", "backup", "base", "-e", "production"]).ok().json();
    journal.stop();
    let wal = &backup["base_backup"]["wal"];
    let stored = estate.stored("wal/00000001");
    for end in ["first", "last"] {
        assert!(stored.contains(&wal[end].as_str().expect("a name").to_owned()), "{wal} {stored:?}");
    }
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0", "nothing is left behind");
    let restored = restore(&estate, &cluster, "restored");
    let rows: usize = restored.psql("postgres", "SELECT count(*) FROM journal").parse().expect("a number");
    assert!(rows >= before, "{rows} of {before}");
    assert_eq!(restored.psql("postgres", "SELECT count(*) FROM pgbench_accounts"), "200000");
}

/// Restores the latest point into a new cluster.
fn restore(estate: &Estate, cluster: &Cluster, name: &str) -> Cluster {
    let home = estate.scratch.server_dir(name);
    let data = home.join("data");
    let data_text = data.to_str().expect("UTF-8");
    estate.lifeboat.run(&["restore", "-e", "production", "--to", "latest", "--pgdata", data_text]).ok();
    let auto = data.join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto).unwrap_or_default();
    fs::write(&auto, format!("{text}\nunix_socket_directories = '{}'\n", home.display())).expect("own file");
    own(&data);
    Cluster::adopt(&estate.scratch, &data, cluster.major())
}

#[test]
fn a_base_backup_relies_on_a_receiver_that_runs() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 16);
    let estate = Estate::in_folder(&scratch, &cluster);
    let receiver = estate.receive();
    wait_flushed(&cluster, &current(&cluster));
    let backup = estate.lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    assert!(!backup.stderr.contains("receiving WAL"), "{}", backup.stderr);
    drop(receiver);
    assert_eq!(restore(&estate, &cluster, "restored").psql("postgres", "SELECT 1"), "1");
}

#[test]
fn a_base_backup_of_a_standby_has_the_wal_it_needs() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let Some(standby) = cluster.standby("standby") else { skip!("no pg_basebackup") };
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT");
    let end = current(&cluster);
    wait_until("the standby has all", PATIENCE, || {
        standby.psql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    let repository = format!("url = \"file://{}\"", scratch.join("repository").display());
    let estate = Estate::with(&scratch, &repository, &standby.dsn());
    estate.lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    let restored = restore(&estate, &cluster, "restored");
    assert_eq!(restored.psql("postgres", "SELECT count(*) FROM t"), "1000");
}

#[test]
fn postgresql_recovers_through_wal_fetch() {
    let scratch = Scratch::new();
    let (cluster, _) = Estate::cluster_with_slot(&scratch, 1);
    let Some(basebackup) = tool(cluster.major(), "pg_basebackup") else { skip!("no pg_basebackup") };
    let estate = Estate::in_folder(&scratch, &cluster);
    let home = scratch.server_dir("recovered");
    let data = home.join("data");
    let arguments = ["-X", "none", "-c", "fast", "-d", &cluster.dsn()];
    let copied = Command::new(basebackup).arg("-D").arg(&data).args(arguments).status().expect("pg_basebackup");
    assert!(copied.success());
    let receiver = estate.receive();
    let journal = Journal::start(&cluster, "postgres");
    journal.wait_for(200);
    let journal = journal.stop();
    wait_flushed(&cluster, &current(&cluster));
    receiver.signal(Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    // The server's account runs the program: everything it needs must be its own.
    let program = scratch.join("lifeboat");
    fs::copy(Lifeboat::program(), &program).expect("a copy of the program");
    for path in ["repository", "state", "recovery.key", "recovered", "lifeboat.toml"] {
        own(&scratch.join(path));
    }
    let conf = data.join("postgresql.auto.conf");
    let fetch =
        format!("{} -c {} wal fetch -e production %f %p", program.display(), scratch.join("lifeboat.toml").display());
    fs::write(
        &conf,
        format!(
            "restore_command = '{fetch}'\nunix_socket_directories = '{}'\nrecovery_target_timeline = 'latest'\n",
            home.display()
        ),
    )
    .expect("own file");
    fs::write(data.join("recovery.signal"), "").expect("own file");
    own(&data);
    let recovered = Cluster::adopt(&scratch, &data, cluster.major());
    wait_until("recovery ends", PATIENCE, || recovered.psql("postgres", "SELECT pg_is_in_recovery()") == "f");
    let rows = recovered.psql("postgres", "SELECT count(*) FROM journal").parse::<usize>().expect("a number");
    assert_eq!(rows, journal.acknowledged.len(), "every acknowledged commit");
}

//! A soak: load, a base backup every few seconds, receivers and backups killed at random, and all the while restores
//! to random times and positions, each of which must hold exactly the commits that the clients' journal has up to
//! there. What random choices are made follows from a seed, which is printed.
//!
//! `service.rs` is another one, of `lifeboat serve`.
//!
//! Takes minutes and is run on request: `LIFEBOAT_SOAK_SECONDS=300 ./deploy/test.sh --soak`; a failure names the seed:
//! `LIFEBOAT_SOAK_SEED=… ` repeats its choices (the machine's timing is its own). The truth for a time is what
//! PostgreSQL would keep: everything in WAL before the first commit that is later, as `pg_waldump` prints it.

mod chaos;
mod service;
mod truth;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::chaos::{Chaos, Load, Random};
use self::truth::{Journal, Row, lsn_text, time_text};
use crate::common::{Cluster, Estate, Scratch, as_server, pgbench_init, skip, tool};

const PATIENCE: Duration = Duration::from_secs(120);

/// What the environment asks for.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    span: Duration,
    between_backups: Duration,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seconds = number("LIFEBOAT_SOAK_SECONDS").unwrap_or(300);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Self {
            seed: number("LIFEBOAT_SOAK_SEED").unwrap_or_else(|| u64::from(now.subsec_micros())),
            span: Duration::from_secs(seconds),
            // Short soaks get several base backups as well.
            between_backups: Duration::from_secs((seconds / 6).clamp(8, 30)),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seed, seconds) = (self.seed, self.span.as_secs());
        write!(to, "LIFEBOAT_SOAK_SEED={seed} LIFEBOAT_SOAK_SECONDS={seconds} ./deploy/test.sh --soak")
    }
}

/// Says what happens, as it happens; and, when the soak fails, how to have it again.
#[derive(Debug)]
struct Log {
    began: Instant,
    plan: Plan,
}

impl Log {
    fn say(&self, text: &str) {
        println!("{:7.2} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nthe soak failed; again with the same choices: {}\n", self.plan);
        }
    }
}

#[test]
#[ignore = "takes minutes: ./deploy/test.sh --soak"]
fn soak() {
    let plan = Plan::from_environment();
    let scratch = Scratch::new();
    let settings = "track_commit_timestamp = on\nwal_keep_size = 64GB\nmax_wal_size = 256MB\ncheckpoint_timeout = 30s";
    let mut random = Random::new(plan.seed);
    let segment_mib = random.one_of(&[1, 16, 16]);
    let mut cluster = Cluster::builder(&scratch).wal_segment_mib(segment_mib).config(settings).start();
    if tool(cluster.major(), "pg_waldump").is_none() || !pgbench_init(&cluster, "postgres", 5) {
        skip!("no pg_waldump or no pgbench");
    }
    println!(
        "soak: {:?}, a base backup every {:?}, WAL segments of {segment_mib} MiB",
        plan.span, plan.between_backups
    );
    println!("seed {}; again: {plan}", plan.seed);
    let estate = Estate::builder(&scratch, &cluster).init();
    let log = Log { began: Instant::now(), plan };
    let mut chaos = Chaos::new(&estate, &cluster, plan, &log);
    let first = estate.backup();
    log.say(&format!("base backup {first}"));
    let load = Load::start(&cluster);
    let journal = Journal::start(&cluster);
    let stop = AtomicBool::new(false);
    // A failed check ends the soak at once, not when its time is over.
    let stopping = StopOnDrop(&stop);
    let (checked, counts) = std::thread::scope(|scope| {
        let stopping = stopping;
        let chaos = scope.spawn(|| {
            let _stop_others = StopOnDrop(&stop);
            chaos.run(&stop);
            chaos
        });
        let until = log.began + plan.span;
        let mut checked = 0;
        while Instant::now() < until && !stop.load(Ordering::SeqCst) {
            checked += u32::from(check_one(&estate, &cluster, &journal, &mut random, &log));
        }
        drop(stopping);
        let chaos = chaos.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (checked, chaos.finish())
    });
    let rows = journal.stop();
    drop(load);
    assert!(checked > 0, "not one restore was checked: more than {:?} are needed", plan.span);
    check_end(&estate, &mut cluster, rows.len(), &log);
    log.say(&format!("{} commits in the journal, {checked} restores checked, no difference; {counts}", rows.len()));
}

/// Sets the flag, also when its owner panics.
#[derive(Debug)]
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Restores to a random place that must be reachable and holds what is there against the journal; `false` when
/// nothing is durable yet.
fn check_one(estate: &Estate, cluster: &Cluster, journal: &Journal, random: &mut Random, log: &Log) -> bool {
    let durable = truth::durable(cluster);
    let rows = journal.rows();
    // A time needs a later commit that is durable too; the newest second is left out, because it could be its own.
    let newest = rows.partition_point(|row| row.after <= durable).saturating_sub(1);
    let last_second = rows.get(newest).map_or(0, |row| row.at - 1_000_000);
    let end = rows.partition_point(|row| row.at < last_second);
    if end < 20 {
        // Nothing announces that the receiver has stored some more.
        std::thread::sleep(Duration::from_millis(100));
        return false;
    }
    let chosen: &Row = &rows[random.below(end as u64) as usize];
    let (target, expected) = match random.below(3) {
        0 => (format!("lsn:{}", lsn_text(chosen.after)), chosen.id),
        // A full second as people name it, or any moment.
        kind => {
            let micros = if kind == 1 { chosen.at / 1_000_000 * 1_000_000 } else { chosen.at };
            let micros = micros.max(rows[0].at);
            (time_text(micros), truth::last_before(cluster, &rows, micros))
        }
    };
    let began = Instant::now();
    let place = estate.place("r");
    let restored = estate.restore(&target, &place, &[]);
    let said = format!("{restored:?}");
    assert_eq!(restored.code(), Some(0), "restore to {target}, expected up to {expected}: {said}");
    let copy = Cluster::adopt(&estate.scratch, &place, cluster.major());
    let found = copy.psql(
        "postgres",
        "SELECT coalesce(max(id), 0), count(*), count(*) FILTER (WHERE note IS DISTINCT FROM md5(id::text)) FROM journal",
    );
    assert_eq!(
        found,
        format!("{expected}|{expected}|0"),
        "restored to {target}: last id, rows, wrong rows; the journal has up to {expected}\n{said}"
    );
    truth::assert_whole(&copy, &target);
    drop(copy);
    std::fs::remove_dir_all(scratch_of(&place)).expect("what was restored can be removed");
    log.say(&format!("restored to {target}: {expected} rows, {:.1} s", began.elapsed().as_secs_f64()));
    true
}

fn scratch_of(place: &std::path::Path) -> &std::path::Path {
    place.parent().expect("a data directory has a parent")
}

/// In the end the newest state is the source's to the last row, sound in PostgreSQL's eyes, and so is the repository.
fn check_end(estate: &Estate, cluster: &mut Cluster, rows: usize, log: &Log) {
    let receiver = estate.receive(cluster);
    estate.caught_up(cluster);
    let digest = "SELECT (SELECT count(*) || '/' || sum(id) FROM journal), (SELECT sum(hashtext(a::text)) FROM pgbench_accounts a),
        (SELECT sum(hashtext(h::text)) FROM pgbench_history h)";
    let expected = cluster.psql("postgres", digest);
    assert!(expected.starts_with(&format!("{rows}/")), "the journal has {rows} rows, its table {expected}");
    estate.caught_up(cluster);
    receiver.kill9();
    let copy = estate.restored("latest", "latest", cluster);
    assert_eq!(copy.psql("postgres", digest), expected, "the newest state");
    if let Some(judge) = tool(cluster.major(), "pg_amcheck") {
        let socket = copy.socket_dir().to_str().expect("UTF-8");
        let arguments =
            ["-h", socket, "-U", "postgres", "--all", "--install-missing", "--heapallindexed", "--parent-check"];
        let output = as_server(&judge).args(arguments).output().expect("pg_amcheck");
        assert!(output.status.success(), "pg_amcheck: {}", String::from_utf8_lossy(&output.stdout));
        log.say("pg_amcheck finds nothing");
    }
    drop(copy);
    let lifeboat = estate.lifeboat.clone().timeout(PATIENCE * 5);
    lifeboat.run(&["verify", "-e", "production", "--deep"]).ok();
    estate.run(&["evidence", "verify"]).ok();
    log.say("the repository is undamaged");
}

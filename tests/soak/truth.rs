//! What must be there: a client's journal of commits, and the order in which WAL has them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::NoTls;

use super::PATIENCE;
use crate::common::{Cluster, as_server, tool, wait_until};

/// Between two rows: enough of them, and room for the load beside.
const PACE: Duration = Duration::from_millis(2);

/// An acknowledged commit of row `id`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) xid: u64,
    /// A position behind its commit record and before that of the next row.
    pub(super) after: u64,
    /// A moment behind its commit and before that of the next row; microseconds since 1970.
    pub(super) at: i64,
}

pub(super) fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

pub(super) fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

pub(super) fn time_text(micros: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(micros).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// How far WAL is durable in the repository, by what the receiver told PostgreSQL; slots remember it while no
/// receiver runs.
pub(super) fn durable(cluster: &Cluster) -> u64 {
    let slot = "SELECT coalesce(max(restart_lsn), '0/0') FROM pg_replication_slots WHERE slot_name = 'lifeboat'";
    lsn(&cluster.psql("postgres", slot))
}

/// A writer of rows 1, 2, 3, …, each a transaction of its own.
#[derive(Debug)]
pub(super) struct Journal {
    rows: Arc<Mutex<Vec<Row>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    pub(super) fn start(cluster: &Cluster) -> Self {
        cluster.psql("postgres", "CREATE TABLE journal (id bigint PRIMARY KEY, note text NOT NULL)");
        let (rows, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (sink, told, dsn) = (Arc::clone(&rows), Arc::clone(&stop), cluster.dsn());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write(&dsn, &sink, &told));
        });
        let journal = Self { rows, stop, thread: Some(thread) };
        wait_until("the journal's writer commits", PATIENCE, || !journal.rows().is_empty());
        journal
    }

    /// Everything acknowledged up to now, by id.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.rows.lock().expect("no panic while locked").clone()
    }

    pub(super) fn stop(mut self) -> Vec<Row> {
        self.finish();
        self.rows()
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the journal's writer failed");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

async fn write(dsn: &str, rows: &Mutex<Vec<Row>>, stop: &AtomicBool) {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let insert = "INSERT INTO journal VALUES ($1, md5($1::bigint::text)) RETURNING xmin::text";
    let insert = client.prepare(insert).await.expect("a statement");
    let place = "SELECT pg_current_wal_insert_lsn()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let place = client.prepare(place).await.expect("a statement");
    for id in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let row = client.query_one(&insert, &[&id]).await.expect("a commit");
        let xid = row.get::<_, &str>(0).parse().expect("a transaction id");
        let row = client.query_one(&place, &[]).await.expect("where WAL is");
        let row = Row { id, xid, after: lsn(row.get(0)), at: row.get(1) };
        rows.lock().expect("no panic while locked").push(row);
        tokio::time::sleep(PACE).await;
    }
}

/// The last row that a recovery to this time keeps: PostgreSQL stops before the first commit or abort in WAL that is
/// later.
///
/// Commit times are taken before the records are written, so that neighbours may stand in WAL in the other order;
/// what `pg_waldump` prints of the seconds around decides.
pub(super) fn last_before(cluster: &Cluster, rows: &[Row], micros: i64) -> i64 {
    const AROUND: i64 = 3_000_000;
    let first = rows.partition_point(|row| row.at < micros - AROUND).saturating_sub(1);
    let last = rows.partition_point(|row| row.at < micros + AROUND).min(rows.len() - 1);
    let ids: BTreeMap<u64, i64> = rows[first..].iter().map(|row| (row.xid, row.id)).collect();
    let mut kept = rows[first].id;
    for end in ends(cluster, rows[first].after, rows[last].after) {
        if end.micros > micros {
            return kept;
        }
        if let Some(id) = ids.get(&end.xid) {
            kept = *id;
        }
    }
    panic!("no transaction ends after {} up to {}", time_text(micros), lsn_text(rows[last].after));
}

/// The end of a transaction. The journal's own never abort.
struct End {
    xid: u64,
    micros: i64,
}

/// The transactions that end in this range of the server's WAL, in its order.
fn ends(cluster: &Cluster, from: u64, to: u64) -> Vec<End> {
    let waldump = tool(cluster.major(), "pg_waldump").expect("asked before");
    let mut command = as_server(&waldump);
    command.env("TZ", "UTC").args(["-r", "Transaction", "-t", "1", "-s", &lsn_text(from), "-e", &lsn_text(to), "-p"]);
    let output = command.arg(cluster.data_dir().join("pg_wal")).output().expect("pg_waldump");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pg_waldump: {said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(end).collect()
}

/// `rmgr: Transaction len (rec/tot): 34/34, tx: 741, lsn: …, desc: COMMIT 2026-11-22 20:35:05.123456 UTC; …`
fn end(line: &str) -> Option<End> {
    let (_, description) = line.split_once("desc: COMMIT ").or_else(|| line.split_once("desc: ABORT "))?;
    let (time, _) = description.split_once(" UTC")?;
    let (_, rest) = line.split_once("tx:")?;
    let xid = rest.split(',').next()?.trim().parse().expect("a transaction id");
    let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f").expect("a time");
    Some(End { xid, micros: time.and_utc().timestamp_micros() })
}

/// pgbench's transactions are there as a whole or not at all.
#[track_caller]
pub(super) fn assert_whole(copy: &Cluster, target: &str) {
    let sums = copy.psql(
        "postgres",
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)",
    );
    assert_eq!(sums, "t|t", "torn transactions of pgbench after a restore to {target}");
}

//! A client that commits one row after another and remembers which commits PostgreSQL acknowledged:
//! the truth against which a loss is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::NoTls;

use super::cluster::Cluster;
use super::wait::wait_until;

/// An acknowledged commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) id: i64,
    /// When the acknowledgement had come, by the client's clock.
    pub(crate) at: DateTime<Utc>,
}

/// What a journal says in the end.
#[derive(Debug, Clone)]
pub(crate) struct JournalResult {
    pub(crate) acknowledged: Vec<Ack>,
    /// A row that was sent and never acknowledged: it may be there after a crash, or not.
    pub(crate) in_doubt: Option<i64>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<Ack>>,
    in_doubt: Mutex<Option<i64>>,
}

/// A thread that writes into `journal(id, at)`; it ends when told or when the connection breaks.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Makes the table where it is missing and starts to write after its last row, with synchronous commit.
    pub(crate) fn start(cluster: &Cluster, database: &str) -> Self {
        cluster.psql(database, "CREATE TABLE IF NOT EXISTS journal (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())");
        let first =
            cluster.psql(database, "SELECT coalesce(max(id), 0) + 1 FROM journal").parse::<i64>().expect("a number");
        let shared = Arc::new(Shared::default());
        let dsn = cluster.dsn_for(database, "postgres");
        let writer = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write(&dsn, first, &writer));
        });
        Self { shared, thread: Some(thread) }
    }

    /// The commits acknowledged up to now.
    pub(crate) fn acknowledged(&self) -> Vec<Ack> {
        self.shared.acknowledged.lock().expect("no panic while locked").clone()
    }

    /// Waits until `many` more commits than now are acknowledged.
    #[track_caller]
    pub(crate) fn wait_for(&self, many: usize) {
        let goal = self.acknowledged().len() + many;
        wait_until("the journal's writer commits", Duration::from_secs(60), || {
            self.shared.acknowledged.lock().expect("no panic while locked").len() >= goal
        });
    }

    /// Ends the writer (or waits for its end after the server has gone).
    pub(crate) fn stop(mut self) -> JournalResult {
        self.finish();
        JournalResult {
            acknowledged: self.acknowledged(),
            in_doubt: *self.shared.in_doubt.lock().expect("no panic while locked"),
        }
    }

    fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

async fn write(dsn: &str, first: i64, shared: &Shared) {
    let Ok((client, connection)) = tokio_postgres::connect(dsn, NoTls).await else { return };
    tokio::spawn(connection);
    if client.batch_execute("SET synchronous_commit = on").await.is_err() {
        return;
    }
    let Ok(insert) = client.prepare("INSERT INTO journal (id) VALUES ($1)").await else { return };
    let mut id = first;
    while !shared.stop.load(Ordering::SeqCst) {
        *shared.in_doubt.lock().expect("no panic while locked") = Some(id);
        if client.execute(&insert, &[&id]).await.is_err() {
            return;
        }
        shared.acknowledged.lock().expect("no panic while locked").push(Ack { id, at: Utc::now() });
        *shared.in_doubt.lock().expect("no panic while locked") = None;
        id += 1;
    }
}

//! The demo's writer: a till that sells without a pause and writes down what PostgreSQL acknowledged.
//! Its journal is the client's side of the truth, against which the restored database is held.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::seed::{Sale, sell_once};
use crate::error::{ErrorKind, Result, ResultExt, internal};
use crate::runtime::Runtime;

/// Between two sales.
const PAUSE: Duration = Duration::from_millis(4);

/// One line of the journal.
#[derive(Debug, Clone)]
pub(super) struct Sold {
    /// Number of the sale.
    pub(super) number: u64,
    /// When PostgreSQL acknowledged its commit; none: the answer never came, so both is possible.
    pub(super) acknowledged: Option<DateTime<Utc>>,
    /// What was sold then.
    pub(super) sale: Option<Sale>,
}

/// A till that is selling; it stops when the value is dropped.
#[derive(Debug)]
pub(super) struct Till {
    journal: Arc<Mutex<Vec<Sold>>>,
    task: JoinHandle<Result<()>>,
}

impl Till {
    /// Opens a till at `client`, with documents below `filestore`.
    pub(super) fn open(client: Client, filestore: PathBuf, runtime: &Runtime) -> Self {
        let journal = Arc::<Mutex<Vec<Sold>>>::default();
        let task = tokio::spawn(sell(client, filestore, journal.clone(), runtime.clone()));
        Self { journal, task }
    }

    /// How many sales were acknowledged up to now.
    pub(super) fn count(&self) -> usize {
        self.journal.lock().expect("no holder panics").len()
    }

    /// Waits until the till notices that its database is gone, and gives the journal.
    pub(super) async fn journal(mut self) -> Result<Vec<Sold>> {
        let ended = tokio::time::timeout(Duration::from_secs(10), &mut self.task).await;
        ended
            .or_err(ErrorKind::Internal, || "the demo's till does not notice the disaster".to_owned())?
            .map_err(|e| internal("the demo's till broke").source(e))??;
        Ok(std::mem::take(&mut *self.journal.lock().expect("no holder panics")))
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sells until the connection breaks.
async fn sell(client: Client, filestore: PathBuf, journal: Arc<Mutex<Vec<Sold>>>, runtime: Runtime) -> Result<()> {
    for number in 1.. {
        let sold = match sell_once(&client, &filestore, number).await {
            Ok(sale) => Sold { number, acknowledged: Some(runtime.now()), sale: Some(sale) },
            Err(_) if client.is_closed() => Sold { number, acknowledged: None, sale: None },
            Err(e) => return Err(e),
        };
        let answered = sold.acknowledged.is_some();
        journal.lock().expect("no holder panics").push(sold);
        if !answered {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The journal held against what a restored database has.
#[derive(Debug, serde::Serialize)]
pub(super) struct Balance {
    /// Sales that PostgreSQL acknowledged.
    pub(super) acknowledged: usize,
    /// Sales without an answer when the plug was pulled: allowed to be there, and allowed not to be.
    pub(super) in_doubt: Vec<u64>,
    /// Sales in the restored database.
    pub(super) restored: usize,
    /// Acknowledged and not restored.
    pub(super) lost: Vec<u64>,
    /// Restored, and neither acknowledged nor in doubt: must never be.
    pub(super) phantom: Vec<u64>,
    /// From the first lost sale to the disaster; 0 if none was lost.
    pub(super) lost_seconds: f64,
}

impl Balance {
    /// Strikes the balance.
    pub(super) fn strike(journal: &[Sold], restored: &[u64], disaster: DateTime<Utc>) -> Self {
        let present: BTreeSet<u64> = restored.iter().copied().collect();
        let known: BTreeSet<u64> = journal.iter().map(|s| s.number).collect();
        let lost: Vec<&Sold> =
            journal.iter().filter(|s| s.acknowledged.is_some() && !present.contains(&s.number)).collect();
        let first_lost = lost.iter().filter_map(|s| s.acknowledged).min();
        Self {
            acknowledged: journal.iter().filter(|s| s.acknowledged.is_some()).count(),
            in_doubt: journal.iter().filter(|s| s.acknowledged.is_none()).map(|s| s.number).collect(),
            restored: present.len(),
            lost: lost.iter().map(|s| s.number).collect(),
            phantom: present.difference(&known).copied().collect(),
            lost_seconds: first_lost.map_or(0.0, |at| (disaster - at).as_seconds_f64().max(0.0)),
        }
    }

    /// Writes the journal with the fate of each sale, for whoever wants to count again.
    pub(super) fn write(&self, journal: &[Sold], file: &Path) -> Result<()> {
        let mut text = String::from("sale,acknowledged_at,fate,order,document\n");
        let lost: BTreeSet<u64> = self.lost.iter().copied().collect();
        for sold in journal {
            let at = sold.acknowledged.map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
            let fate = match (at.is_some(), lost.contains(&sold.number)) {
                (true, false) => "restored",
                (true, true) => "lost",
                (false, _) => "in doubt",
            };
            let order = sold.sale.as_ref().map_or("", |s| &s.order);
            let document = sold.sale.as_ref().and_then(|s| s.attachment.as_deref()).unwrap_or_default();
            text += &format!("LIVE-{:08},{},{fate},{order},{document}\n", sold.number, at.unwrap_or_default());
        }
        std::fs::write(file, text).or_err(ErrorKind::Internal, || format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_and_is_missing_was_lost_and_what_nobody_sold_is_a_phantom() {
        let at = |s: i64| DateTime::from_timestamp(1_800_000_000 + s, 0).expect("time");
        let journal: Vec<Sold> =
            (1..=5).map(|n| Sold { number: n, acknowledged: (n < 5).then(|| at(n as i64)), sale: None }).collect();
        let all = Balance::strike(&journal, &[1, 2, 3, 4], at(6));
        assert_eq!((all.acknowledged, all.restored, all.lost_seconds), (4, 4, 0.0));
        assert!(all.lost.is_empty() && all.phantom.is_empty());
        let doubted = Balance::strike(&journal, &[1, 2, 3, 4, 5], at(6));
        assert!(doubted.lost.is_empty() && doubted.phantom.is_empty(), "a sale in doubt may be there");
        let less = Balance::strike(&journal, &[1, 2, 9], at(6));
        assert_eq!((less.lost, less.phantom, less.in_doubt), (vec![3, 4], vec![9], vec![5]));
        assert!((less.lost_seconds - 3.0).abs() < 1e-9);
    }
}

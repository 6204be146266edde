//! What would have been lost, counted: transactions that were committed before the disaster and are
//! not in the restored cluster, and the WAL behind the last one that is.
//!
//! Two witnesses are believed. *Archived WAL* behind the stop point: when it goes on past the moment
//! of the disaster, everything that was committed before is in it. *The source*, where it was asked
//! (and answers) at that moment: how far its WAL was. Where neither tells, nothing is said: a cluster
//! that is gone takes the knowledge of its last transactions with it.

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::PostgresConfig;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::source::Source;
use crate::postgres::sql::explain;
use crate::repository::Repository;
use crate::repository::catalogue::coverage;
use crate::repository::coverage::{Coverage, Leg};
use crate::repository::wal_archive::WalArchive;
use crate::restore::Resolved;
use crate::restore::walk::walk;
use crate::units::{Lsn, Timeline};

/// How long the source may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Segments that are read to count; what lies that far behind would take longer than the drill.
const READ_AT_MOST: u64 = 1024;

/// Where the source was at the moment of the disaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// End of its WAL.
    pub lsn: Lsn,
    /// The timeline that it writes.
    pub timeline: Timeline,
    /// Which cluster it is.
    pub system_id: String,
}

/// Asks the source where its WAL ends.
pub async fn ask(config: &PostgresConfig) -> Result<SourceState> {
    let asking = async {
        let client = Source::new(config)?.sql().await?;
        let question = "SELECT pg_is_in_recovery(), \
                        CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END, \
                        CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END, \
                        (SELECT system_identifier::text FROM pg_control_system())";
        let row = client.query_one(question, &[]).await.map_err(|e| explain(e, "cannot ask the source for its WAL"))?;
        if row.get(0) {
            return Err(error::source("the source is a standby: where WAL ends is known by its primary only"));
        }
        let file: &str = row.get(2);
        let timeline = u32::from_str_radix(file.get(..8).unwrap_or_default(), 16)
            .or_err(ErrorKind::Source, || format!("the source names its WAL file {file}"))?;
        let lsn: &str = row.get(1);
        Ok(SourceState { lsn: lsn.parse()?, timeline: Timeline(timeline), system_id: row.get(3) })
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(error::source(format!("the source did not answer within {} s", PATIENCE.as_secs()))),
    }
}

/// What can be seen of the loss; null is unknown, never a guess.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loss {
    /// Committed transactions that the restored cluster does not have.
    pub transactions: Option<u64>,
    /// WAL behind the last byte that was recovered.
    pub bytes: Option<u64>,
    /// From the first lost transaction to the disaster, in seconds; 0 where none was lost.
    pub window_seconds: Option<f64>,
    /// Why something could not be seen.
    pub notes: Vec<String>,
}

/// Transactions found in archived WAL behind a stop point.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counted {
    transactions: u64,
    first: Option<DateTime<Utc>>,
    /// End of the last of them.
    end: Option<Lsn>,
    /// Whether WAL goes on past what was asked for: nothing can be missing.
    complete: bool,
}

/// Looks for what a restore to `target` loses when disaster strikes at `incident`.
pub async fn look(
    repository: &Repository,
    environment: &str,
    target: &Resolved,
    system_id: &str,
    incident: DateTime<Utc>,
    source: Option<&SourceState>,
) -> Result<Loss> {
    let archive = WalArchive::new(repository, environment);
    let Some(wal) = coverage(archive, None).await? else { return Ok(Loss::default()) };
    let line = line_behind(&wal, target);
    let mut loss = Loss::default();
    let bound = match source {
        Some(source) if source.system_id != system_id => {
            loss.notes.push(format!("the source is another cluster ({}): what it says was not used", source.system_id));
            Bound::Incident(incident)
        }
        Some(source) if !line.iter().any(|leg| leg.timeline == source.timeline) || source.lsn < target.stop_end => {
            loss.notes.push(format!(
                "the source is at {} on timeline {}, which does not follow what was restored: it was not used",
                source.lsn, source.timeline.0
            ));
            Bound::Incident(incident)
        }
        Some(source) => {
            loss.bytes = Some(source.lsn.0 - target.stop_end.0);
            Bound::Position(source.lsn)
        }
        None => Bound::Incident(incident),
    };
    if loss.bytes == Some(0) {
        (loss.transactions, loss.window_seconds) = (Some(0), Some(0.0));
        return Ok(loss);
    }
    let reach = wal.reach(&line, target.stop_end);
    let end = reach.as_ref().map_or(target.stop_end, |reach| reach.end);
    let segments = end.segment(wal.segment_size).saturating_sub(target.stop_end.segment(wal.segment_size));
    if segments > READ_AT_MOST {
        loss.notes.push(format!(
            "{segments} WAL segments lie behind the restored moment: they were not read to count what is lost"
        ));
        return Ok(loss);
    }
    let counted = count(archive, &wal, &line, target.stop_end, end, bound).await?;
    if counted.complete {
        loss.transactions = Some(counted.transactions);
        let since = |first: DateTime<Utc>| (incident - first).max(TimeDelta::zero()).as_seconds_f64();
        loss.window_seconds = Some(counted.first.map_or(0.0, since));
        loss.bytes = loss.bytes.or(Some(counted.end.map_or(0, |end| end.0.saturating_sub(target.stop_end.0))));
    } else if counted.transactions > 0 {
        loss.notes.push(format!(
            "{} archived transaction(s) are newer than the restored moment; how many more the disaster took is not known",
            counted.transactions
        ));
    }
    Ok(loss)
}

/// Up to where transactions count as lost.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Committed at this time or before.
    Incident(DateTime<Utc>),
    /// Written before this position.
    Position(Lsn),
}

/// The line of history behind the stop point: the newest that runs through it.
fn line_behind(wal: &Coverage, target: &Resolved) -> Vec<Leg> {
    let through = |line: &Vec<Leg>| {
        let leg = line.iter().find(|leg| leg.timeline == target.timeline);
        leg.is_some_and(|leg| leg.to.is_none_or(|left| target.stop_end <= left))
    };
    let lines = wal.timelines.keys().rev().map(|timeline| wal.line(*timeline));
    lines.into_iter().find(through).unwrap_or_else(|| wal.line(target.timeline))
}

async fn count(
    archive: WalArchive<'_>,
    wal: &Coverage,
    line: &[Leg],
    from: Lsn,
    end: Lsn,
    bound: Bound,
) -> Result<Counted> {
    let mut counted = Counted::default();
    if let Bound::Position(position) = bound {
        counted.complete = end >= position;
    }
    walk(archive, wal, line, from.segment(wal.segment_size), end, |record| {
        if record.start < from {
            return ControlFlow::Continue(());
        }
        let Some(time) = record.kind.commit_time() else { return ControlFlow::Continue(()) };
        let lost = match bound {
            Bound::Incident(incident) => time <= incident,
            Bound::Position(position) => record.start < position,
        };
        if lost {
            counted.transactions += 1;
            counted.first = Some(counted.first.map_or(time, |first| first.min(time)));
            counted.end = Some(record.end);
            return ControlFlow::Continue(());
        }
        counted.complete = true;
        ControlFlow::Break(())
    })
    .await?;
    Ok(counted)
}

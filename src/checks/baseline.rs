//! What the source answered at one quiet instant, stored with a base backup for drills to compare with.
//!
//! Promises: the source is only read, by one session that works at a time; nobody is made to wait for it
//! (statements have a limit, and it gives up as soon as somebody waits for a lock that it holds); whatever
//! goes wrong is told in the baseline and never fails the backup. Answers are sealed: rows of the database
//! are in them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::answer::Outcome;
use super::ask::{Within, ask};
use super::{quiet, session};
use crate::config::{Check, Environment, Probe, Scope};
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::evidence::entry::Baseline;
use crate::postgres::source::{Source, databases};
use crate::postgres::sql::explain;
use crate::repository::Repository;
use crate::repository::meta::{self, MetaWriter};
use crate::runtime::Runtime;
use crate::units::{Lsn, Timeline};

/// Name under which answers about the whole cluster stand.
pub const CLUSTER: &str = "cluster";

/// Databases that are asked at one instant: each needs a session.
const MAX_SESSIONS: usize = 16;

/// Longest run time of a statement at the source, whatever the check allows in a drill.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Longest time that the snapshot is held: as long as it is, nothing newer can be vacuumed.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Whether somebody waits for a lock that this session holds.
const IN_THE_WAY: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' \
                          AND pg_backend_pid() = ANY (pg_blocking_pids(a.pid)))";

/// First line of the stored object.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// 1.
    format: u32,
    lsn: Lsn,
    timeline: Timeline,
}

/// Every other line: one check in one database.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    database: String,
    check: String,
    /// Digest of the statement that was run.
    statement: String,
    answer: Outcome,
}

/// Asks the source what the checks of `environment` compare. `None` where none of them does.
pub async fn take(
    repository: &Repository,
    environment: &Environment,
    checks: &[Check],
    timeline: Timeline,
    runtime: &Runtime,
) -> Option<Baseline> {
    let checks: Vec<&Check> = checks.iter().filter(|c| c.asks_the_source()).collect();
    if checks.is_empty() {
        return None;
    }
    let (taken_at, began) = (runtime.now(), Instant::now());
    let mut baseline =
        Baseline { lsn: None, taken_at, answers: None, databases: Vec::new(), checks: 0, reason: None, seconds: 0.0 };
    if let Err(e) = fill(repository, environment, &checks, timeline, &mut baseline).await {
        baseline.reason = Some(e.message());
        runtime.emit(Event::Warning(format!("no baseline was taken: {e}")));
    }
    baseline.seconds = began.elapsed().as_secs_f64();
    Some(baseline)
}

/// A session and what it is asked.
struct Seat<'c> {
    name: String,
    client: Client,
    version: Option<u32>,
    checks: Vec<&'c Check>,
}

async fn fill(
    repository: &Repository,
    environment: &Environment,
    checks: &[&Check],
    timeline: Timeline,
    baseline: &mut Baseline,
) -> Result<()> {
    let source = Source::new(&environment.postgres)?;
    let (seats, left_out) = seats(&source, checks).await?;
    if seats.is_empty() {
        return Err(error::source("no database of the cluster is one that the checks are about"));
    }
    let sessions: Vec<&Client> = seats.iter().map(|s| &s.client).collect();
    let instant = quiet::begin(&sessions, quiet::PATIENCE).await?;
    if instant.timeline != timeline {
        return Err(error::source("the cluster went to another timeline while it was backed up"));
    }
    let mut writer = MetaWriter::new(repository)?;
    writer.line(&Header { format: 1, lsn: instant.lsn, timeline })?;
    let began = Instant::now();
    baseline.reason = left_out;
    'seats: for seat in seats {
        baseline.databases.push(seat.name.clone());
        for check in &seat.checks {
            let left = SNAPSHOT_LIMIT.saturating_sub(began.elapsed());
            if left.is_zero() {
                baseline.reason = Some(format!("not complete: more than {} minutes", SNAPSHOT_LIMIT.as_secs() / 60));
                break 'seats;
            }
            let answer = ask(&seat.client, check, seat.version, Within::Session, STATEMENT_LIMIT.min(left)).await;
            let line =
                Line { database: seat.name.clone(), check: check.id.clone(), statement: definition(check), answer };
            baseline.checks += u64::from(matches!(line.answer, Outcome::Answered(_)));
            writer.line(&line)?;
            let failed = |e| explain(e, "cannot ask whether somebody waits");
            if seat.client.query_one(IN_THE_WAY, &[]).await.map_err(failed)?.get(0) {
                baseline.reason = Some(format!("not complete: at {} somebody waited for a lock", check.id));
                break 'seats;
            }
        }
        // Dropping the session ends its transaction.
    }
    baseline.answers = Some(writer.put(repository, &environment.name).await?.sha256);
    baseline.lsn = Some(instant.lsn);
    Ok(())
}

/// Opens a session for every database that a check is about; the second value tells which were left out.
async fn seats<'c>(source: &Source, checks: &[&'c Check]) -> Result<(Vec<Seat<'c>>, Option<String>)> {
    let of = |scopes: &[Scope]| -> Vec<&'c Check> {
        checks.iter().filter(|c| scopes.contains(&c.database)).copied().collect()
    };
    let (mut seats, mut left_out) = (Vec::new(), Vec::new());
    let maintenance = source.sql().await?;
    session::prepare(&maintenance).await?;
    let names = databases(&maintenance).await?;
    let cluster = of(&[Scope::Cluster]);
    if !cluster.is_empty() {
        seats.push(Seat { name: CLUSTER.to_owned(), client: maintenance, version: None, checks: cluster });
    }
    for name in names {
        let opened = async {
            let client = source.sql_in(&name).await?;
            session::prepare(&client).await?;
            let version = session::odoo_version(&client).await?;
            Ok((client, version))
        };
        let (client, version) = match opened.await {
            Ok(opened) => opened,
            Err(e) => {
                let e: Error = e;
                left_out.push(format!("{name} cannot be asked ({e})"));
                continue;
            }
        };
        let checks = of(if version.is_some() { &[Scope::Odoo, Scope::Every] } else { &[Scope::Every] });
        match seats.len() {
            _ if checks.is_empty() => {}
            MAX_SESSIONS => left_out.push(format!("{name} is one too many to be asked at one instant")),
            _ => seats.push(Seat { name, client, version, checks }),
        }
    }
    let left_out = (!left_out.is_empty()).then(|| format!("not complete: {}", left_out.join("; ")));
    Ok((seats, left_out))
}

/// Names the statement that a check runs: answers to different ones are not compared.
fn definition(check: &Check) -> String {
    let mut hash = Sha256::new();
    if let Probe::Sql { statement, generates } = &check.probe {
        hash.update([u8::from(*generates)]);
        hash.update(statement.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// The stored answers of a source.
#[derive(Debug)]
pub struct Answers {
    /// The instant that they are about.
    pub lsn: Lsn,
    lines: HashMap<(String, String), (String, Outcome)>,
}

impl Answers {
    /// Reads the object called `sha256`.
    ///
    /// # Errors
    /// Repository and integrity errors.
    pub async fn read(repository: &Repository, environment: &str, sha256: &str) -> Result<Self> {
        let (mut header, mut lines) = (None, HashMap::new());
        meta::read(repository, environment, sha256, |value: serde_json::Value| {
            let broken = |e| error::integrity(format!("the baseline {sha256} does not parse")).source(e);
            if header.is_none() {
                header = Some(serde_json::from_value::<Header>(value).map_err(broken)?);
                return Ok(());
            }
            let line: Line = serde_json::from_value(value).map_err(broken)?;
            lines.insert((line.database, line.check), (line.statement, line.answer));
            Ok(())
        })
        .await?;
        let header = header.ok_or_else(|| error::integrity(format!("the baseline {sha256} is empty")))?;
        Ok(Self { lsn: header.lsn, lines })
    }

    /// What the source answered to a check in a database, or why that is not known.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn of(&self, database: &str, check: &Check) -> std::result::Result<&Outcome, String> {
        match self.lines.get(&(database.to_owned(), check.id.clone())) {
            None => Err("the source was not asked this".to_owned()),
            Some((statement, _)) if *statement != definition(check) => {
                Err("the check was changed since the source was asked".to_owned())
            }
            Some((_, Outcome::Failed { reason })) => Err(format!("the source could not answer: {reason}")),
            Some((_, outcome)) => Ok(outcome),
        }
    }

    /// Databases in which the source was asked, the cluster left out.
    pub fn databases(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.lines.keys().map(|(d, _)| d.as_str()).filter(|d| *d != CLUSTER).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

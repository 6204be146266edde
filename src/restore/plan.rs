//! The plan of a restore: pure, printable, complete before anything is touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::resolve::Resolved;
use crate::error::{self, Result};
use crate::evidence::Body;
use crate::evidence::entry::{BaseBackup, ConfigurationExport, FilestoreCapture, Restore};
use crate::repository::catalogue::Catalogue;

/// What is to be restored to where.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where attachments go, as `DIR/<database>/<2 hex>/<sha1>`.
    pub filestore: Option<PathBuf>,
    /// Where the exported configuration goes.
    pub configuration: Option<PathBuf>,
    /// Whether a private server runs recovery to its end.
    pub recover: bool,
    /// Whether the data directory may hold an older or damaged copy of the cluster, of which is kept what is right.
    pub delta: bool,
    /// Whether a delta restore may give up another cluster, or transactions that the repository lacks.
    pub force: bool,
}

/// A filestore capture that attachments come from.
#[derive(Debug, Clone, Serialize)]
pub struct FilestorePlan {
    /// The database.
    pub database: String,
    /// Id of the capture.
    pub capture: String,
    /// Its index.
    pub index: String,
    /// Everything that the database referred to up to here was captured, or is named as damaged.
    pub complete_to: DateTime<Utc>,
    /// Whether the target lies behind that: files created since may be missing.
    pub behind: bool,
}

/// Everything that a restore will do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The environment.
    pub environment: String,
    /// Where recovery stops.
    pub target: Resolved,
    /// The base backup.
    #[serde(serialize_with = "base_id")]
    pub base: BaseBackup,
    /// Where the data directory goes.
    pub pgdata: PathBuf,
    /// Whether what lies there is made equal to the backup, instead of being refused.
    pub delta: bool,
    /// Whether that gives up another cluster, or transactions that the repository lacks.
    pub force: bool,
    /// Where attachments go.
    pub filestore: Option<PathBuf>,
    /// Where the configuration goes.
    pub configuration: Option<PathBuf>,
    /// The captures that attachments come from.
    pub filestores: Vec<FilestorePlan>,
    /// Id of the configuration export in force at the target.
    pub export: Option<String>,
    /// Bytes that the data directory will take, before WAL is replayed.
    pub bytes: u64,
    /// How long it will probably take, from the restores and drills measured so far.
    pub estimate_seconds: Option<f64>,
    /// What will be done, in order.
    pub steps: Vec<&'static str>,
    /// What somebody should know before.
    pub warnings: Vec<String>,
}

fn base_id<S: serde::Serializer>(base: &BaseBackup, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&base.id)
}

/// Makes the plan; touches nothing.
pub fn plan(catalogue: &Catalogue, target: Resolved, wishes: &Wishes) -> Result<Plan> {
    let base = catalogue
        .bases()
        .find(|b| b.id == target.base)
        .ok_or_else(|| error::not_recoverable(format!("base backup {} is not in the ledger", target.base)))?
        .clone();
    let mut warnings: Vec<String> =
        catalogue.ledger_problems.iter().map(|p| format!("the repository is damaged: {p}")).collect();
    warnings.extend(target.left_behind.iter().map(|branch| {
        format!(
            "timeline {} holds WAL from {} to {} that this plan does not follow: transactions committed only there are \
             not restored; `--timeline {}` follows it instead",
            branch.timeline.0, branch.fork, branch.end, branch.timeline.0
        )
    }));
    let time = target.last_kept.map_or(base.stop_time, |t| t.time);
    let filestores: Vec<FilestorePlan> = match wishes.filestore {
        Some(_) => newest_captures(catalogue).into_iter().map(|c| filestore(c, time)).collect(),
        None => Vec::new(),
    };
    if wishes.filestore.is_some() && filestores.is_empty() {
        warnings.push("the repository holds no filestore capture: no attachment will be restored".into());
    }
    let export = choose_export(catalogue, time);
    if wishes.configuration.is_some() && export.is_none() {
        return Err(error::not_recoverable("the repository holds no configuration export")
            .hint("leave out --configuration to restore the data alone"));
    }
    let steps = [
        (!wishes.delta, "check that the target directories are empty"),
        (!wishes.delta, "fetch and write the base backup, pg_control last"),
        (wishes.delta, "check that the data directory holds this cluster, stopped, and nothing that would be lost"),
        (wishes.delta, "remove pg_control, then everything that the base backup does not have"),
        (wishes.delta, "compare every page that is there; fetch and write what differs, pg_control last"),
        (wishes.recover, "replay WAL with a private server to the stop point, promote, assert, stop"),
        (!wishes.recover, "write recovery settings for the operator's own start"),
        (
            wishes.filestore.is_some() && wishes.recover,
            "restore and verify the attachments that the database refers to",
        ),
        (wishes.configuration.is_some(), "write the exported configuration beside"),
        (true, "record the restore in the ledger"),
    ];
    Ok(Plan {
        environment: catalogue.environment.clone(),
        estimate_seconds: estimate(catalogue, base.logical_bytes + target.wal_bytes),
        bytes: base.logical_bytes,
        base,
        target,
        pgdata: wishes.pgdata.clone(),
        delta: wishes.delta,
        force: wishes.force,
        filestore: wishes.filestore.clone(),
        configuration: wishes.configuration.clone(),
        filestores,
        export: export.map(|e| e.id.clone()),
        steps: steps.into_iter().filter_map(|(wanted, step)| wanted.then_some(step)).collect(),
        warnings,
    })
}

/// The newest capture of each database: its index holds every file ever captured.
fn newest_captures(catalogue: &Catalogue) -> Vec<&FilestoreCapture> {
    let mut newest: Vec<&FilestoreCapture> = Vec::new();
    for capture in catalogue.captures().rev() {
        if !newest.iter().any(|c| c.database == capture.database && c.data_dir == capture.data_dir) {
            newest.push(capture);
        }
    }
    newest.sort_by(|a, b| a.database.cmp(&b.database));
    newest
}

fn filestore(capture: &FilestoreCapture, target: DateTime<Utc>) -> FilestorePlan {
    FilestorePlan {
        database: capture.database.clone(),
        capture: capture.id.clone(),
        index: capture.index.clone(),
        complete_to: capture.restore_point.time,
        behind: target > capture.restore_point.time,
    }
}

/// The export in force at `time`: the last one before, or else the first one after.
fn choose_export(catalogue: &Catalogue, time: DateTime<Utc>) -> Option<&ConfigurationExport> {
    catalogue.exports().rev().find(|e| e.taken_at <= time).or_else(|| catalogue.exports().next())
}

/// Seconds for `bytes`, at the rate of the newest restore or drill that was measured.
fn estimate(catalogue: &Catalogue, bytes: u64) -> Option<f64> {
    let rate = catalogue.entries.iter().rev().find_map(|e| match &e.statement.predicate.body {
        Body::Restore(restore) if restore.seconds > 0.0 && restore.bytes > 0 && is_plain(restore) => {
            Some(restore.bytes as f64 / restore.seconds)
        }
        _ => None,
    })?;
    Some(bytes as f64 / rate)
}

/// What a delta restore could keep, or what became of one database after it, says nothing about the next restore.
fn is_plain(restore: &Restore) -> bool {
    restore.kept_bytes == 0 && restore.tenant.is_none()
}

impl Plan {
    /// Every directory that must be empty.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.pgdata).filter(|_| !self.delta), self.filestore.as_ref(), self.configuration.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// A target that resolves to the same place when more WAL has arrived.
    pub fn again(&self) -> String {
        match self.target.requested.as_str() {
            "latest" => format!("lsn:{}", self.target.stop_end),
            exact => exact.to_owned(),
        }
    }

    /// Captures that are older than the target: what may turn out to be missing. A finished restore knows
    /// better, and names what is.
    pub fn late_captures(&self) -> Vec<String> {
        let late = self.filestores.iter().filter(|f| f.behind);
        late.map(|f| {
            format!(
                "the newest filestore capture of {} is complete to {}; attachments created after that may be missing, and will be named",
                f.database,
                f.complete_to.format("%Y-%m-%d %H:%M:%S UTC")
            )
        })
        .collect()
    }

    /// How long it will probably take.
    pub fn estimate(&self) -> Option<Duration> {
        self.estimate_seconds.map(Duration::from_secs_f64)
    }
}

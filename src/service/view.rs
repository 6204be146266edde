//! What can be told about one environment: what can be restored, what would be lost now, what somebody must
//! look at. `lifeboat show` prints it, `lifeboat serve` keeps it; its serialised form is the documented JSON.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::Purpose;
use crate::evidence::entry::{BaseBackup, ConfigurationExport, FilestoreCapture};
use crate::evidence::summary;
use crate::postgres::slot_state::SlotState;
use crate::repository::catalogue::LiveMark;
use crate::repository::coverage::Gap;
use crate::repository::window::{Watermark, Window};
use crate::units::{Lsn, Timeline};

/// What is known of one environment at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// Its name.
    pub environment: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The team that answers for it.
    pub owner: String,
    /// When this was looked up.
    pub now: DateTime<Utc>,
    /// Why nothing can be told from the repository, where that is so.
    pub unreadable: Option<String>,
    /// What somebody must look at, worst first; sentences for people.
    pub broken: Vec<String>,
    /// What of that the archive itself could not tell; sentences for people.
    #[serde(skip)]
    pub troubles: Vec<String>,
    /// Stretches every second of which can be restored, oldest first.
    pub windows: Vec<Window>,
    /// The moment to which database, filestore and configuration can all be restored.
    pub watermark: Option<Watermark>,
    /// What would be lost now.
    pub exposure: Exposure,
    /// Every base backup, oldest first.
    pub bases: Vec<Base>,
    /// The newest capture of each database's filestore.
    pub filestores: Vec<Filestore>,
    /// How far watchers have completed filestores since the newest captures.
    pub watched: Vec<LiveMark>,
    /// The newest export.
    pub configuration: Option<Configuration>,
    /// Complete segments in the repository, without a hole within each run.
    pub wal: Vec<WalRun>,
    /// The segment being written, as far as the repository has it.
    pub live: Option<Live>,
    /// Holes in the WAL.
    pub gaps: Vec<Gap>,
    /// The newest drill.
    pub last_drill: Option<Drill>,
    /// Attempts that failed since the newest base backup, newest first, three at most.
    pub failures: Vec<summary::SummaryRow>,
    /// Ids of restores that wait for the approval of a second person.
    pub approvals_waiting: Vec<String>,
    /// Sound entries in the ledger.
    pub ledger_entries: u64,
    /// What is wrong with the ledger or with names in the archive.
    pub ledger_problems: Vec<String>,
    /// What the server said.
    pub postgres: Server,
}

impl View {
    /// An environment of whose repository nothing is known yet.
    pub(super) fn unseen(
        name: &str,
        purpose: Purpose,
        owner: &str,
        objective_seconds: f64,
        postgres: Server,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            environment: name.to_owned(),
            purpose,
            owner: owner.to_owned(),
            now,
            unreadable: None,
            broken: Vec::new(),
            troubles: Vec::new(),
            windows: Vec::new(),
            watermark: None,
            exposure: Exposure { objective_seconds, seconds: None, bytes: None, last_commit: None, met: false },
            bases: Vec::new(),
            filestores: Vec::new(),
            watched: Vec::new(),
            configuration: None,
            wal: Vec::new(),
            live: None,
            gaps: Vec::new(),
            last_drill: None,
            failures: Vec::new(),
            approvals_waiting: Vec::new(),
            ledger_entries: 0,
            ledger_problems: Vec::new(),
            postgres,
        }
    }
}

/// What would be lost if the cluster were gone now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exposure {
    /// The configured RPO, in seconds.
    pub objective_seconds: f64,
    /// From the newest commit in the repository to now, an upper bound; 0 where the server says that
    /// it has written nothing since; null where nothing can be restored.
    pub seconds: Option<f64>,
    /// WAL that the server has and the repository has not; null while the server does not answer.
    pub bytes: Option<u64>,
    /// When the newest commit in the repository was made.
    pub last_commit: Option<DateTime<Utc>>,
    /// Whether the objective is met.
    pub met: bool,
}

/// A base backup, and whether it can be restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Base {
    /// As the ledger has it.
    #[serde(flatten)]
    pub backup: BaseBackup,
    /// Whether all the WAL that it needs is there.
    pub restorable: bool,
    /// What is missing, where something is.
    pub why_not: Option<String>,
}

/// What is known of one database's filestore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filestore {
    /// The database.
    pub database: String,
    /// The newest capture.
    pub capture: FilestoreCapture,
    /// How many captures there are.
    pub captures: u64,
}

/// What is known of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Configuration {
    /// The newest export.
    #[serde(flatten)]
    pub export: ConfigurationExport,
    /// How many exports there are.
    pub exports: u64,
}

/// Complete segments without a hole between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalRun {
    /// Their timeline.
    pub timeline: Timeline,
    /// Name of the first.
    pub first: String,
    /// Name of the last.
    pub last: String,
    /// How many.
    pub segments: u64,
}

/// The segment being written, as far as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Its name.
    pub segment: String,
    /// Everything before is in the repository.
    pub end_lsn: Lsn,
}

/// A drill in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// Number of its ledger entry.
    pub sequence: u64,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// What came of it, for people.
    pub summary: String,
    /// Whether it did not pass.
    pub bad: bool,
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// The end of the WAL that it has written (on a standby: replayed).
    pub current_lsn: Option<Lsn>,
    /// Whether it is a standby.
    pub standby: bool,
    /// The slot that WAL is received through.
    pub slot_name: String,
    /// Its state, where it exists.
    pub slot: Option<SlotState>,
}

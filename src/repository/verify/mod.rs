//! Is everything that the ledger promises still in the store, and is it what was written?
//!
//! A shallow run reads the ledger and all metadata (small) and compares the rest with listings; a deep
//! run reads every pack and every WAL object: their hashes, and, where a recovery identity opens them,
//! the seal of every frame and the content of every WAL segment. Each problem names the object and
//! what it costs: which backup cannot be restored, or from where on nothing can be reached.
//!
//! It changes nothing. Damage is collected, never the end of the run; a store that cannot be reached
//! is. Memory: four packs or WAL segments, and one manifest.
//!
//! ```text
//! mod ── keys, ledger, references      what must be there
//!  ├── objects                         metadata and packs
//!  └── wal                             segments, gaps, history files
//! ```

mod objects;
mod wal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Repository;
use super::catalogue::Catalogue;
use super::descriptor::{Enrolment, trusted_signers};
use super::retention::{State, guard};
use super::window::{self, BaseReach};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::evidence::{Body, LedgerEntry, VerifyReport, verify_ledger};
use crate::runtime::Runtime;
use crate::storage::layout;
use crate::wal_name::WalFileName;

/// Objects read at the same time in a deep run; each is held in memory.
const PARALLEL: usize = 4;

/// Backups named under one problem; of more, the number is told.
const NAMED: usize = 20;

/// Numbers of the ledger entries that need an object.
type By = BTreeSet<u64>;

/// Judges the content of WAL files in a deep run. This floor does not know what WAL looks like.
pub trait WalJudge: Send {
    /// Told once, before any file: the cluster's identifier, where known, and its segment size.
    fn expect(&mut self, system_id: Option<u64>, segment_size: u64);
    /// Judges one file; they come timeline by timeline, in order.
    fn judge(&mut self, name: &WalFileName, content: &[u8]) -> Result<()>;
}

/// Something that is missing or not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Name of the object in the repository.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// What cannot be restored because of it.
    pub affects: Vec<String>,
}

/// How much was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Ledger entries.
    pub ledger_entries: u64,
    /// Metadata objects read.
    pub meta_objects: u64,
    /// Packs that must be there.
    pub packs: u64,
    /// Their stored size in bytes.
    pub pack_bytes: u64,
    /// Packs read whole.
    pub packs_read: u64,
    /// WAL files in the archive.
    pub wal_files: u64,
    /// Their stored size in bytes.
    pub wal_bytes: u64,
    /// WAL files and pieces read whole.
    pub wal_read: u64,
    /// Bytes read in a deep run.
    pub bytes_read: u64,
    /// Frames whose seal was opened.
    pub frames_opened: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The environment.
    pub environment: String,
    /// Whether every pack and WAL object was read.
    pub deep: bool,
    /// Whether a recovery identity was at hand to open them.
    pub opened: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How much was looked at.
    pub checked: Checked,
    /// Objects under `data/` and `meta/` that nothing needs, and their size in bytes: what interrupted backups left, and
    /// what retention has given up and not deleted yet. They cost space and nothing else.
    pub unreferenced: (u64, u64),
    /// The ledger.
    pub ledger: VerifyReport,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// Whether nothing is wrong.
    pub ok: bool,
}

/// Verifies `environment`. A judge asks for a deep run. `identity_trouble` says why a configured
/// recovery identity could not be used, where that is the repository's fault.
pub async fn verify(
    repository: &Repository,
    environment: &str,
    judge: Option<&mut dyn WalJudge>,
    identity_trouble: Option<String>,
    runtime: &Runtime,
) -> Result<Report> {
    let (started_at, began) = (runtime.now(), Instant::now());
    let deep = judge.is_some();
    let mut check = Check {
        repository,
        environment,
        runtime,
        entries: Vec::new(),
        catalogue: None,
        reaches: Vec::new(),
        checked: Checked::default(),
        unreferenced: (0, 0),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    check.keys(identity_trouble).await?;
    let ledger = check.ledger().await?;
    check.objects(deep).await?;
    check.wal(judge).await?;
    if deep && !repository.can_read_data() {
        check.notes.push(
            "no recovery identity is configured: hashes were checked, but nothing under data/ and wal/ was opened"
                .into(),
        );
    }
    if !check.problems.is_empty() {
        // What retention deleted while this ran is not missing.
        let since = check.entries.last().map_or(0, |e| e.sequence);
        if let Ok(deleted) = guard::deleted_since(repository, environment, since).await {
            check.problems.retain(|p| !deleted.contains(&p.object));
        }
    }
    let (problems, notes) = (check.problems, check.notes);
    Ok(Report {
        environment: environment.to_owned(),
        deep,
        opened: deep && repository.can_read_data(),
        started_at,
        seconds: began.elapsed().as_secs_f64(),
        checked: check.checked,
        unreferenced: check.unreferenced,
        ledger,
        ok: problems.is_empty(),
        problems,
        notes,
    })
}

/// A verification under way.
struct Check<'a> {
    repository: &'a Repository,
    environment: &'a str,
    runtime: &'a Runtime,
    entries: Vec<LedgerEntry>,
    catalogue: Option<Catalogue>,
    reaches: Vec<BaseReach>,
    checked: Checked,
    unreferenced: (u64, u64),
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Check<'_> {
    /// The epoch's key object and the enrolled signing keys.
    async fn keys(&mut self, identity_trouble: Option<String>) -> Result<()> {
        let store = &self.repository.store;
        let descriptor = &self.repository.descriptor;
        let key = layout::epoch_key(descriptor.epoch);
        let everything = vec!["every backup: without it no recovery identity opens anything".to_owned()];
        match (store.find(&key).await?, identity_trouble) {
            (None, _) => self.problem(&key, "missing", everything),
            (Some(_), Some(trouble)) => self.problem(&key, trouble, everything),
            (Some(bytes), None) if !bytes.starts_with(b"age-encryption.org/v1\n") => {
                self.problem(&key, "is not an age file any more", everything);
            }
            (Some(_), None) if !self.repository.can_read_data() => {
                self.notes.push(format!("{key} is there; whether it opens can be told only with a recovery identity"));
            }
            _ => {}
        }
        let trusted = trusted_signers(store, descriptor).await?;
        for object in store.list(layout::SIGNERS).await? {
            let enrolment: Option<Enrolment> = serde_json::from_slice(&store.get(&object.key).await?).ok();
            let sound = enrolment
                .is_some_and(|e| layout::signer(&e.signer.key.id()) == object.key && trusted.contains(&e.signer));
            if !sound {
                self.problem(&object.key, "is no enrolment that a trusted key endorsed; it is ignored", Vec::new());
            }
        }
        Ok(())
    }

    /// The ledger, and everything it leads to.
    async fn ledger(&mut self) -> Result<VerifyReport> {
        let phase = self.phase("checking the ledger", None);
        let trust = self.repository.trust().await?;
        let id = &self.repository.descriptor.repository;
        let report = verify_ledger(&self.repository.store, self.environment, id, &trust).await?;
        for problem in &report.problems {
            let object = match problem.sequence {
                Some(sequence) => layout::ledger_entry(self.environment, sequence),
                None => layout::ledger(self.environment),
            };
            self.problem(&object, &problem.what, vec!["what this entry committed is not proven any more".into()]);
        }
        self.notes.extend(report.findings.iter().map(|f| format!("ledger: {}", f.what)));
        self.checked.ledger_entries = report.entries;
        match Catalogue::load(self.repository, self.environment).await {
            Ok(catalogue) => {
                self.reaches = window::reaches(catalogue.bases(), catalogue.wal.as_ref());
                self.entries = catalogue.entries.clone();
                self.catalogue = Some(catalogue);
            }
            Err(damage) => {
                let wal = layout::wal(self.environment);
                self.damage(&wal, damage, vec!["what the WAL archive covers cannot be told".into()])?;
                // What this host has seen before proves nothing about what the store holds now.
                let ledger = super::catalogue::ledger(self.repository, self.environment).await?.with_cache(None);
                self.entries = ledger.read().await?.entries;
            }
        }
        self.ended(phase);
        Ok(report)
    }

    /// What the ledger commits: object names, and the entries that need them.
    fn references(&self) -> BTreeMap<String, By> {
        let mut needed: BTreeMap<String, By> = BTreeMap::new();
        let ledger = layout::ledger(self.environment);
        let state = State::of(&self.entries);
        for entry in state.living(&self.entries) {
            let meta = self.root(&entry.statement.predicate.body);
            let subjects = entry.statement.subject.iter().map(|s| s.name.clone());
            for name in subjects.chain(meta).filter(|name| !name.starts_with(&ledger)) {
                needed.entry(name).or_default().insert(entry.sequence);
            }
        }
        needed
    }

    /// The metadata object that a backup begins with.
    fn root(&self, body: &Body) -> Option<String> {
        let sha256 = match body {
            Body::BaseBackup(base) => &base.manifest,
            Body::FilestoreCapture(capture) => &capture.index,
            Body::ConfigurationExport(export) => &export.manifest,
            _ => return None,
        };
        Some(layout::meta(self.environment, sha256))
    }

    /// What cannot be restored without an object that these entries need.
    fn unrestorable(&self, by: &By) -> Vec<String> {
        let named = by.iter().rev().filter_map(|n| self.entries.iter().find(|e| e.sequence == *n));
        let mut affected: Vec<String> =
            named.take(NAMED).map(|e| format!("{} cannot be restored completely", label(e))).collect();
        if by.len() > NAMED {
            affected.push(format!("and {} older ones", by.len() - NAMED));
        }
        affected
    }

    fn problem(&mut self, object: &str, what: impl Into<String>, affects: Vec<String>) {
        let what = what.into();
        match self.problems.iter_mut().find(|p| p.object == object && p.what == what) {
            Some(known) => known.affects.extend(affects),
            None => self.problems.push(Problem { object: object.to_owned(), what, affects }),
        }
    }

    /// Notes damage and goes on; anything else ends the run.
    fn damage(&mut self, object: &str, failure: Error, affects: Vec<String>) -> Result<()> {
        match failure.kind() {
            ErrorKind::Integrity => {
                let what = failure.message();
                let what = what.strip_prefix(&format!("{object}: ")).unwrap_or(&what).to_owned();
                let what = what.strip_prefix(&format!("{object} is ")).map(str::to_owned).unwrap_or(what);
                self.problem(object, what, affects);
                Ok(())
            }
            _ => Err(failure),
        }
    }

    fn phase(&self, phase: &'static str, total: Option<u64>) -> (&'static str, Instant) {
        self.runtime.emit(Event::PhaseStarted { phase: phase.into(), total });
        (phase, Instant::now())
    }

    fn ended(&self, (phase, began): (&'static str, Instant)) {
        self.runtime.emit(Event::PhaseEnded { phase: phase.into(), took: began.elapsed() });
    }
}

/// What people call that which an entry commits.
fn label(entry: &LedgerEntry) -> String {
    match &entry.statement.predicate.body {
        Body::BaseBackup(base) => format!("base backup {}", base.id),
        Body::FilestoreCapture(capture) => format!("filestore capture {} of {}", capture.id, capture.database),
        Body::ConfigurationExport(export) => format!("configuration export {}", export.id),
        Body::WalRange(range) => format!("WAL {} to {}", range.first, range.last),
        other => format!("ledger entry {} ({})", entry.sequence, other.kind()),
    }
}

//! A small estate in memory, with a clock of its own: base backups, WAL, captures and exports that consist of real objects
//! and real ledger entries, as far as retention looks at them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use object_store::memory::InMemory;
use serde_json::json;

use super::guard::{self, Uses};
use super::prune::{Options, prune};
use super::report::Report;
use super::state::State;
use crate::config::Retention;
use crate::error::Result;
use crate::evidence::entry::{BaseBackup, ConfigurationExport, FilestoreCapture, RestorePoint, WalNeeded};
use crate::evidence::{Body, Ledger, LedgerEntry, Subject};
use crate::repository::catalogue::ledger;
use crate::repository::meta::MetaWriter;
use crate::repository::wal_archive::{SegmentSummary, WalArchive, WalSummary};
use crate::repository::{PackInfo, Repository, StateDir, init};
use crate::runtime::{Clock, Runtime};
use crate::storage::fault::FaultStore;
use crate::storage::{RetryPolicy, Store, layout};
use crate::units::{Lsn, Timeline};
use crate::vault::{Class, RecoveryIdentity};
use crate::wal_name::{SegmentName, WalFileName, segment_name};

pub(super) const E: &str = "production";
pub(super) const SIZE: u64 = 1 << 20;
const DAY: i64 = 86_400;

/// Seconds since 1970, moved by hand.
#[derive(Debug, Clone, Default)]
pub(super) struct Hands(Arc<AtomicI64>);

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::Relaxed), 0).expect("valid")
    }
}

pub(super) struct Estate {
    pub(super) repository: Repository,
    pub(super) runtime: Runtime,
    pub(super) faults: FaultStore<InMemory>,
    hands: Hands,
    /// Number of the next WAL segment.
    pub(super) next: u64,
    count: u64,
    state: Arc<tempfile::TempDir>,
}

/// Rules without periods.
pub(super) fn rules(recent_days: u64) -> Retention {
    Retention {
        recent: Duration::from_secs(recent_days * DAY as u64),
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        minimum_base_backups: 1,
        delete_after: Duration::from_secs(7 * DAY as u64),
        unreferenced_after: Duration::from_secs(3 * DAY as u64),
        time_zone: Tz::UTC,
    }
}

/// A base backup that is stored and not committed.
pub(super) struct Unfinished {
    pub(super) entry: BaseBackup,
    subjects: Vec<Subject>,
    uses: Uses,
    packs: Vec<PackInfo>,
}

fn store(faults: &FaultStore<InMemory>, runtime: &Runtime) -> Store {
    let retry = RetryPolicy { give_up_after: Duration::ZERO, ..RetryPolicy::default() };
    Store::new(Arc::new(faults.clone()), "memory:", retry, runtime.clone())
}

impl Unfinished {
    /// It, as entry `sequence` committed it.
    pub(super) fn taken(self, sequence: u64) -> Taken {
        Taken { sequence, entry: self.entry, packs: self.packs }
    }
}

impl Estate {
    pub(super) async fn new() -> Self {
        let hands = Hands::default();
        // Objects bear the real time; the estate lives later, so that they are old when it says so.
        hands.0.store((Utc::now().timestamp() / DAY + 1) * DAY, Ordering::Relaxed);
        let runtime = Runtime::silent().with_clock(hands.clone());
        let faults = FaultStore::new(InMemory::new());
        let store = store(&faults, &runtime);
        let folder = tempfile::tempdir().expect("temp dir");
        let state = StateDir::new(folder.path());
        let recovery = RecoveryIdentity::generate();
        init(&store, &state, &recovery.recipients(), None, "test", &runtime).await.expect("init");
        let repository = Repository::open(&store, &state, None).await.expect("open");
        Self { repository, runtime, faults, hands, next: 2, count: 0, state: Arc::new(folder) }
    }

    /// A copy that goes its own way from here.
    pub(super) async fn fork(&self) -> Self {
        let hands = Hands(Arc::new(AtomicI64::new(self.hands.0.load(Ordering::Relaxed))));
        let runtime = Runtime::silent().with_clock(hands.clone());
        let faults = FaultStore::new(self.faults.inner().fork());
        let state = StateDir::new(self.state.path());
        // What this host has seen of another copy's ledger says nothing about this one.
        let _ = std::fs::remove_dir_all(state.path().join("ledger"));
        let repository = Repository::open(&store(&faults, &runtime), &state, None).await.expect("open");
        Self { repository, runtime, faults, hands, state: self.state.clone(), ..*self }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.hands.now()
    }

    pub(super) fn pass(&self, days: f64) {
        self.hands.0.fetch_add((days * DAY as f64) as i64, Ordering::Relaxed);
    }

    pub(super) async fn ledger(&self) -> Ledger {
        ledger(&self.repository, E).await.expect("ledger")
    }

    pub(super) async fn entries(&self) -> Vec<LedgerEntry> {
        self.ledger().await.entries().await.expect("sound")
    }

    pub(super) async fn state(&self) -> State {
        State::of(&self.entries().await)
    }

    /// Archives segments, each with one commit now.
    pub(super) async fn wal(&mut self, segments: u64) {
        for _ in 0..segments {
            self.segment(self.next).await;
            self.next += 1;
        }
    }

    async fn segment(&self, number: u64) {
        let archive = WalArchive::new(&self.repository, E);
        let mut sealer = archive.sealer(Class::Wal, 1).expect("sealer");
        sealer.write(&number.to_le_bytes());
        let summary = SegmentSummary {
            start: Lsn(number * SIZE),
            end: Lsn((number + 1) * SIZE),
            commits: 1,
            first_commit_time: Some(self.now()),
            last_commit_time: Some(self.now()),
            ..SegmentSummary::default()
        };
        let name = WalFileName::Segment(SegmentName::new(Timeline(1), number, SIZE));
        archive.put(&name, sealer, Some(&WalSummary::Segment(summary))).await.expect("archived");
    }

    /// Puts a pack that nothing refers to.
    pub(super) async fn pack(&mut self) -> PackInfo {
        self.count += 1;
        let bytes = Bytes::from(format!("pack {} {}", self.count, "x".repeat(300)));
        let size = bytes.len() as u64;
        let (sha256, _) = self.repository.put_named(|sha| layout::pack(E, sha), bytes).await.expect("put");
        PackInfo { sha256, size, first: 0, frames: vec![(1, 8192, 0)], sums: None }
    }

    /// Stores a base backup that takes over packs of `previous`, and archives its WAL.
    pub(super) async fn store_base(&mut self, previous: Option<(&BaseBackup, u64, &[PackInfo])>) -> Unfinished {
        let since = self.entries().await.last().map_or(0, |e| e.sequence);
        self.count += 1;
        let id = format!("base-{}", self.count);
        let start = Lsn(self.next * SIZE + 40);
        let mut packs: Vec<PackInfo> = previous.map(|p| p.2.to_vec()).unwrap_or_default();
        let mut fresh = self.pack().await;
        let mut sums = MetaWriter::new(&self.repository).expect("writer");
        sums.line(&json!({ "sums": { "pack": fresh.sha256, "pages": "" } })).expect("line");
        let sums = sums.put(&self.repository, E).await.expect("put").sha256;
        fresh.sums = Some(sums.clone());
        packs.push(fresh.clone());
        let mut manifest = MetaWriter::new(&self.repository).expect("writer");
        manifest
            .line(&json!({ "base": { "id": id, "system_id": 7, "timeline": 1, "start_lsn": start,
                                     "server_version": 150000, "wal_segment_size": SIZE } }))
            .expect("line");
        for pack in &packs {
            manifest.line(&json!({ "pack": pack })).expect("line");
        }
        let manifest = manifest.put(&self.repository, E).await.expect("put").sha256;
        self.wal(2).await;
        let stop = Lsn((self.next - 1) * SIZE + 100);
        let subjects = vec![
            Subject::new(layout::meta(E, &manifest), &manifest),
            Subject::new(layout::meta(E, &sums), &sums),
            Subject::new(layout::pack(E, &fresh.sha256), &fresh.sha256),
        ];
        let wal = (Timeline(1), start.segment(SIZE), stop.previous_segment(SIZE));
        let uses = Uses { since, entries: previous.map(|p| p.1).into_iter().collect(), wal: Some(wal) };
        let entry = BaseBackup {
            id,
            label: String::new(),
            system_id: "7".into(),
            timeline: Timeline(1),
            start_lsn: start,
            stop_lsn: stop,
            start_time: self.now(),
            stop_time: self.now(),
            server_version: "15".into(),
            wal_segment_size: SIZE,
            data_checksums: true,
            tablespaces: 0,
            databases: vec!["retail".into()],
            files: 0,
            logical_bytes: 0,
            stored_bytes: 0,
            new_packs: 1,
            manifest,
            reader: "direct".into(),
            bytes_read: 0,
            previous: previous.map(|p| p.0.id.clone()),
            damaged: Vec::new(),
            wal: WalNeeded {
                first: segment_name(Timeline(1), wal.1, SIZE),
                last: segment_name(Timeline(1), wal.2, SIZE),
            },
            baseline: None,
            seconds: 1.0,
        };
        Unfinished { entry, subjects, uses, packs }
    }

    pub(super) async fn commit(&self, base: &Unfinished) -> Result<u64> {
        let (ledger, body) = (self.ledger().await, Body::BaseBackup(base.entry.clone()));
        let subjects = base.subjects.clone();
        let done = guard::commit(&ledger, &self.repository, E, subjects, body, &base.uses, &self.runtime).await?;
        Ok(done.sequence)
    }

    /// Takes a base backup that builds on another.
    pub(super) async fn base(&mut self, previous: Option<&Taken>) -> Taken {
        let previous = previous.map(|p| (&p.entry, p.sequence, p.packs.as_slice()));
        let unfinished = self.store_base(previous).await;
        let sequence = self.commit(&unfinished).await.expect("committed");
        Taken { sequence, entry: unfinished.entry, packs: unfinished.packs }
    }

    /// Captures the filestore of a database: one new pack in a segment, and the segments of before.
    pub(super) async fn capture(&mut self, database: &str, segments: &mut Vec<String>) -> u64 {
        let since = self.entries().await.last().map_or(0, |e| e.sequence);
        self.count += 1;
        let pack = self.pack().await;
        let mut segment = MetaWriter::new(&self.repository).expect("writer");
        segment.line(&json!({ "segment": { "format": 1, "capture": "c" } })).expect("line");
        segment.line(&json!({ "pack": pack })).expect("line");
        let segment = segment.put(&self.repository, E).await.expect("put").sha256;
        segments.push(segment.clone());
        let mut index = MetaWriter::new(&self.repository).expect("writer");
        index.line(&json!({ "index": {} })).expect("line");
        for sha256 in segments.iter() {
            index.line(&json!({ "segment": { "sha256": sha256, "names": 1, "frames": 1 } })).expect("line");
        }
        let index = index.put(&self.repository, E).await.expect("put").sha256;
        let subjects = vec![
            Subject::new(layout::meta(E, &index), &index),
            Subject::new(layout::meta(E, &segment), &segment),
            Subject::new(layout::pack(E, &pack.sha256), &pack.sha256),
        ];
        let entry = FilestoreCapture {
            id: format!("capture-{}", self.count),
            data_dir: "/odoo".into(),
            database: database.into(),
            database_uuid: None,
            restore_point: RestorePoint { name: "p".into(), lsn: Lsn(self.next * SIZE), time: self.now() },
            scan_started: self.now(),
            scan_finished: self.now(),
            files_present: 1,
            files_new: 1,
            bytes_new: 1,
            files_disappeared: 0,
            suspects: Vec::new(),
            referenced: 1,
            missing_at_source: Vec::new(),
            index,
            complete: true,
            not_covered: Vec::new(),
            collection: None,
        };
        let uses = Uses { since, ..Uses::default() };
        let body = Body::FilestoreCapture(entry);
        let ledger = self.ledger().await;
        let done = guard::commit(&ledger, &self.repository, E, subjects, body, &uses, &self.runtime).await;
        done.expect("committed").sequence
    }

    /// Exports the configuration.
    pub(super) async fn export(&mut self) -> u64 {
        let since = self.entries().await.last().map_or(0, |e| e.sequence);
        self.count += 1;
        let pack = self.pack().await;
        let mut manifest = MetaWriter::new(&self.repository).expect("writer");
        manifest.line(&json!({ "export": {} })).expect("line");
        manifest.line(&json!({ "pack": pack })).expect("line");
        let manifest = manifest.put(&self.repository, E).await.expect("put").sha256;
        let subjects = vec![
            Subject::new(layout::meta(E, &manifest), &manifest),
            Subject::new(layout::pack(E, &pack.sha256), &pack.sha256),
        ];
        let entry = ConfigurationExport {
            id: format!("export-{}", self.count),
            taken_at: self.now(),
            files: 1,
            bytes: 1,
            manifest,
            digest: String::new(),
            masked: None,
            changed: Vec::new(),
            unreadable: Vec::new(),
        };
        let uses = Uses { since, ..Uses::default() };
        let body = Body::ConfigurationExport(entry);
        let ledger = self.ledger().await;
        let done = guard::commit(&ledger, &self.repository, E, subjects, body, &uses, &self.runtime).await;
        done.expect("committed").sequence
    }

    pub(super) async fn prune(&self, rules: &Retention) -> Report {
        self.try_prune(rules).await.expect("pruned")
    }

    pub(super) async fn try_prune(&self, rules: &Retention) -> Result<Report> {
        prune(&self.repository, E, Some(rules), Options::default(), &self.runtime).await
    }

    pub(super) async fn dry_run(&self, rules: &Retention) -> Report {
        prune(&self.repository, E, Some(rules), Options { dry_run: true }, &self.runtime).await.expect("looked")
    }

    /// Names of all objects below a folder of the environment.
    pub(super) async fn objects(&self, folder: &str) -> BTreeSet<String> {
        let below = format!("{E}/");
        let listed = self.repository.store.list(&format!("{below}{folder}")).await.expect("listed");
        listed.into_iter().map(|o| o.key.strip_prefix(&below).expect("below").to_owned()).collect()
    }

    /// Numbers of the archived segments.
    pub(super) async fn segments(&self) -> BTreeSet<u64> {
        let archive = WalArchive::new(&self.repository, E);
        let listed = archive.list(Timeline(1)).await.expect("listed");
        let number = |name: &WalFileName| match name {
            WalFileName::Segment(segment) => segment.number(SIZE).ok(),
            _ => None,
        };
        listed.iter().filter_map(|(name, _)| number(name)).collect()
    }

    /// Whether every object that a base backup needs is there, its WAL included.
    pub(super) async fn is_whole(&self, base: &Taken) -> bool {
        let (data, meta, wal) = (self.objects("data/").await, self.objects("meta/").await, self.segments().await);
        let packs = base.packs.iter().all(|p| {
            data.contains(&format!("data/{}", p.sha256))
                && p.sums.iter().all(|sums| meta.contains(&format!("meta/{sums}")))
        });
        packs && meta.contains(&format!("meta/{}", base.entry.manifest)) && base.own_wal().all(|n| wal.contains(&n))
    }
}

/// A committed base backup.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) sequence: u64,
    pub(super) entry: BaseBackup,
    pub(super) packs: Vec<PackInfo>,
}

impl Taken {
    pub(super) fn own_wal(&self) -> std::ops::RangeInclusive<u64> {
        self.entry.start_lsn.segment(SIZE)..=self.entry.stop_lsn.previous_segment(SIZE)
    }
}

/// So many days later.
pub(super) fn days(from: DateTime<Utc>, days: i64) -> DateTime<Utc> {
    from + TimeDelta::days(days)
}

//! The capture of filestores: database first, files second.
//!
//! ```text
//! restore point ─▶ scan ─▶ set difference ─▶ read what is new ─▶ hold references against it ─▶ commit
//! ```
//!
//! Promises: when a capture is committed as complete, every file that the database refers to at its
//! restore point is stored under its own digest, or is named as damaged at the source; what was stored
//! before stays restorable although the source deleted it. A capture that finds nothing new reads no
//! file and stores only its small index object. What is not committed does not exist: a killed capture
//! leaves unreferenced objects and nothing else.

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::index::{Changes, Index, seconds};
use super::ingest::{Ingested, NewFiles, PATIENCE, PHASE, ingest};
use super::live::{self, Piece};
use super::name::FileName;
use super::references::{self, MAX_NAMED};
use super::segments::{Header, Packs};
use super::stamps;
use super::takeover::{adopt, in_order};
use super::tenants::{self, Tenant, tenants};
pub use super::verdict::Damage;
use super::verdict::{Verdict, damage, suspect};
use super::{Part, Summary, collection, database_uuid, restore_point, scan_each};
use crate::config::Environment;
use crate::error::{self, Error, Result};
use crate::event::Event;
use crate::evidence::entry::{Collection, FilestoreCapture};
use crate::evidence::{Appended, Body, Ledger, LedgerEntry, Subject};
use crate::postgres::backup::record_failure;
use crate::postgres::base_backup::new_id;
use crate::postgres::source::Source;
use crate::repository::catalogue::ledger;
use crate::repository::retention::State;
use crate::repository::retention::guard::{self, Uses};
use crate::repository::{PackInfo, Repository, Written, pack_stream};
use crate::runtime::{Runtime, blocking};
use crate::storage::layout;

/// A committed capture.
#[derive(Debug)]
pub struct Captured {
    /// What the ledger says of it.
    pub entry: FilestoreCapture,
    /// Where the ledger says it.
    pub appended: Appended,
    /// Packs that it added to the repository.
    pub new_packs: u64,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// Files that are damaged or missing at the source, with the attachment that needs them.
    pub damage: Vec<Damage>,
    /// Files that the database needs, that the source lost and that the repository still has.
    pub lost_at_source: Vec<Damage>,
}

/// What became of the filestore of one database.
#[derive(Debug)]
pub struct Outcome {
    /// The database; `None` where not even the databases could be listed.
    pub database: Option<String>,
    /// The capture, or why there is none.
    pub result: Result<Captured>,
}

/// Captures the filestore of every Odoo database of `environment`. A failure of one does not stop the
/// others; it is recorded in the ledger.
pub async fn all(
    repository: &Repository,
    environment: &Environment,
    level: i32,
    runtime: &Runtime,
) -> Result<Vec<Outcome>> {
    let ledger = ledger(repository, &environment.name).await?;
    let (started_at, began) = (runtime.now(), Instant::now());
    let found = async { tenants(&Source::new(&environment.postgres)?, &environment.odoo, runtime).await };
    let tenants = match found.await {
        Ok(tenants) => tenants,
        Err(failure) => {
            record_failure(&ledger, repository, "filestore capture", &failure, started_at, began, runtime).await;
            return Ok(vec![Outcome { database: None, result: Err(failure) }]);
        }
    };
    let mut outcomes = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let result = one(repository, environment, &ledger, level, &tenant, runtime).await;
        outcomes.push(Outcome { database: Some(tenant.database), result });
    }
    Ok(outcomes)
}

/// Captures one filestore; a failure is recorded.
pub(super) async fn one(
    repository: &Repository,
    environment: &Environment,
    ledger: &Ledger,
    level: i32,
    tenant: &Tenant,
    runtime: &Runtime,
) -> Result<Captured> {
    let (started_at, began) = (runtime.now(), Instant::now());
    let run = Capture { repository, environment, ledger, level, runtime, tenant };
    let result = run.take().await;
    if let Err(failure) = &result {
        let what = format!("filestore capture of {}", tenant.database);
        record_failure(ledger, repository, &what, failure, started_at, began, runtime).await;
    }
    result
}

/// A name is forgotten when it was last seen this long before the oldest moment that can be restored: no transaction is
/// open longer, and clocks of two hosts differ by less.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::days(2);

struct Capture<'a> {
    repository: &'a Repository,
    environment: &'a Environment,
    ledger: &'a Ledger,
    level: i32,
    runtime: &'a Runtime,
    tenant: &'a Tenant,
}

impl Capture<'_> {
    async fn take(&self) -> Result<Captured> {
        // Before any work: a host that may not record must not read for hours first.
        self.repository.signer()?;
        let id = new_id(self.runtime.now())?;
        let mut client = tenants::open(&Source::new(&self.environment.postgres)?, &self.tenant.database).await?;
        if !tenants::is_odoo(&client).await? {
            let what = format!("database {} has no Odoo schema that Lifeboat can see", self.tenant.database);
            return Err(error::source(what)
                .meaning("its filestore was not captured")
                .hint("correct `[[environment.odoo]] databases`"));
        }
        let uuid = database_uuid(&client).await?;
        let entries = self.ledger.entries().await?;
        let known_until = entries.last().map_or(0, |e| e.sequence);
        let state = State::of(&entries);
        let before = self.previous(state.living(&entries), uuid.as_deref());
        let built_on = before.map(|(sequence, _)| sequence);
        let before = before.map(|(_, capture)| capture.clone());
        let doomed = guard::doomed(self.repository, &self.environment.name, &state).await?;
        let floor = self.environment.retention.as_ref().and_then(|_| state.oldest_moment(&entries));
        drop(entries);
        let pieces = self.pieces(uuid.as_deref(), &doomed).await?;
        let (restore_point, note) = restore_point::set(&client, &id).await?;
        if let Some(note) = note {
            self.runtime.emit(Event::Warning(format!("{}: {note}", self.tenant.database)));
        }

        let data_dir = self.tenant.data_dir.to_string_lossy().into_owned();
        let scan_started = self.runtime.now();
        let header = Header::new(&id, data_dir, &self.tenant.database, uuid.clone(), scan_started);
        let index = match &before {
            Some(c) => Index::read(self.repository, &self.environment.name, &c.index, Packs::Skip).await?,
            None => Index::empty(header.clone()),
        };
        let Scanned { mut index, summary, changes, present } = self.scan(index, scan_started).await?;
        index.header = Header { scan_finished: self.runtime.now(), ..header };
        if present == 0 && references::any(&client).await? {
            return Err(error::source(format!("{} holds no files", self.tenant.directory().display()))
                .meaning(format!(
                    "database {} refers to files, so this is not its filestore; nothing was captured, and what was \
                     captured before is untouched",
                    self.tenant.database
                ))
                .hint("check `[[environment.odoo]] data_dir`, and that the file system is mounted"));
        }
        if let Some(odd) = summary.odd_text(&self.tenant.directory()) {
            self.runtime.emit(Event::Note(odd));
        }

        let names = in_order(&changes.new, &summary.candidates, &pieces);
        let (mut ingested, written) = self.read_new(&index, names).await?;
        index.pending.extend(written.as_ref().map_or(&[][..], |w| &w.packs).iter().cloned());
        let read = ingested.stored.len() as u64;
        index.add(std::mem::take(&mut ingested.stored));
        let adopted = adopt(&mut index, &pieces, &changes.new)?;
        let flawed: Vec<FileName> = ingested.flawed.iter().map(|(name, _)| *name).collect();
        if flawed.len() > MAX_NAMED {
            return Err(references::too_many(self.tenant));
        }
        // A damaged file may be made whole in place: its directory is looked at again.
        let sound = |s: &super::Stamp| {
            s.is_settled(scan_started) && flawed.iter().all(|f| Some(f.first_byte()) != super::scan::first_byte(&s.0))
        };
        index.stamps = summary.stamps.into_iter().filter(sound).collect();
        let held = references::hold(&mut client, &index, &flawed, self.tenant).await?;
        let verdict = Verdict::new(&ingested.flawed, &held);
        index.damaged.clone_from(&verdict.damaged);
        let newest_before = before.and_then(|c| c.collection).and_then(|c| c.newest_attachment);
        let (newest_attachment, short_lived) = collection::ids(&client, newest_before).await?;

        let entry = FilestoreCapture {
            id,
            data_dir: index.header.data_dir.clone(),
            database: self.tenant.database.clone(),
            database_uuid: uuid,
            restore_point,
            scan_started,
            scan_finished: index.header.scan_finished,
            files_present: present - ingested.vanished,
            files_new: read + adopted.files,
            bytes_new: ingested.bytes + adopted.bytes,
            files_disappeared: changes.gone.len() as u64,
            suspects: verdict.suspects,
            referenced: held.referenced,
            missing_at_source: held.missing.iter().map(|r| r.store_fname.clone()).collect(),
            index: String::new(),
            complete: verdict.complete,
            not_covered: held.not_covered,
            collection: Some(Collection {
                candidates: summary.checklist_markers,
                due: collection::due(&client).await?,
                watched: pieces.iter().map(|p| p.records.len() as u64).sum(),
                watched_gone: adopted.gone,
                unseen: ingested.vanished + held.collected + pieces.iter().map(|p| p.header.unseen).sum::<u64>(),
                newest_attachment,
                short_lived,
            }),
        };
        let touched = changes.gone.into_iter().chain(changes.back).collect();
        let uses = Uses { since: known_until, entries: built_on.into_iter().collect(), wal: None };
        let floor = floor.map(|oldest| seconds(oldest - FORGOTTEN_AFTER).get());
        let (entry, appended, index_bytes) = self.commit(index, entry, touched, (uses, floor)).await?;
        self.forget(pieces).await;
        Ok(Captured {
            entry,
            appended,
            new_packs: written.as_ref().map_or(0, |w| w.packs.len() as u64),
            stored_bytes: index_bytes + written.as_ref().map_or(0, |w| w.stored_bytes),
            damage: verdict.damage,
            lost_at_source: held.lost_at_source.iter().map(|r| damage(r, "gone at the source")).collect(),
        })
    }

    /// What a watcher stored since the last capture. Read after the ledger: what is taken over meanwhile by
    /// another capture is in the entry that it appends, which this one will follow.
    /// What lies in packs that retention is about to delete is read again, too: no piece is that old.
    async fn pieces(&self, uuid: Option<&str>, doomed: &BTreeSet<String>) -> Result<Vec<Piece>> {
        let (name, tenant) = (&self.environment.name, live::tenant_key(self.tenant, uuid));
        let mut damaged = Vec::new();
        let mut pieces = live::pieces(self.repository, name, Some(&tenant), &mut damaged).await?;
        let goes = |p: &PackInfo| doomed.contains(&format!("data/{}", p.sha256));
        pieces.retain(|piece| !piece.packs.iter().any(goes));
        for what in damaged {
            self.runtime
                .emit(Event::Warning(format!("{what}; it is left where it is, and what the source has is read again")));
        }
        Ok(pieces)
    }

    /// Deletes the pieces that were taken over; what stays is taken over again, to no effect.
    async fn forget(&self, pieces: Vec<Piece>) {
        if pieces.is_empty() {
            return;
        }
        let keys = pieces.into_iter().map(|p| p.key).collect();
        if let Err(failure) = self.repository.store.delete_all(keys).await {
            let what = format!("pieces of the filestore of {} that are no longer needed stay", self.tenant.database);
            self.runtime.emit(Event::Warning(format!("{what}: {failure}")));
        }
    }

    /// The newest capture of this tenant. A database is another tenant when its uuid differs; one that
    /// was renamed keeps its uuid, and what it stored under its old name.
    fn previous<'e>(
        &self,
        entries: impl DoubleEndedIterator<Item = &'e LedgerEntry>,
        uuid: Option<&str>,
    ) -> Option<(u64, &'e FilestoreCapture)> {
        let captures: Vec<(u64, &FilestoreCapture)> = entries.rev().filter_map(capture).collect();
        let captures = || captures.iter().copied();
        let same_name = captures().map(|c| c.1).find(|c| c.database == self.tenant.database);
        let differs =
            |c: &&FilestoreCapture| uuid.zip(c.database_uuid.as_deref()).is_some_and(|(now, before)| now != before);
        if let Some(other) = same_name.filter(differs) {
            self.runtime.emit(Event::Warning(format!(
                "database {} has another uuid than at capture {}: another Odoo database took its name; its files are \
                 captured from the beginning, and those of the other one are kept",
                self.tenant.database, other.id
            )));
        }
        captures()
            .find(|(_, c)| c.database == self.tenant.database && !differs(c))
            .or_else(|| captures().find(|(_, c)| uuid.is_some() && c.database_uuid.as_deref() == uuid))
    }

    async fn scan(&self, mut index: Index, now: DateTime<Utc>) -> Result<Scanned> {
        let directory = self.tenant.directory();
        let work = move || {
            let believed = stamps::believed(index.listed_at, now) && stamps::is_local(&directory);
            let known = if believed { std::mem::take(&mut index.stamps) } else { Vec::new() };
            let mut sweep = index.sweep();
            let summary = match std::fs::symlink_metadata(&directory) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Summary::default(),
                _ => scan_each(&directory, &known, &mut |part| {
                    match part {
                        Part::Names(names) => sweep.part(names),
                        Part::Unchanged(byte) => sweep.unchanged(byte),
                    }
                    Ok(())
                })?,
            };
            let (changes, taken) = sweep.end();
            if !believed {
                index.listed_at = Some(now);
            }
            let present = summary.files + taken;
            Ok(Scanned { index, summary, changes, present })
        };
        blocking(work).await
    }

    /// Reads the new files into packs; starts no pipeline when there are none.
    async fn read_new(&self, index: &Index, names: Vec<FileName>) -> Result<(Ingested, Option<Written>)> {
        if names.is_empty() {
            return Ok((Ingested::default(), None));
        }
        let began = Instant::now();
        self.runtime.emit(Event::PhaseStarted { phase: PHASE.into(), total: None });
        let (writer, task) = pack_stream::start(self.repository, &self.environment.name, self.level);
        let files = NewFiles {
            directory: self.tenant.directory(),
            names,
            first_frame: index.next_frame(),
            seen: seconds(index.header.scan_finished).get(),
            patience: PATIENCE,
        };
        let runtime = self.runtime.clone();
        let ingested = blocking(move || ingest(files, writer, &runtime)).await;
        // The pipeline's own error says more than that of the reader, which only finds it stopped.
        let written = task.written().await?;
        let ingested = ingested?;
        self.runtime.emit(Event::PhaseEnded { phase: PHASE.into(), took: began.elapsed() });
        Ok((ingested, Some(written)))
    }

    /// Writes segment, index and ledger entry. A capture of the same tenant that was committed since
    /// the beginning is built upon, so that neither loses what the other stored.
    async fn commit(
        &self,
        mut index: Index,
        mut entry: FilestoreCapture,
        touched: Vec<FileName>,
        (mut uses, floor): (Uses, Option<u32>),
    ) -> Result<(FilestoreCapture, Appended, u64)> {
        let name = &self.environment.name;
        let mut subjects = Vec::new();
        let mut segment = None;
        let packs: Vec<PackInfo> = index.pending.clone();
        let expired = match floor {
            Some(floor) => index.expire(self.repository, name, floor).await?,
            None => false,
        };
        if expired || entry.files_new > 0 || !touched.is_empty() {
            let new = index.put_segment(self.repository, name, touched).await?;
            subjects.push(Subject::new(layout::meta(name, &new.sha256), &new.sha256));
            segment = Some(new);
        }
        let since = self.ledger.entries_since(uses.since).await?;
        if let Some((sequence, other)) = self.previous(since.iter(), entry.database_uuid.as_deref()) {
            uses.entries.push(sequence);
            let other = Index::read_object(self.repository, name, &other.index).await?;
            index.follow(other, segment);
        }
        let object = index.put_object(self.repository, name).await?;
        subjects.insert(0, Subject::new(layout::meta(name, &object.sha256), &object.sha256));
        subjects.extend(packs.iter().map(|p| Subject::new(layout::pack(name, &p.sha256), &p.sha256)));
        entry.index = object.sha256;
        let body = Body::FilestoreCapture(entry.clone());
        let appended = guard::commit(self.ledger, self.repository, name, subjects, body, &uses, self.runtime).await?;
        Ok((entry, appended, object.size))
    }
}

/// What a scan found.
struct Scanned {
    index: Index,
    summary: Summary,
    changes: Changes,
    /// Files on disk, whether they were listed or not.
    present: u64,
}

fn capture(entry: &LedgerEntry) -> Option<(u64, &FilestoreCapture)> {
    match &entry.statement.predicate.body {
        Body::FilestoreCapture(capture) => Some((entry.sequence, capture)),
        _ => None,
    }
}

impl Captured {
    /// The failure to report, where the source is damaged: done, with damage named.
    pub fn failure(&self) -> Option<Error> {
        if self.entry.complete {
            return None;
        }
        let needed: Vec<&Damage> = self.damage.iter().filter(|d| d.attachment.is_some()).collect();
        let named: Vec<String> =
            needed.iter().take(10).map(|d| suspect(d)).map(|s| format!("{}: {}", s.name, s.reason)).collect();
        let more = if needed.len() > 10 { format!("; and {} more", needed.len() - 10) } else { String::new() };
        let count = if needed.len() == 1 { "1 file".into() } else { format!("{} files", needed.len()) };
        let database = &self.entry.database;
        Some(
            error::partial(format!(
                "{count} that attachments of {database} need could not be captured: {}{more}",
                named.join("; ")
            ))
            .meaning("everything else was captured; these files are damaged at the source and cannot be restored from here")
            .hint("look for them in older backups, or upload the documents again; the next capture takes what is sound then"),
        )
    }
}

//! One row for each ledger entry: what `evidence show` prints.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::evidence::approval::{Approval, Step};
use crate::evidence::bodies_retention::Gone;
use crate::evidence::entry::{Body, TenantRestore};
use crate::evidence::job_record::{JobOutcome, JobRecord};
use crate::evidence::read::LedgerEntry;
use crate::evidence::wording::{bytes, counted, number, second, span, time, verdict_word};

/// An entry in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SummaryRow {
    /// Its number.
    pub sequence: u64,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Its kind.
    pub kind: &'static str,
    /// What happened.
    pub summary: String,
    /// Whether it tells of something that went wrong.
    pub bad: bool,
}

/// Where one database went that was restored alone.
fn tenant(t: &TenantRestore) -> String {
    let place = match (&t.archive, &t.name, &t.cluster) {
        (Some(archive), ..) => archive.clone(),
        (None, Some(name), Some(cluster)) => format!("{name} at {cluster}"),
        _ => "nowhere".to_owned(),
    };
    let masked = if t.masked_columns > 0 { ", masked" } else { "" };
    format!("{place}, {} alone{masked}", t.database)
}

/// What became of an approval. A broken glass is bad news, even where it was right.
fn approval(a: &Approval) -> (String, bool) {
    let plan = match &a.plan {
        Some(plan) if plan.tenant.is_some() => format!(": {}, {}", plan.place(), plan.target),
        Some(plan) => format!(": {} to {} at {}", plan.target, plan.pgdata, plan.host),
        None => String::new(),
    };
    let reason = a.reason.as_ref().map(|r| format!(" (\"{r}\")")).unwrap_or_default();
    let (verb, bad) = match a.step {
        Step::Requested => ("asks for approval", false),
        Step::Approved => ("approves", false),
        Step::Denied => ("denies", false),
        Step::Used => ("uses", false),
        Step::BrokenGlass => ("BREAKS THE GLASS, no approval", true),
    };
    (format!("{} {verb} {}{plan}{reason}", a.person, a.id), bad)
}

/// The rows for these entries, in the same order.
pub fn rows(entries: &[LedgerEntry]) -> Vec<SummaryRow> {
    let row = |entry: &LedgerEntry| {
        let said = &entry.statement.predicate;
        let (summary, bad) = line(&said.body);
        SummaryRow { sequence: entry.sequence, recorded_at: said.recorded_at, kind: said.body.kind(), summary, bad }
    };
    entries.iter().map(row).collect()
}

/// What an entry says, and whether that is bad news.
fn line(body: &Body) -> (String, bool) {
    match body {
        Body::BaseBackup(b) => {
            let stored = bytes(b.stored_bytes);
            let size = bytes(b.logical_bytes);
            let files = counted(b.files, "file", "files");
            let line = format!("{}: {size} in {files}, {stored} new in the repository, {}", b.id, span(b.seconds));
            (format!("{line}, restorable from {} on timeline {}", b.stop_lsn, b.timeline.0), false)
        }
        Body::WalRange(w) => {
            let until = w.last_commit_time.map(|t| format!(", last commit {}", time(t))).unwrap_or_default();
            let segments = counted(w.segments, "segment", "segments");
            (format!("{} to {} ({segments}) without a hole, up to {}{until}", w.first, w.last, w.end_lsn), false)
        }
        Body::FilestoreCapture(f) => {
            let new = format!("{} new ({})", number(f.files_new), bytes(f.bytes_new));
            let mut line = format!("{}: {}, {new}", f.database, counted(f.files_present, "file", "files"));
            for (count, what) in [(f.suspects.len(), "unsound"), (f.missing_at_source.len(), "missing at the source")] {
                if count > 0 {
                    line.push_str(&format!(", {} {what}", number(count as u64)));
                }
            }
            let elsewhere: u64 = f.not_covered.iter().map(|n| n.attachments).sum();
            if elsewhere > 0 {
                line.push_str(&format!(", {} attachments elsewhere and not covered", number(elsewhere)));
            }
            if !f.complete {
                line.push_str(", incomplete");
            }
            (line, !f.complete || !f.suspects.is_empty() || !f.missing_at_source.is_empty())
        }
        Body::ConfigurationExport(c) => {
            let changed = match c.changed.len() {
                0 => "unchanged".to_owned(),
                n => format!("{} changed", number(n as u64)),
            };
            let mut line = format!("{}: {}, {changed}", c.id, counted(c.files, "file", "files"));
            if !c.unreadable.is_empty() {
                line.push_str(&format!(", {} unreadable", number(c.unreadable.len() as u64)));
            }
            (line, !c.unreadable.is_empty())
        }
        Body::Drift(d) => {
            let all = d.critical + d.notices + d.expected + d.ignored;
            let matter = if d.critical > 0 { format!(", {} critical", number(d.critical)) } else { String::new() };
            let named: Vec<String> = d.changes.iter().take(2).map(ToString::to_string).collect();
            let more = if d.changes.len() > 2 { ", …" } else { "" };
            let line = format!(
                "{} since {}{matter}: {}{more}",
                counted(all, "change", "changes"),
                d.compared_with,
                named.join(", ")
            );
            (line.trim_end_matches(": ").to_owned(), d.critical > 0)
        }
        Body::Restore(r) => {
            let missing = match r.missing_attachments.len() as u64 {
                0 => String::new(),
                n => format!(", {} missing", counted(n, "attachment", "attachments")),
            };
            let reached = r.reached_lsn.map(|lsn| format!(", stopped at {lsn}")).unwrap_or_default();
            let place = r.tenant.as_ref().map_or_else(|| r.pgdata.clone(), tenant);
            let line =
                format!("{} from {} to {place}{reached}, {}{missing}", r.requested, r.base_backup, span(r.seconds));
            (line, !r.missing_attachments.is_empty())
        }
        Body::DrillDraw(d) => {
            let seconds = counted(d.frame.seconds(), "second", "seconds");
            (
                format!(
                    "a random second of {seconds} that can be restored, by the seed with SHA-256 {}…",
                    short(&d.seed_sha256)
                ),
                false,
            )
        }
        Body::Drill(d) => {
            let loss = d
                .rpo
                .as_ref()
                .filter(|r| !r.left_out_on_purpose)
                .map(|r| format!(", RPO {}", span(r.measured_seconds())))
                .unwrap_or_default();
            let speed = d.rto.total_seconds().map(|s| format!(", RTO {}", span(s))).unwrap_or_default();
            let error = d.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
            let passed = d.verdict == crate::evidence::drill_record::Verdict::Passed;
            (format!("{} {}{loss}{speed}{error}", d.id, verdict_word(d.verdict).to_lowercase()), !passed)
        }
        Body::Approval(a) => approval(a),
        Body::Action(a) => (format!("{}: {}, {}", a.person, a.action, a.detail), false),
        Body::Failure(f) => (format!("{} failed after {}: {}", f.attempted, span(f.seconds), f.message), true),
        Body::Skipped(s) => (format!("{} was due {} and left out: {}", s.what, time(s.due_at), s.reason), true),
        Body::Silence(s) => {
            let what = s.condition.as_deref().unwrap_or("all alerts");
            let about = s.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
            match s.until {
                Some(until) => {
                    (format!("{} silences {what}{about} until {}: {}", s.author, time(until), s.reason), false)
                }
                None => (format!("{} ends the silence {}: {}", s.author, s.id, s.reason), false),
            }
        }
        Body::Undelivered(u) => {
            let alerts = counted(u.alerts.len() as u64, "alert", "alerts");
            (format!("{} could not be told of {alerts} by {}: {}", u.receiver, u.instance, u.reason), true)
        }
        Body::Retire(r) => {
            let objects = counted(r.objects, "object", "objects");
            (
                format!("{}, {objects} ({}), not deleted before {}", gone(&r.gone), bytes(r.bytes), time(r.not_before)),
                false,
            )
        }
        Body::Revive(r) => (format!("{} back: {}", gone(&r.gone), r.reason), false),
        Body::Delete(d) => {
            let spared = if d.spared > 0 { format!(", {} spared", number(d.spared)) } else { String::new() };
            let objects = counted(d.objects, "object", "objects");
            (format!("{}, {objects} ({}){spared}", gone(&d.gone), bytes(d.bytes)), false)
        }
        Body::Deleted(d) => {
            let left = match d.left {
                0 => String::new(),
                left => format!(", {} left that the store keeps locked", counted(left, "object", "objects")),
            };
            let objects = counted(d.objects, "object", "objects");
            (format!("{objects} of entry {} ({}){left}", d.delete, bytes(d.bytes)), false)
        }
        Body::Hold(h) => {
            let until = h.until.map_or_else(|| "until it is released".to_owned(), |t| format!("until {}", time(t)));
            (format!("{}: {} {until}: {}", h.id, h.requested, h.reason), false)
        }
        Body::Release(r) => (format!("{}: {}", r.hold, r.reason), false),
        Body::LockExtension(l) => {
            let failed = match l.failed {
                0 => String::new(),
                failed => format!(", {} failed", number(failed)),
            };
            let objects = counted(l.objects, "object", "objects");
            (format!("{objects} locked ({}) until {}{failed}", l.mode, time(l.until)), l.failed > 0)
        }
        Body::Job(j) => job(j),
        Body::Lease(l) => {
            let before = match (&l.previous_owner, l.previous_generation) {
                (Some(owner), Some(generation)) => format!(", which {owner} (generation {generation}) did not renew"),
                _ => String::new(),
            };
            (format!("{} does {} from now on (generation {}){before}", l.owner, l.duty, l.generation), false)
        }
    }
}

/// What an entry about retention is about.
fn gone(gone: &Gone) -> String {
    let named: Vec<String> = gone.counts().into_iter().map(|(count, one, many)| counted(count, one, many)).collect();
    if named.is_empty() { "only leftovers".to_owned() } else { named.join(", ") }
}

/// What became of an occurrence of a job, and whether that is bad news.
fn job(j: &JobRecord) -> (String, bool) {
    let why = match (&j.calendar, &j.message) {
        (Some(calendar), Some(message)) => format!(" (calendar {calendar}): {message}"),
        (Some(calendar), None) => format!(" (calendar {calendar})"),
        (None, Some(message)) => format!(": {message}"),
        (None, None) => String::new(),
    };
    let took = j.started_at.map(|from| (j.finished_at - from).as_seconds_f64()).map(span);
    let took = took.map(|t| format!(" after {t}")).unwrap_or_default();
    let again = if j.attempt > 1 { format!(", attempt {}", j.attempt) } else { String::new() };
    let more = match j.occurrences {
        0 | 1 => String::new(),
        n => format!(" and {} before", number(u64::from(n) - 1)),
    };
    let of = match j.outcome {
        JobOutcome::Scheduled => String::new(),
        _ => format!(" of {}{more}", second(j.scheduled_for)),
    };
    let line = format!("{}{of} {}{took}{again}{why}", j.job, j.outcome.word());
    (line, !matches!(j.outcome, JobOutcome::Done | JobOutcome::Deferred | JobOutcome::Scheduled))
}

/// The first digits of a hash.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;
    use crate::evidence::entry::Failure;
    use crate::evidence::examples;
    use crate::evidence::testing::{key, ledger, memory};
    use crate::runtime::Runtime;

    #[tokio::test]
    async fn every_kind_survives_the_ledger_and_is_told_in_one_line() {
        let store = memory();
        let ledger = ledger(&store, &[1]);
        let failure =
            error::source("cannot connect to /run/postgresql").meaning("no backup was taken").hint("start it");
        let mut bodies = examples::backups();
        bodies.push(Body::Drill(Box::new(examples::failed())));
        bodies.push(Body::Failure(Failure::new("backup base", &failure, examples::at(0.0), 1.5)));
        bodies.push(crate::evidence::testing::body("drill run"));
        bodies.extend(examples::service());
        for body in &bodies {
            ledger.append(&Runtime::silent(), &key(1), Vec::new(), body.clone()).await.expect("appended");
        }
        let entries = ledger.entries().await.expect("sound");
        let back: Vec<&Body> = entries.iter().map(|e| &e.statement.predicate.body).collect();
        assert_eq!(back, bodies.iter().collect::<Vec<_>>());

        let told: Vec<(u64, &str, String, bool)> = rows(&entries)
            .into_iter()
            .map(|r| (r.sequence, r.kind, r.summary.replace('\u{202f}', " "), r.bad))
            .collect();
        let expected = [
            (
                1,
                "base_backup",
                "20261122T010000Z: 4.2 GiB in 1 944 files, 1.1 GiB new in the repository, 1 min 35 s, restorable from 3/9A001148 on timeline 1",
                false,
            ),
            (
                2,
                "wal_range",
                "000000010000000300000090 to 0000000100000003000000A4 (21 segments) without a hole, up to 3/A5000000, last commit 2026-11-22 02:59:59.160 UTC",
                false,
            ),
            (3, "filestore_capture", "retail: 906 files, 12 new (3.0 MiB), 1 unsound", true),
            (4, "configuration_export", "20261122T010212Z: 14 files, 1 changed", false),
            (
                5,
                "restore",
                "latest from 20261122T010000Z to /var/lib/postgresql/restored, stopped at 3/A4127F80, 47.3 s",
                false,
            ),
            (6, "drill", "drill-20261129T030000Z-77c1 failed, RPO 840 ms, RTO 15 min 47 s", true),
            (7, "failure", "backup base failed after 1.5 s: cannot connect to /run/postgresql", true),
            (8, "skipped", "drill run was due 1970-01-01 00:00:00.000 UTC and left out: a test", true),
            (9, "job", "nightly-base of 2026-11-22 02:00:00 UTC done after 1 min 35 s", false),
            (
                10,
                "job",
                "weekly-drill of 2026-11-22 04:00:00 UTC deferred (calendar black-friday): drills are forbidden",
                false,
            ),
            (11, "job", "weekly-drill of 2026-11-22 04:00:00 UTC failed after 1 min, attempt 2: exit code 8", true),
            (12, "job", "nightly-base of 2026-11-21 03:00:00 UTC and 29 before missed: no service ran", true),
            (13, "job", "nightly-base planned from now on", false),
            (14, "lease", "db-2 does jobs from now on (generation 3), which db-1 (generation 2) did not renew", false),
        ];
        for (told, (sequence, kind, summary, bad)) in told.iter().zip(expected) {
            assert_eq!(told, &(sequence, kind, summary.to_owned(), bad));
        }
        assert_eq!(told.len(), 14);
    }
}

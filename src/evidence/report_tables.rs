//! The parts of the report that an auditor goes through line by line.

use maud::{Markup, html};

use crate::evidence::charts;
use crate::evidence::drill_record::{
    AttachmentReconciliation, Basis, Check, CheckResult, Cleanup, DrillRecord, MissingCause, Sandbox, Severity,
    Trigger, TriggerKind,
};
use crate::evidence::report_json::Place;
use crate::evidence::wording::{bytes, checks_summary, number, result_word, second, span};

/// Missing attachments listed on the page; the JSON report has them all.
const MISSING_SHOWN: usize = 200;

/// Why the drill was run.
pub(crate) fn trigger(trigger: &Trigger) -> String {
    let kind = match trigger.kind {
        TriggerKind::Manual => "on request",
        TriggerKind::Calendar => "because it was due",
        TriggerKind::Change => "after a change",
        TriggerKind::Incident => "after an incident",
    };
    trigger.reference.as_ref().map_or_else(|| kind.to_owned(), |reference| format!("{kind} ({reference})"))
}

/// Whether a check's result is bad news.
fn is_bad(check: &Check) -> bool {
    matches!(check.result, CheckResult::Failed | CheckResult::Error)
}

/// Failed first, then by weight; otherwise in the order of the suite.
fn in_order(checks: &[Check]) -> Vec<&Check> {
    let mut checks: Vec<&Check> = checks.iter().collect();
    checks.sort_by_key(|c| (!is_bad(c), c.severity, c.result != CheckResult::Passed));
    checks
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Hard => "hard",
        Severity::Baseline => "baseline",
        Severity::Info => "info",
    }
}

pub(crate) fn checks(checks: &[Check]) -> Markup {
    html! {
        section {
            h2 { "Checks on the restored data" }
            @if checks.is_empty() {
                p.alarm { "Nothing was checked." }
            } @else {
                div.scroll { table.checks {
                    caption { (checks_summary(checks)) ". A failed hard check fails the drill; a failed baseline check may have its cause in the source." }
                    thead { tr { th scope="col" { "Result" } th scope="col" { "Check" } th scope="col" { "Where" } th.number scope="col" { "Time" } } }
                    tbody { @for check in in_order(checks) { (check_row(check)) } }
                } }
            }
        }
    }
}

fn check_row(check: &Check) -> Markup {
    let hard = check.severity == Severity::Hard;
    let (row, badge) = match (check.result, hard) {
        (CheckResult::Failed | CheckResult::Error, true) => ("row-bad", "is-failed"),
        (CheckResult::Failed | CheckResult::Error, false) => ("row-warn", "is-warn"),
        (CheckResult::Passed, _) => ("", "is-passed"),
        (CheckResult::NotApplicable | CheckResult::Info, _) => ("", ""),
    };
    html! {
        tr class=(row) {
            td { span class={ "badge " (badge) } { (result_word(check.result)) } }
            th scope="row" {
                (check.title) " " span.muted { "· " (check.id) ", " (severity(check.severity)) }
                span.why { (check.why) }
                @if !check.detail.is_empty() { span.why { strong { (check.detail) } } }
                @if !check.rows.is_empty() { pre { @for row in &check.rows { (row) "\n" } } }
            }
            td { (check.scope) }
            td.number { (span(check.seconds)) }
        }
    }
}

pub(crate) fn attachments(reconciled: &[AttachmentReconciliation]) -> Markup {
    html! {
        @if !reconciled.is_empty() {
            section {
                h2 { "Attachments, held against the restored files" }
                div.scroll { table {
                    caption { "Odoo shows an empty document where a file is missing, without an error; so every file that the restored database refers to was looked for and its content compared with its name." }
                    thead { tr {
                        th scope="col" { "Database" } th.number scope="col" { "Referenced" } th.number scope="col" { "Present" }
                        th.number scope="col" { "Content right" } th.number scope="col" { "Missing" } th.number scope="col" { "Size" }
                    } }
                    tbody { @for r in reconciled {
                        tr class=(if !r.is_sound() { "row-bad" } else if r.missing.is_empty() { "" } else { "row-warn" }) {
                            th scope="row" { (r.database) }
                            td.number { (number(r.referenced)) } td.number { (number(r.present)) }
                            td.number { (number(r.verified)) } td.number { (number(r.missing.len() as u64)) }
                            td.number { (bytes(r.bytes)) }
                        }
                    } }
                } }
                @for r in reconciled { @if !r.missing.is_empty() { (missing(r)) } }
            }
        }
    }
}

fn missing(reconciled: &AttachmentReconciliation) -> Markup {
    let left_out = reconciled.missing.len().saturating_sub(MISSING_SHOWN) as u64;
    html! {
        h3 { "Missing in " (reconciled.database) }
        div.scroll { table {
            thead { tr { th scope="col" { "Cause" } th scope="col" { "File" } th scope="col" { "Attached to" } th.number scope="col" { "Attachment" } } }
            tbody { @for m in reconciled.missing.iter().take(MISSING_SHOWN) {
                @let ours = m.cause == MissingCause::LostByUs;
                tr class=(if ours { "row-bad" } else { "row-warn" }) {
                    td { span class={ "badge " (if ours { "is-failed" } else { "is-warn" }) } {
                        (match m.cause {
                            MissingCause::LostByUs => "lost by the backup",
                            MissingCause::DamagedAtSource => "damaged at the source",
                            MissingCause::NotCaptured => "seen by no capture",
                        })
                    } }
                    td { code { (m.store_fname) } }
                    td { @match &m.model { Some(model) => code { (model) }, None => span.muted { "no record" } } }
                    td.number { (m.id) }
                }
            } }
        } }
        @if left_out > 0 { p.muted { "… and " (number(left_out)) " more, all of them in the JSON report." } }
    }
}

/// Where a drill restored to, and what kept it in.
pub(crate) fn sandbox(sandbox: &Sandbox) -> String {
    let mut parts = vec![match (sandbox.kind.as_str(), sandbox.sealed) {
        ("none", _) => "no sandbox: a directory of its own, NOT SEALED".to_owned(),
        (kind, Some(true)) => format!("a sealed {kind} sandbox"),
        (kind, _) => format!("a {kind} sandbox"),
    }];
    if !sandbox.server_version.is_empty() {
        parts.push(format!("PostgreSQL {}", sandbox.server_version));
    }
    parts.push(format!("network: {}", sandbox.network));
    parts.push(format!("account {}", sandbox.account));
    if !sandbox.namespaces.is_empty() {
        parts.push(format!("namespaces: {}", sandbox.namespaces.join(", ")));
    }
    parts.extend(sandbox.landlock_abi.map(|abi| format!("Landlock {abi}")));
    parts.extend(sandbox.engine.iter().cloned());
    parts.extend(sandbox.images.iter().map(|image| format!("{} image {} ({})", image.part, image.reference, image.id)));
    if !sandbox.limits.is_empty() {
        parts.push(format!("limits: {}", sandbox.limits.join(", ")));
    }
    parts.join(" · ")
}

pub(crate) fn phases(record: &DrillRecord) -> Markup {
    html! {
        section {
            h2 { "Where the time went" }
            div.scroll { (charts::waterfall(&record.phases, record.rto.objective_seconds)) }
            div.scroll { table {
                thead { tr { th scope="col" { "Phase" } th scope="col" { "Began" } th.number scope="col" { "Seconds" } th scope="col" { "Basis" } th scope="col" { "Note" } } }
                tbody { @for phase in &record.phases { tr {
                    th scope="row" { (phase.name) }
                    td { @match phase.started_at { Some(at) => (at.format("%H:%M:%S%.3f")), None => span.muted { "–" } } }
                    td.number { (format!("{:.2}", phase.seconds)) }
                    td { (match phase.basis { Basis::Measured => "measured", Basis::Assumed => "assumed" }) }
                    td.muted { (phase.note.as_deref().unwrap_or_default()) }
                } } }
            } }
        }
    }
}

pub(crate) fn sources(record: &DrillRecord) -> Markup {
    html! {
        section {
            h2 { "What it was restored from" }
            @if record.sources.is_none() { p.alarm { "The drill failed before that was decided." } }
            dl {
                @if let Some(s) = &record.sources {
                    dt { "Base backup" } dd { (s.base_backup) " · manifest " code { (s.manifest) } }
                    dt { "Starts, consistent at" }
                    dd { code { (s.start_lsn) } " · " code { (s.stop_lsn) } " · timeline " (s.timeline.0) }
                    dt { "WAL" } dd { code { (s.wal_first) } " to " code { (s.wal_last) } }
                    @for f in &s.filestores {
                        dt { "Attachments of " (f.database) } dd { (f.capture) " · index " code { (f.index) } }
                    }
                    dt { "Configuration" }
                    dd { @match &s.configuration { Some(export) => (export), None => span.muted { "none was exported" } } }
                    dt { "Opened with keys" } dd { (s.key_ids.join(" · ")) }
                }
                dt { "Configuration in force" } dd { "SHA-256 " code { (record.config_digest) } }
                dt { "Program" }
                dd {
                    "Lifeboat " (record.tool.version)
                    @if let Some(sha256) = &record.tool.binary_sha256 { " · SHA-256 " code { (sha256) } }
                }
            }
        }
    }
}

/// How anybody gets at the entry's bytes, and what they must be.
fn by_hand(object: &str, place: &Place<'_>) -> (String, String) {
    let url = format!("{}/{object}", place.repository_url.trim_end_matches('/'));
    let cat = match url.split_once("://") {
        Some(("file", path)) => format!("cat {path}"),
        Some(("s3", _)) => format!("aws s3 cp {url} -"),
        _ => format!("cat {}", object.rsplit('/').next().unwrap_or(object)),
    };
    let sum = match url.strip_prefix("file://") {
        Some(path) => format!("sha256sum {path}"),
        None => format!("{cat} | sha256sum"),
    };
    (sum, format!("{cat} | jq -r .payload | base64 -d | jq .predicate.body"))
}

pub(crate) fn evidence(record: &DrillRecord, place: &Place<'_>) -> Markup {
    let object = place.object(&record.environment);
    let (sum, content) = by_hand(&object, place);
    let appended = place.appended;
    html! {
        section {
            h2 { "Evidence" }
            p {
                "This drill is entry " strong { (appended.sequence) } " of the ledger of " (record.environment)
                ". Entries are signed, and each names the hash of the one before it: none can be changed, removed or put in between without being noticed."
            }
            dl {
                dt { "Repository" } dd { code { (place.repository_url) } }
                dt { "Entry" } dd { code { (object) } }
                dt { "SHA-256 of the entry" } dd { code { (appended.sha256) } }
                dt { "Entry before it" } dd { @match &appended.previous { Some(sha256) => code { (sha256) }, None => "none: this is the first" } }
                dt { "Signed by" } dd { (place.signer_name) " · key " code { (appended.signer) } " · Ed25519 " code { (place.signer) } }
            }
            h3 { "Check it without this page" }
            p { "The whole ledger, its signatures, its links and its signed head; needs only the public keys:" }
            pre { "lifeboat evidence verify -e " (record.environment) }
            p { "The bytes of this entry; the answer must begin with " code { (appended.sha256.get(..16).unwrap_or(&appended.sha256)) "…" } ":" }
            pre { (sum) }
            p { "What the entry says, which is all that this page shows:" }
            pre { (content) }
        }
    }
}

pub(crate) fn cleanup(cleanup: &Cleanup) -> Markup {
    html! {
        section.short {
            h2 { "Cleaning up" }
            @if !cleanup.residue.is_empty() {
                p.note { "Still there: " (cleanup.residue.join(", ")) }
            }
            @match cleanup.verified_at {
                Some(at) if cleanup.residue.is_empty() => p { "Everything that the drill created is gone, verified at " (second(at)) "." },
                Some(at) => p { "Verified at " (second(at)) "." },
                None => p.note { "It was not verified that what the drill created is gone." },
            }
            dl {
                dt { "Created" } dd { (cleanup.created.join(", ")) }
                dt { "Destroyed" } dd { (cleanup.destroyed.join(", ")) }
            }
        }
    }
}

pub(crate) fn words() -> Markup {
    html! {
        section.short {
            h2 { "Words" }
            dl {
                dt { "RPO" } dd { "Recovery point objective: how much work, in time, may be lost in a disaster." }
                dt { "RTO" } dd { "Recovery time objective: how long it may take until the data is back." }
                dt { "Base backup, WAL" } dd { "A copy of the whole database cluster, and PostgreSQL's log of every change since; together they give any second." }
                dt { "Position (LSN), timeline" } dd { "A place in that log, and the branch of history that it is on." }
                dt { "Drill, sandbox" } dd { "A restore into a sealed place without a way out, which is checked, timed and destroyed." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples;

    #[test]
    fn failed_checks_come_first_and_hard_before_the_rest() {
        let record = examples::failed();
        let ids: Vec<&str> = in_order(&record.checks).iter().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["A1", "PG2", "A4", "A2", "A5", "P1", "PG1", "S3", "A7"]);
    }

    #[test]
    fn the_commands_fit_the_repository() {
        let appended = examples::appended();
        let file = by_hand("production/ledger/1.json", &examples::place(&appended));
        assert_eq!(file.0, "sha256sum /srv/backups/estate/production/ledger/1.json");
        let place = Place { repository_url: "s3://bucket/estate/", ..examples::place(&appended) };
        let s3 = by_hand("production/ledger/1.json", &place);
        assert_eq!(s3.0, "aws s3 cp s3://bucket/estate/production/ledger/1.json - | sha256sum");
        assert!(s3.1.contains("| jq -r .payload | base64 -d"));
    }
}

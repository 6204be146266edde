//! The report of a drill for people: one page that needs nothing else (no script, no font, no
//! network), reads on screen and on paper, in light and dark, and with a screen reader.
//!
//! It is a view of one ledger entry. First comes what a manager must know, then what an auditor
//! checks, and last how to check it without this page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::evidence::charts;
use crate::evidence::drill_record::{CheckResult, DrillRecord, MissingCause, Rpo, Severity, Verdict};
use crate::evidence::report_json::Place;
use crate::evidence::report_odoo;
use crate::evidence::report_outlook as outlook;
use crate::evidence::report_selftest::selftest;
use crate::evidence::report_tables as tables;
use crate::evidence::wording::{checks_summary, counted, day, number, result_word, span, time};
use crate::evidence::wording::{verdict_sentence, verdict_word};

/// How reports and the pages of the service look.
pub(crate) const STYLE: &str = include_str!("report.css");

/// The page.
pub fn render(record: &DrillRecord, place: &Place<'_>) -> String {
    let word = verdict_word(record.verdict);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (word) " · restore drill of " (record.environment) " · " (day(record.started_at)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Restore drill of " (record.environment) }
                    p { (day(record.started_at)) " · " (record.id) }
                }
                main { (sections(record, place)) }
                footer {
                    p {
                        "Made by Lifeboat " (record.tool.version) " from entry " (place.appended.sequence)
                        " of the ledger of " (record.environment) ". The ledger is the record; this page is a view of it."
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Everything between the head and the foot of the page.
pub(crate) fn sections(record: &DrillRecord, place: &Place<'_>) -> Markup {
    html! {
        (verdict(record))
        div.pair { (loss(record)) (speed(record)) }
        (findings(record))
        (restored(record))
        (outlook::sampling(record))
        (tables::checks(&record.checks))
        (selftest(record))
        (tables::attachments(&record.attachments))
        (report_odoo::odoo(record))
        (tables::phases(record))
        (outlook::outlook(place.outlook))
        (tables::sources(record))
        (tables::evidence(record, place))
        (tables::cleanup(&record.cleanup))
        (tables::words())
        div.signoff { span { "Reviewed by" } span { "Date" } span { "Signature" } }
    }
}

fn verdict(record: &DrillRecord) -> Markup {
    let (class, sign) = match record.verdict {
        Verdict::Passed => ("passed", "M13 23 l7 7 14 -15"),
        Verdict::Failed => ("failed", "M14 14 l16 16 M30 14 l-16 16"),
        Verdict::ObjectiveMissed => ("objective_missed", "M22 11 v14 M22 31 v2"),
        Verdict::NotCompleted => ("failed", "M22 11 v14 M22 31 v2"),
    };
    let reasons = reasons(record);
    html! {
        section class={ "verdict " (class) } aria-label="Verdict" {
            svg viewBox="0 0 44 44" aria-hidden="true" {
                circle cx="22" cy="22" r="20.5" fill="none" stroke="currentColor" stroke-width="3" {}
                path d=(sign) fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" stroke-linejoin="round" {}
            }
            div {
                p.word { (verdict_word(record.verdict)) }
                p.sentence { (verdict_sentence(record)) }
                @if !reasons.is_empty() { ul { @for reason in &reasons { li { (reason) } } } }
            }
        }
    }
}

/// What a failed drill shows under its verdict: every single reason, not a count.
fn reasons(record: &DrillRecord) -> Vec<String> {
    let mut reasons: Vec<String> = record.error.iter().cloned().collect();
    for check in record.checks.iter().filter(|check| check.fails_the_drill()) {
        let result = if check.result == CheckResult::Error { "could not be checked" } else { "does not hold" };
        reasons.push(format!("“{}” {result} in {}: {}", check.title, check.scope, check.detail));
    }
    for reconciled in &record.attachments {
        for missing in reconciled.missing.iter().filter(|m| m.cause == MissingCause::LostByUs).take(10) {
            let model = missing.model.as_deref().unwrap_or("no record");
            reasons.push(format!(
                "{}: attachment {} ({model}) is missing from the backup: {}",
                reconciled.database, missing.id, missing.store_fname
            ));
        }
        if reconciled.lost_by_us() > 10 {
            reasons.push(format!("… and {} more", number(reconciled.lost_by_us() as u64 - 10)));
        }
    }
    if let Some(test) = record.selftest.as_ref().filter(|test| test.drill == record.id && !test.is_complete()) {
        reasons.push(format!("The checks did not notice all damage: {}", test.score()));
    }
    if record.error.is_none() && !record.target.as_intended {
        reasons.push("Recovery is not known to have stopped where it was to stop".to_owned());
    }
    reasons
}

/// Whether an objective counts as met: of a failed drill, none does.
fn met(record: &DrillRecord, met: bool) -> Option<bool> {
    (!matches!(record.verdict, Verdict::Failed | Verdict::NotCompleted)).then_some(met)
}

fn met_line(met: Option<bool>, meaning: &str) -> Markup {
    html! {
        p {
            @match met {
                Some(true) => span.met { "Objective met" },
                Some(false) => span.not-met { "Objective missed" },
                None => span.not-met { "Counts for nothing: the drill failed" },
            }
            span.muted { " · " (meaning) }
        }
    }
}

fn loss(record: &DrillRecord) -> Markup {
    let Some(rpo) = &record.rpo else {
        return html! {
            section.short {
                h2 { "Data that would be lost" }
                p.figure { "not known" }
                p.alarm { "The drill did not get far enough to measure it." }
            }
        };
    };
    if rpo.left_out_on_purpose {
        return left_out(rpo);
    }
    let met = met(record, rpo.met);
    let components = [
        ("Database", rpo.components.database),
        ("Attachments", rpo.components.filestore),
        ("Configuration", rpo.components.configuration),
        ("All of them in agreement", rpo.components.composite),
    ];
    html! {
        section.short {
            h2 { "Data that would be lost " span.muted { "(RPO)" } }
            p.figure {
                (span(rpo.measured_seconds())) " "
                @if let Some(lost) = rpo.lost_transactions { small { (counted(lost, "transaction", "transactions")) } }
            }
            (charts::objective_bar("Data that would be lost", rpo.measured_seconds(), 0.0, rpo.objective_seconds, met))
            (met_line(met, "the time from the last state that can be restored to the disaster"))
            dl {
                @for (name, seconds) in components {
                    dt { (name) }
                    dd { @match seconds { Some(seconds) => (span(seconds)), None => span.muted { "not measured" } } }
                }
                (outlook::loss_figures(rpo))
            }
        }
    }
}

/// Of a drill to a chosen moment of the past the objective says nothing.
fn left_out(rpo: &Rpo) -> Markup {
    html! {
        section.short {
            h2 { "Data that would be lost " span.muted { "(RPO)" } }
            p.figure { "not asked" }
            p { "This drill went to a chosen moment of the past: what was committed after it was left out on purpose. A drill to the latest transaction is held against the objective of " (span(rpo.objective_seconds)) "." }
            dl { (outlook::loss_figures(rpo)) }
        }
    }
}

fn speed(record: &DrillRecord) -> Markup {
    let rto = &record.rto;
    let met = met(record, rto.met);
    let Some(total) = rto.total_seconds() else {
        return html! {
            section.short {
                h2 { "Time until the data is back" }
                p.figure { "not reached" }
                p.alarm { "The data was not brought back; the objective is " (span(rto.objective_seconds)) "." }
            }
        };
    };
    let measured = rto.measured_seconds.unwrap_or_default();
    html! {
        section.short {
            h2 { "Time until the data is back " span.muted { "(RTO)" } }
            p.figure {
                (span(total)) " "
                @if rto.assumed_seconds > 0.0 { small { (span(measured)) " of it measured" } }
            }
            (charts::objective_bar("Time until the data is back", measured, rto.assumed_seconds, rto.objective_seconds, met))
            (met_line(met, "from the disaster to data that is restored and checked"))
            dl {
                dt { "Measured" } dd { (span(measured)) span.muted { " from an empty machine to checked data" } }
                dt { "Assumed" }
                dd {
                    @if rto.assumed_seconds > 0.0 {
                        (span(rto.assumed_seconds)) span.muted { " for what a drill cannot measure (dashed)" }
                    } @else { span.muted { "nothing: people, decisions and switching over come on top" } }
                }
                dt { "Objective" } dd { (span(rto.objective_seconds)) }
            }
        }
    }
}

fn findings(record: &DrillRecord) -> Markup {
    let baseline = record.checks.iter().filter(|check| {
        check.severity != Severity::Hard && matches!(check.result, CheckResult::Failed | CheckResult::Error)
    });
    let mut all = record.findings.clone();
    all.extend(
        baseline
            .map(|check| format!("{} ({}): {}, {}", check.title, check.scope, result_word(check.result), check.detail)),
    );
    html! {
        @if !all.is_empty() {
            section {
                h2 { "What somebody should look at" }
                @for finding in &all { p.note { (finding) } }
            }
        }
    }
}

fn restored(record: &DrillRecord) -> Markup {
    let rpo = record.rpo.as_ref();
    html! {
        section.short {
            h2 { "What was restored" }
            dl {
                dt { @if rpo.is_some_and(|r| r.left_out_on_purpose) { "Drilled at" } @else { "Disaster supposed at" } } dd { (time(record.incident_time)) }
                dt { "Asked for" } dd { (record.target.requested) @if let Some(sampling) = &record.sampling { span.muted { " · " (sampling.why) } } }
                dt { "Restored up to" }
                dd {
                    @match &record.target.actual {
                        Some(stop) => {
                            @if let Some(at) = stop.time { (time(at)) " · " }
                            "position " code { (stop.lsn) } " on timeline " (stop.timeline.0)
                            @if record.target.as_intended { span.muted { ", where it was to stop" } }
                        }
                        None => span.not-met { "recovery did not get to an end" }
                    }
                }
                dt { "Last transaction kept" }
                dd { @match rpo.and_then(|r| r.last_recovered_commit_time) {
                    Some(at) => (time(at)),
                    None => span.muted { "not known" },
                } }
                dt { "Transactions " (rpo.map_or("lost", outlook::left)) }
                dd { @match rpo.and_then(|r| r.lost_transactions) {
                    Some(lost) => (number(lost)),
                    None => span.muted { "not counted" },
                } }
                dt { "Checks" } dd { (checks_summary(&record.checks)) }
                @for reconciled in &record.attachments {
                    dt { "Attachments of " (reconciled.database) }
                    dd {
                        (number(reconciled.verified)) " of " (number(reconciled.referenced)) " restored, content verified"
                        @if reconciled.lost_by_us() > 0 { ", " span.not-met { (number(reconciled.lost_by_us() as u64)) " lost by the backup" } }
                    }
                }
                @if let Some(sandbox) = &record.sandbox {
                    dt { "Restored into" }
                    dd { (tables::sandbox(sandbox)) }
                }
                dt { "Owner and purpose" } dd { (record.owner) " · " (record.purpose) }
                dt { "Run by" } dd { (record.operator) " · " (tables::trigger(&record.trigger)) }
                dt { "Began and ended" } dd { (time(record.started_at)) " to " (time(record.finished_at)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples;

    fn page(record: &DrillRecord) -> String {
        let appended = examples::appended();
        let page = render(record, &examples::place(&appended));
        // For looking at the pages: LIFEBOAT_PAGES=/tmp/pages cargo test report_html
        if let Some(folder) = std::env::var_os("LIFEBOAT_PAGES") {
            let name = format!("{:?}-{}.html", record.verdict, record.checks.len());
            std::fs::write(std::path::Path::new(&folder).join(name), &page).expect("written");
        }
        page
    }

    #[test]
    fn a_page_needs_nothing_else_and_trusts_no_content() {
        for record in [examples::passed(), examples::failed(), examples::missed(), examples::crashed()] {
            let page = page(&record);
            for foreign in ["<script", "<link", "<img", "url(", "@import", " onload"] {
                assert!(!page.contains(foreign), "{foreign}");
            }
            let http: Vec<&str> = page.match_indices("http").map(|(at, _)| &page[at..at + 10]).collect();
            assert_eq!(http, ["http-equiv"], "no address outside the page");
        }
        assert!(page(&examples::failed()).contains("&lt;script&gt;alert('never')"));
    }

    #[test]
    fn a_failure_cannot_be_missed() {
        let page = page(&examples::failed());
        assert!(page.contains("<title>Failed"));
        let (top, _) = page.split_once("Data that would be lost").expect("below the verdict");
        for reason in [
            "Do not rely on this backup",
            "“Every journal entry balances” does not hold in retail",
            "could not be checked",
            "3f/3f786850",
        ] {
            assert!(top.contains(reason), "{reason}");
        }
        assert!(!page.contains("Objective met"), "no praise for a restore that is not sound");
        assert!(page.contains("Still there: PostgreSQL server (pid 48213)"));
        assert!(page.contains("BNK1/2026/00079"), "a failed baseline check is a finding");
    }

    #[test]
    fn everything_in_the_record_that_can_be_checked_is_on_the_page() {
        let (record, appended) = (examples::passed(), examples::appended());
        let page = page(&record);
        let sources = record.sources.as_ref().expect("sources");
        let (manifest, index) = (sources.manifest.as_str(), sources.filestores[0].index.as_str());
        let binary = record.tool.binary_sha256.as_deref().expect("hash");
        for wanted in [
            &appended.sha256,
            appended.previous.as_deref().expect("previous"),
            &appended.signer,
            manifest,
            index,
            binary,
            &record.config_digest,
            "3/A4127F80",
            "2026-11-22 02:59:59.160 UTC",
            "4711",
            "0000000100000003000000A4",
            "sha256sum /srv/backups/estate/production/ledger/00000000000000004711.json",
            "lifeboat evidence verify -e production",
            "906",
        ] {
            let found = page.contains(wanted) || page.replace('\u{202f}', "").contains(wanted);
            assert!(found, "{wanted}");
        }
        for check in &record.checks {
            assert!(page.contains(&check.title) && page.contains(&check.why), "{}", check.id);
        }
    }

    #[test]
    fn a_crashed_drill_claims_nothing() {
        let page = page(&examples::crashed());
        for wanted in
            ["not known", "not reached", "none was run", "Nothing was checked.", "recovery did not get to an end"]
        {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert!(!page.contains("Objective met"));
    }
}

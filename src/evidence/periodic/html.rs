//! The report of a period as a page: one that needs nothing else, for the screen and for paper.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{DrillLine, PeriodReport, sentence};
use crate::evidence::drill_record::Verdict;
use crate::evidence::summary::SummaryRow;
use crate::evidence::wording::{bytes, counted, number, second, span, verdict_word};

const STYLE: &str = include_str!("../report.css");

/// One page about all of `reports`, which are of one period.
pub fn page(reports: &[PeriodReport]) -> String {
    let period = reports.first().map_or("", |r| r.period.name.as_str());
    let title = match reports {
        [one] => format!("{} in {period}", one.environment),
        many => format!("{} in {period}", counted(many.len() as u64, "environment", "environments")),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Backup and recovery · " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Backup and recovery of " (title) }
                    @if let Some(first) = reports.first() { p { "made " (second(first.written_at)) } }
                }
                main {
                    @if reports.len() > 1 { (overview(reports)) }
                    @for report in reports { (environment(report, reports.len() > 1)) }
                    div.signoff { span { "Reviewed by" } span { "Date" } span { "Signature" } }
                }
                footer { p { "Every line comes from the signed ledgers; they are the record, this page is a view of them." } }
            }
        }
    };
    page.into_string()
}

fn overview(reports: &[PeriodReport]) -> Markup {
    html! {
        section {
            h2 { "All environments" }
            div.scroll { table {
                thead { tr { th scope="col" { "Environment" } th scope="col" { "Owner" } th scope="col" { "What was done" } th.number scope="col" { "To look at" } } }
                tbody { @for report in reports { tr.row-warn[!report.attention.is_empty()] {
                    th scope="row" { (report.environment) }
                    td { (report.owner) }
                    td { (sentence(report)) }
                    td.number { (report.attention.len()) }
                } } }
            } }
        }
    }
}

fn environment(report: &PeriodReport, several: bool) -> Markup {
    let good = report.attention.is_empty();
    let (class, word) = if good { ("passed", "As it should be") } else { ("objective_missed", "To look at") };
    html! {
        section class={ "verdict " (class) } aria-label={ "Verdict of " (report.environment) } {
            svg viewBox="0 0 44 44" aria-hidden="true" {
                circle cx="22" cy="22" r="20.5" fill="none" stroke="currentColor" stroke-width="3" {}
                path d=(if good { "M13 23 l7 7 14 -15" } else { "M22 11 v14 M22 31 v2" }) fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" stroke-linejoin="round" {}
            }
            div {
                p.word { @if several { (report.environment) " · " } (word) }
                p.sentence { (sentence(report)) }
                @if !good { ul { @for line in &report.attention { li { (line) } } } }
            }
        }
        div.pair { (objective(report, true)) (objective(report, false)) }
        (drills(report))
        (backups(report))
        (drift(report))
        (rows("Failed, or not done in time", &report.troubles, "Nothing failed, nothing was left out."))
        (restores(report))
        @if !report.others.is_empty() { (rows("Everything else", &report.others, "")) }
        (evidence(report))
    }
}

fn objective(report: &PeriodReport, loss: bool) -> Markup {
    let a = &report.attainment;
    let (title, (met, measured), worst, limit) = match loss {
        true => ("Data that would be lost", a.rpo, a.worst_rpo_seconds, report.rpo_objective_seconds),
        false => ("Time until the data is back", a.rto, a.worst_rto_seconds, report.rto_objective_seconds),
    };
    html! {
        section.short {
            h2 { (title) span.muted { @if loss { " (RPO)" } @else { " (RTO)" } } }
            @match worst {
                Some(worst) => p.figure { (span(worst)) " " small { "at worst" } },
                None => p.figure { "not measured" },
            }
            p {
                @if measured == 0 { span.not-met { "No drill measured it" } }
                @else if met == measured { span.met { "Met in all of " (counted(measured, "drill", "drills")) } }
                @else { span.not-met { "Met in " (met) " of " (counted(measured, "drill", "drills")) } }
                span.muted { " · objective " (span(limit)) }
            }
        }
    }
}

fn drills(report: &PeriodReport) -> Markup {
    let badge = |drill: &DrillLine| match drill.verdict {
        Verdict::Passed => "badge is-passed",
        Verdict::ObjectiveMissed => "badge is-warn",
        Verdict::Failed | Verdict::NotCompleted => "badge is-failed",
    };
    html! {
        section {
            h2 { "Drills" }
            @if report.drills.is_empty() { p.alarm { "None: nothing was proven in this period." } }
            @else { div.scroll { table {
                thead { tr { th scope="col" { "Ended" } th scope="col" { "Verdict" } th scope="col" { "Moment" } th.number scope="col" { "Lost" } th.number scope="col" { "Back after" } th.number scope="col" { "Entry" } } }
                tbody { @for drill in &report.drills { tr.row-bad[drill.verdict != Verdict::Passed] {
                    th scope="row" { (second(drill.at)) span.why { (drill.id) } }
                    td { span class=(badge(drill)) { (verdict_word(drill.verdict)) }
                         @if drill.failed_checks > 0 { span.why { (counted(drill.failed_checks, "check", "checks")) " failed" } }
                         @if let Some(error) = &drill.error { span.why { (error) } } }
                    td { @match drill.sampling { Some(method) => (format!("{method:?}").to_lowercase()), None => span.muted { "–" } } }
                    td.number { @match drill.rpo_seconds { Some(s) => (span(s)), None => span.muted { "–" } } }
                    td.number { @match drill.rto_seconds { Some(s) => (span(s)), None => span.muted { "–" } } }
                    td.number { (drill.sequence) }
                } } }
            } } }
        }
    }
}

fn backups(report: &PeriodReport) -> Markup {
    let stored: u64 = report.bases.iter().map(|base| base.stored_bytes).sum();
    let newest = report.bases.last();
    let wal = report.kinds.get("wal_range").copied().unwrap_or_default();
    html! {
        section.short {
            h2 { "Backups" }
            dl {
                dt { "Base backups" }
                dd { (number(report.bases.len() as u64)) ", " (bytes(stored)) " stored"
                     @if let Some(base) = newest { span.muted { " · the newest of " (second(base.at)) ", " (bytes(base.logical_bytes)) ", took " (span(base.seconds)) } } }
                dt { "Longest without one" }
                dd { @match report.longest_without_base_seconds { Some(s) => (span(s)), None => span.muted { "–" } } }
                dt { "WAL" } dd { (counted(wal, "range", "ranges")) " recorded as complete" }
                dt { "Filestore captures" } dd { (number(report.captures.0)) @if report.captures.1 > 0 { ", " span.not-met { (report.captures.1) " with something to look at" } } }
                dt { "Configuration exports" } dd { (number(report.exports.0)) @if report.exports.1 > 0 { ", " span.not-met { (report.exports.1) " incomplete" } } }
            }
        }
    }
}

fn drift(report: &PeriodReport) -> Markup {
    html! {
        @if !report.drift.is_empty() {
            section {
                h2 { "Changes of the configuration" }
                div.scroll { table {
                    thead { tr { th scope="col" { "Export" } th scope="col" { "Critical" } th.number scope="col" { "Others" } th.number scope="col" { "Entry" } } }
                    tbody { @for line in &report.drift { tr.row-warn[!line.critical.is_empty()] {
                        th scope="row" { (second(line.at)) }
                        td { @if line.critical.is_empty() { span.muted { "–" } }
                             @for change in &line.critical { div { (change) @if let Some(why) = &change.why { span.why { (why) } } } } }
                        td.number { (line.others) }
                        td.number { (line.sequence) }
                    } } }
                } }
            }
        }
    }
}

fn restores(report: &PeriodReport) -> Markup {
    html! {
        section {
            h2 { "Restores" }
            @if report.restores.is_empty() { p.muted { "None." } }
            @else { div.scroll { table {
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } th.number scope="col" { "Took" } th.number scope="col" { "Entry" } } }
                tbody { @for restore in &report.restores { tr {
                    th scope="row" { (second(restore.at)) } td { (restore.summary) } td.number { (span(restore.seconds)) } td.number { (restore.sequence) }
                } } }
            } } }
        }
    }
}

fn rows(title: &str, rows: &[SummaryRow], none: &str) -> Markup {
    html! {
        section {
            h2 { (title) }
            @if rows.is_empty() { p.muted { (none) } }
            @else { div.scroll { table {
                thead { tr { th scope="col" { "When" } th scope="col" { "Kind" } th scope="col" { "What" } th.number scope="col" { "Entry" } } }
                tbody { @for row in rows { tr.row-warn[row.bad] {
                    th scope="row" { (second(row.recorded_at)) } td { (row.kind.replace('_', " ")) } td { (row.summary) } td.number { (row.sequence) }
                } } }
            } } }
        }
    }
}

fn evidence(report: &PeriodReport) -> Markup {
    html! {
        section.short {
            h2 { "Evidence" }
            dl {
                dt { "Entries" }
                dd { @match report.entries { Some((first, last)) => { (first) " to " (last) " of the ledger of " (report.environment) }, None => "none in this period" } }
                @if let Some(sha256) = &report.last_entry { dt { "SHA-256 of the last one" } dd { code { (sha256) } } }
                dt { "Ledger" }
                dd { @if report.ledger_problems.is_empty() { "every signature, link and place was checked when this was made" }
                     @else { span.not-met { (counted(report.ledger_problems.len() as u64, "problem", "problems")) } } }
                dt { "Owner and purpose" } dd { (report.owner) " · " (report.purpose) }
            }
            pre { "lifeboat evidence verify -e " (report.environment) }
        }
    }
}

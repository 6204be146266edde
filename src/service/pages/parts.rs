//! Small pieces that several pages use.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::layout::csrf;
use crate::config::Role;
use crate::evidence::wording::{bytes, second, span};
use crate::service::advice::{Advice, Severity};
use crate::service::http::visitor::Visitor;
use crate::service::state::{EstateView, FinishedJob, JobOutcome, RunningJob, Upcoming};

/// A time of day, with seconds.
pub(crate) fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// How long ago, or how long until: `2 min ago`, `in 3 h`, with the exact time behind it.
pub(crate) fn ago(now: DateTime<Utc>, at: DateTime<Utc>) -> Markup {
    let seconds = (now - at).as_seconds_f64();
    let words = match seconds {
        s if s.abs() < 1.0 => "just now".to_owned(),
        s if s > 0.0 => format!("{} ago", rough(s)),
        s => format!("in {}", rough(-s)),
    };
    html! { time datetime=(at.to_rfc3339()) title=(second(at)) { (words) } }
}

/// A span in at most two units, without fractions of a second: for reading at a glance.
pub(crate) fn rough(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", whole.max(1)),
        (0, 0, m) if m < 10 && !whole.is_multiple_of(60) => format!("{m} min {} s", whole % 60),
        (0, 0, m) => format!("{m} min"),
        (0, h, 0) => format!("{h} h"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, 0, _) => format!("{d} d"),
        (d, h, _) if d < 7 => format!("{d} d {h} h"),
        (d, ..) => format!("{d} d"),
    }
}

/// A time with its age.
pub(crate) fn time_and_age(now: DateTime<Utc>, at: DateTime<Utc>) -> Markup {
    html! { (clock(at)) " " span.muted { "(" (ago(now, at)) ")" } }
}

/// The class that a severity has.
pub(crate) fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "is-good",
        Severity::Unknown => "is-unknown",
        Severity::Look => "is-look",
        Severity::Bad => "is-bad",
    }
}

/// A severity in a word or two, so that colour is not needed.
pub(crate) fn badge(severity: Severity) -> Markup {
    let words = match severity {
        Severity::Good => "good",
        Severity::Unknown => "not known yet",
        Severity::Look => "look at it",
        Severity::Bad => "act now",
    };
    html! { span class={ "badge " (class(severity)) } { (words) } }
}

/// What is wrong and what to do.
pub(crate) fn advice(all: &[Advice]) -> Markup {
    html! {
        @for one in all {
            div class={ "advice " (match one.severity { Severity::Bad => "alarm", _ => "note" }) } {
                p { (first_upper(&one.what)) }
                @if !one.to_do.is_empty() { ul { @for todo in &one.to_do { li { (code_in(todo)) } } } }
            }
        }
    }
}

/// A text whose parts in backquotes are code.
pub(crate) fn code_in(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A sentence begins with a capital letter, unless it begins with a name.
pub(crate) fn first_upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A command that can be copied.
pub(crate) fn command(text: &str) -> Markup {
    html! { div.command { pre { (text) } } }
}

/// The jobs that run, of one environment or of all that somebody may see.
pub(crate) fn running(view: &EstateView, visitor: &Visitor, environment: Option<&str>, now: DateTime<Utc>) -> Markup {
    let shown = |job: &&RunningJob| visitor.sees(&job.environment) && environment.is_none_or(|e| e == job.environment);
    let jobs: Vec<&RunningJob> = view.jobs_running.iter().filter(shown).collect();
    html! {
        @if !jobs.is_empty() {
            section.jobs aria-label="Running jobs" {
                h2 { "Running now" }
                @for job in jobs { (running_job(job, visitor, now)) }
            }
        }
    }
}

fn running_job(job: &RunningJob, visitor: &Visitor, now: DateTime<Utc>) -> Markup {
    let phase = job.phase.as_ref();
    let far = phase.map(|phase| match (phase.bytes, phase.total) {
        (0, _) => phase.name.clone(),
        (passed, Some(total)) => format!("{}, {} of {}", phase.name, bytes(passed), bytes(total)),
        (passed, None) => format!("{}, {}", phase.name, bytes(passed)),
    });
    let total = phase.and_then(|phase| phase.total).filter(|total| *total > 0);
    let label = format!("Progress of {} of {}", job.kind, job.environment);
    html! {
        div.job data-run=(job.run) {
            div.line {
                p {
                    strong { (job.kind) } " of " a href={ "/environments/" (job.environment) } { (job.environment) }
                    span.muted {
                        @match job.started_at {
                            Some(at) => { ", began " (ago(now, at)) },
                            None => { ", waits for a place since " (ago(now, job.since)) },
                        }
                        @if let Some(by) = &job.requested_by { ", asked for by " (by) }
                        @if job.stopping { ", is being ended" }
                    }
                }
                @if visitor.role >= Role::Operator && !job.stopping {
                    form method="post" action={ "/jobs/" (job.run) "/cancel" } {
                        (csrf(visitor))
                        button.danger type="submit" { "End it" span.hidden { " (" (job.kind) " of " (job.environment) ")" } }
                    }
                }
            }
            @if job.started_at.is_some() {
                p.phase.muted { @match &far { Some(far) => (far), None => "at work" } }
                @match (total, phase) {
                    (Some(total), Some(phase)) => progress max=(total) value=(phase.bytes.min(total)) aria-label=(label) {},
                    _ => progress aria-label=(label) {},
                }
            }
            @for warning in &job.warnings { p.why { "warning: " (warning) } }
        }
    }
}

/// Jobs that ended.
pub(crate) fn finished<'a>(
    jobs: impl Iterator<Item = &'a FinishedJob>,
    now: DateTime<Utc>,
    with_environment: bool,
) -> Markup {
    let jobs: Vec<&FinishedJob> = jobs.collect();
    html! {
        @if jobs.is_empty() { p.muted { "None since this instance was started; the ledger has all before." } } @else {
            div.scroll { table.stack {
                caption.hidden { "Jobs that ended, newest first" }
                thead { tr {
                    th scope="col" { "Job" }
                    @if with_environment { th scope="col" { "Environment" } }
                    th scope="col" { "Ended" } th scope="col" { "Took" } th scope="col" { "Result" }
                } }
                tbody { @for job in jobs { (finished_job(job, now, with_environment)) } }
            } }
        }
    }
}

fn finished_job(job: &FinishedJob, now: DateTime<Utc>, with_environment: bool) -> Markup {
    let (row, badge, word) = match job.outcome {
        JobOutcome::Done => ("", "is-passed", "done"),
        JobOutcome::Partial => ("row-warn", "is-warn", "partial"),
        JobOutcome::Failed => ("row-bad", "is-failed", "failed"),
        JobOutcome::Interrupted => ("row-warn", "is-warn", "ended"),
    };
    html! {
        tr class=(row) {
            th scope="row" { (job.kind) @if let Some(by) = &job.requested_by { span.why { "asked for by " (by) } } }
            @if with_environment { td data-label="environment" { a href={ "/environments/" (job.environment) } { (job.environment) } } }
            td.time data-label="ended" { (ago(now, job.finished_at)) }
            td.time data-label="took" { (span((job.finished_at - job.started_at).as_seconds_f64())) }
            td {
                span class={ "badge " (badge) } { (word) }
                @if !job.message.is_empty() { span.why { (job.message) } }
                @for hint in &job.hints { span.why { "what to do: " (code_in(hint)) } }
            }
        }
    }
}

/// What is due.
pub(crate) fn upcoming<'a>(
    due: impl Iterator<Item = &'a Upcoming>,
    now: DateTime<Utc>,
    with_environment: bool,
) -> Markup {
    let due: Vec<&Upcoming> = due.collect();
    html! {
        @if due.is_empty() { p.muted { "Nothing is due here." } } @else {
            div.scroll { table.stack {
                caption.hidden { "What is due, soonest first" }
                thead { tr {
                    th scope="col" { "When" } th scope="col" { "Job" }
                    @if with_environment { th scope="col" { "Environment" } }
                    th scope="col" { "What stands against it" }
                } }
                tbody { @for next in due {
                    tr class=(if next.because.is_some() { "row-warn" } else { "" }) {
                        td.time { (clock(next.scheduled_for)) " " span.muted { "(" (ago(now, next.scheduled_for)) ")" } }
                        th scope="row" { (next.kind) span.why { (next.job) } }
                        @if with_environment { td data-label="environment" { a href={ "/environments/" (next.environment) } { (next.environment) } } }
                        td {
                            @if let Some(because) = &next.because { (because) }
                            @if let Some(expected) = next.expected_at.filter(|at| *at != next.scheduled_for) {
                                span.why { "expected " (clock(expected)) }
                            }
                        }
                    }
                } }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_at_a_glance() {
        let said = [0.2, 59.0, 61.0, 754.0, 3600.0, 5000.0, 90_000.0, 700_000.0].map(rough);
        assert_eq!(said, ["1 s", "59 s", "1 min 1 s", "12 min", "1 h", "1 h 23 min", "1 d 1 h", "8 d"]);
    }

    #[test]
    fn commands_stand_out_and_nothing_is_trusted() {
        let shown = code_in("run `lifeboat show -e <x>` now").into_string();
        assert_eq!(shown, "run <code>lifeboat show -e &lt;x&gt;</code> now");
    }
}

//! The self-test of the checks in a drill's report: whether this suite would have noticed.

use maud::{Markup, html};

use crate::evidence::drill_record::DrillRecord;
use crate::evidence::selftest::{DamageCase, DamageOutcome};
use crate::evidence::wording::{span, time};

/// The section; nothing where the checks were never tested.
pub(crate) fn selftest(record: &DrillRecord) -> Markup {
    let Some(test) = &record.selftest else { return html! {} };
    let own = test.drill == record.id;
    html! {
        section {
            h2 { "Are the checks any good?" }
            p {
                strong { (test.score()) }
                @if own { ", in copies of what this drill restored." }
                @else { ", by the last self-test, in drill " code { (test.drill) } " on " (time(test.finished_at)) "." }
            }
            div.scroll { table {
                caption { "Damage was done to copies of a sound restore; each had to turn a check red that was green before." }
                thead { tr {
                    th scope="col" { "Result" } th scope="col" { "Damage" } th scope="col" { "Found by" }
                    th.number scope="col" { "Time" }
                } }
                tbody { @for case in &test.cases { (row(case)) } }
            } }
        }
    }
}

fn row(case: &DamageCase) -> Markup {
    let (row, badge, word) = match case.outcome {
        DamageOutcome::Found => ("", "is-passed", "found"),
        DamageOutcome::Missed => ("row-bad", "is-failed", "missed"),
        DamageOutcome::Skipped => ("", "", "skipped"),
    };
    html! {
        tr class=(row) {
            td { span class={ "badge " (badge) } { (word) } }
            th scope="row" { (case.title) @if !case.detail.is_empty() { span.why { (case.detail) } } }
            td { (case.caught_by.join(", ")) }
            td.number { (span(case.seconds)) }
        }
    }
}

//! The parts of the report that look beyond this one drill: how its moment was chosen and how to draw
//! it again, what all drills have proven, and how long the next restore would take.

use maud::{Markup, html};

use crate::evidence::draw::Revealed;
use crate::evidence::drill_record::{DrillRecord, Rpo};
use crate::evidence::forecast::{Forecast, Rate};
use crate::evidence::outlook::Outlook;
use crate::evidence::proven::{Last, Proven};
use crate::evidence::ribbon::ribbon;
use crate::evidence::wording::{bytes, number, second, span};

/// Rows of a table that are shown; the JSON report has them all.
const SHOWN: usize = 12;

/// How the moment was chosen.
pub(crate) fn sampling(record: &DrillRecord) -> Markup {
    let draw = record.sampling.as_ref().and_then(|sampling| sampling.draw.as_ref());
    html! {
        @if let Some(draw) = draw {
            section {
                h2 { "How the moment was drawn" }
                p {
                    "Before anything was drawn, entry " strong { (draw.entry) } " of the ledger committed to the hash of a secret seed, and to all "
                    (number(draw.seconds)) " seconds that could be restored at that time. The second follows from both; nobody could pick a nice one afterwards, and a draw that is never revealed shows in the ledger."
                }
                dl {
                    dt { "Drawn" } dd { strong { (second(draw.second)) } span.muted { " · number " (number(draw.index)) " of " (number(draw.seconds)) ", from 0" } }
                    dt { "Committed by entry" } dd { (draw.entry) " · SHA-256 " code { (draw.entry_sha256) } }
                    dt { "Seed, now revealed" } dd { code { (draw.seed) } }
                }
                h3 { "Draw it again" }
                p { "Python, nothing else. It must print the number above; counted from 0 through the intervals of entry " (draw.entry) ", that is the second. " code { "lifeboat evidence verify" } " does this for every draw." }
                pre { (python(draw)) }
            }
        }
    }
}

/// What an auditor can paste.
fn python(draw: &Revealed) -> String {
    format!(
        "import hashlib, itertools\n\
         seed = bytes.fromhex(\"{}\")\n\
         entry = bytes.fromhex(\"{}\")\n\
         n = {}\n\
         block = lambda i: hashlib.sha256(b\"lifeboat draw 1\\n\" + seed + entry + i.to_bytes(8, \"big\")).digest()\n\
         numbers = (int.from_bytes(block(i)[:8], \"big\") for i in itertools.count())\n\
         print(next(x for x in numbers if x < 2**64 // n * n) % n, hashlib.sha256(seed).hexdigest())\n",
        draw.seed, draw.entry_sha256, draw.seconds
    )
}

/// The figures of loss, each with what it is.
pub(crate) fn loss_figures(rpo: &Rpo) -> Markup {
    let (purpose, left) = (rpo.left_out_on_purpose, left(rpo));
    let unseen = if purpose { "not counted" } else { "not known: nothing told what was committed last" };
    let bound = if purpose {
        " since the last transaction kept"
    } else {
        " since the last transaction kept; no more can be lost"
    };
    html! {
        dt { "Exposure" } dd { (span(rpo.exposure_seconds)) span.muted { (bound) } }
        dt { "Loss window" }
        dd { @match rpo.loss_window_seconds {
            Some(seconds) => { (span(seconds)) span.muted { " since the first transaction " (left) } },
            None => span.muted { (unseen) },
        } }
        dt { "Transactions " (left) }
        dd { @match rpo.lost_transactions { Some(lost) => (number(lost)), None => span.muted { (unseen) } } }
        dt { "WAL " (left) }
        dd { @match rpo.lost_bytes { Some(lost) => (bytes(lost)), None => span.muted { (unseen) } } }
    }
}

/// What is gone was lost, or left out.
pub(crate) fn left(rpo: &Rpo) -> &'static str {
    if rpo.left_out_on_purpose { "left out" } else { "lost" }
}

/// What all drills say.
pub(crate) fn outlook(outlook: Option<&Outlook>) -> Markup {
    html! {
        @if let Some(outlook) = outlook {
            (coverage(&outlook.coverage))
            (forecast(outlook.forecast.as_ref()))
        }
    }
}

fn coverage(proven: &Proven) -> Markup {
    html! {
        section {
            h2 { "What drills have proven so far" }
            @if proven.windows.is_empty() { p.alarm { "Nothing can be restored, so nothing is proven." } }
            div.scroll { (ribbon(&proven.windows, &proven.drills)) }
            p { (proven.random.sentence) }
            @for window in proven.windows.iter().filter(|w| w.proofs.is_empty()) {
                p.note { "No drill proved anything between " (second(window.from)) " and " (second(window.to)) "." }
            }
            div.scroll { table {
                thead { tr { th scope="col" { "What" } th scope="col" { "Last proven" } th scope="col" { "Age" } th scope="col" { "By drill" } } }
                tbody {
                    (lasts("Timeline", &proven.timelines))
                    (lasts("Database", &proven.databases))
                    (lasts("Base backup", &proven.bases))
                }
            } }
        }
    }
}

fn lasts(what: &str, list: &[Last]) -> Markup {
    let left_out = list.len().saturating_sub(SHOWN);
    html! {
        @for last in list.iter().rev().take(SHOWN) {
            tr class=(if last.proven_at.is_none() { "row-warn" } else { "" }) {
                th scope="row" { (what) " " (last.name) }
                td { @match last.proven_at { Some(at) => (second(at)), None => span.badge.is-warn { "never" } } }
                td { @if let Some(age) = last.age_seconds { (span(age)) } }
                td { @if let Some(drill) = &last.drill { (drill) } }
            }
        }
        @if left_out > 0 { tr { td.muted colspan="4" { "… and " (left_out) " older ones in the JSON report" } } }
    }
}

fn forecast(forecast: Option<&Forecast>) -> Markup {
    let rate = |rate: &Rate, amount: u64| {
        let fixed = span(rate.fixed_seconds);
        let fast = || format!("{} in a second", bytes((1.0 / rate.seconds_per_byte) as u64));
        let fitted = match (rate.fixed_seconds > 0.0, rate.seconds_per_byte > 0.0) {
            (true, true) => format!("{fixed}, then {}", fast()),
            (false, true) => fast(),
            (_, false) => format!("{fixed}, however much"),
        };
        let seconds = rate.fixed_seconds + rate.seconds_per_byte * amount as f64;
        html! { td.number { (bytes(amount)) } td { (fitted) } td.number { (span(seconds)) } }
    };
    html! {
        section.short {
            h2 { "How long the next restore would take" }
            @match forecast {
                None => p.muted { "No drill was measured yet." },
                Some(f) => {
                    p class=(if f.met { "" } else { "note" }) { (f.sentence) }
                    div.scroll { table {
                        thead { tr { th scope="col" { "Part" } th.number scope="col" { "Amount" } th scope="col" { "Fitted" } th.number scope="col" { "Predicted" } } }
                        tbody {
                            tr { th scope="row" { "Base backup" } (rate(&f.base, f.worst.base_bytes)) }
                            tr { th scope="row" { "WAL" } (rate(&f.replay, f.worst.wal_bytes)) }
                            tr { th scope="row" { "Attachments" } (rate(&f.attachments, f.worst.attachment_bytes)) }
                            tr { th scope="row" { "The rest" } td {} td { "the same every time" } td.number { (span(f.rest_seconds)) } }
                        }
                    } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::report_json::Place;
    use crate::evidence::{examples, examples_outlook, report_html};

    fn page(record: &DrillRecord) -> String {
        let (appended, outlook) = (examples::appended(), examples_outlook::outlook());
        let place = Place { outlook: Some(&outlook), ..examples::place(&appended) };
        let page = report_html::render(record, &place);
        // For looking at the pages: LIFEBOAT_PAGES=/tmp/pages cargo test report_outlook
        if let Some(folder) = std::env::var_os("LIFEBOAT_PAGES") {
            std::fs::write(std::path::Path::new(&folder).join(format!("outlook-{}.html", record.phases.len())), &page)
                .expect("written");
        }
        page
    }

    #[test]
    fn a_random_drill_tells_how_to_draw_again_and_the_program_on_the_page_does() {
        let record = examples_outlook::drawn();
        let draw = record.sampling.as_ref().and_then(|s| s.draw.as_ref()).expect("a draw");
        let page = page(&record);
        for wanted in [&draw.seed, &draw.entry_sha256, "How the moment was drawn", "not asked"] {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert!(!page.contains("Objective met</span><span class=\"muted\"> · the time from the last state"));
        let Ok(output) = std::process::Command::new("python3").args(["-c", &python(draw)]).output() else {
            println!("SKIPPED: no python3");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.split_whitespace().next(), Some(draw.index.to_string().as_str()), "{said}{output:?}");
    }

    #[test]
    fn the_page_says_what_drills_prove_and_predict() {
        let mut record = examples::passed();
        record.rpo.as_mut().expect("an RPO").lost_transactions = None;
        let page = page(&record);
        let outlook = examples_outlook::outlook();
        let forecast = outlook.forecast.expect("a forecast");
        for wanted in [
            outlook.coverage.random.sentence.as_str(),
            forecast.sentence.as_str(),
            "No drill proved anything between",
            "Loss window",
            "not known: nothing told what was committed last",
            "4.2 KiB",
        ] {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert!(sampling(&record).into_string().is_empty(), "nothing was drawn");
    }
}

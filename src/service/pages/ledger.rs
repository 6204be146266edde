//! Looking through a ledger: every line on these pages was verified when it was read, and what does not hold is told first.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Here, Page};
use super::parts;
use crate::evidence::{Body, VerifyReport, summary, verify_ledger};
use crate::service::answers;
use crate::service::api::extract::{Asked, At};
use crate::service::http::app::{App, busy};
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// Problems that are listed one by one.
const LISTED: usize = 20;

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Stretch {
    before: Option<u64>,
    /// Verify the whole ledger.
    verify: Option<u8>,
}

/// A stretch of a ledger.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    At(name): At<String>,
    Asked(stretch): Asked<Stretch>,
) -> Result<Markup, Problem> {
    let now = app.runtime.now();
    let report = match stretch.verify {
        Some(_) => Some(verified(&app, &name).await?),
        None => None,
    };
    let ledger = answers::ledger_page(&app, &name, stretch.before, answers::STRETCH).await?;
    let here = format!("/environments/{name}/ledger");
    let content = html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Estate" } " / " a href={ "/environments/" (name) } { (name) } " / " }
                h1 { "Ledger of " (name) }
            }
            p { a.button href={ (here) "?verify=1" } { "Verify the whole ledger" } }
        }
        @if let Some(report) = &report { (verdict(report)) }
        @if !ledger.problems.is_empty() {
            div.alarm {
                p { "This stretch of the ledger is damaged or was tampered with" }
                ul { @for problem in ledger.problems.iter().take(LISTED) { li { (problem) } } }
            }
        }
        section {
            @if ledger.entries.is_empty() { p.muted { "There is no entry here." } } @else {
                div.scroll { table.stack {
                    caption { "Newest first; signatures and links of these entries hold" }
                    thead { tr { th.number scope="col" { "No." } th scope="col" { "Recorded" } th scope="col" { "Kind" } th scope="col" { "What happened" } } }
                    tbody { @for row in &ledger.entries {
                        tr class=(if row.bad { "row-warn" } else { "" }) {
                            th.number scope="row" { a href={ (here) "/" (row.sequence) } { (row.sequence) } }
                            td.time { (parts::clock(row.recorded_at)) span.why { (parts::ago(now, row.recorded_at)) } }
                            td.nowrap { span.badge { (row.kind.replace('_', " ")) } }
                            td { (row.summary) }
                        }
                    } }
                } }
            }
            div.pager {
                span { @if stretch.before.is_some() { a href=(here) { "← Newest" } } }
                span { @if let Some(older) = ledger.older { a rel="next" href={ (here) "?before=" (older) } { "Older →" } } }
            }
        }
        p.muted {
            "The ledger is in the repository. Anybody verifies it with public keys alone: "
            code { "lifeboat evidence verify -e " (name) }
        }
    };
    let title = format!("Ledger of {name}");
    Ok(Page { title: &title, here: Here::Estate, visitor: Some(&visitor), live: false }.around(&app, &content))
}

async fn verified(app: &App, name: &str) -> Result<VerifyReport, Problem> {
    let _place = app.plans.clone().try_acquire_owned().map_err(|_| busy("verifications"))?;
    let repository = app.repository().await?;
    let trust = repository.trust().await?;
    Ok(verify_ledger(&repository.store, name, &repository.descriptor.repository, &trust).await?)
}

fn verdict(report: &VerifyReport) -> Markup {
    html! {
        section class={ "verdict quiet " (if report.ok { "passed" } else { "failed" }) } aria-label="Verification" {
            div {
                p.word { (if report.ok { "Verified" } else { "Damaged or tampered with" }) }
                p.sentence {
                    @if report.ok { "All " (report.entries) " entries hold: signatures, links, numbers, checkpoint." }
                    @else { (report.problems.len()) " of " (report.entries) " entries or their order do not hold." }
                }
                @if !report.problems.is_empty() {
                    ul { @for problem in report.problems.iter().take(LISTED) {
                        li { @if let Some(n) = problem.sequence { "entry " (n) ": " } (problem.what) }
                    } }
                }
            }
        }
        @for finding in report.findings.iter().take(LISTED) {
            p.note { @if let Some(n) = finding.sequence { "entry " (n) ": " } (finding.what) }
        }
    }
}

/// One entry.
pub(super) async fn entry(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    At((name, sequence)): At<(String, u64)>,
) -> Result<Markup, Problem> {
    let entry = answers::entry(&app, &name, sequence).await?;
    let trust = app.repository().await?.trust().await?;
    let said = &entry.statement.predicate;
    let row = summary::rows(std::slice::from_ref(&entry)).into_iter().next();
    let here = format!("/environments/{name}/ledger");
    let text = serde_json::to_string_pretty(&entry.statement).unwrap_or_default();
    let content = html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Estate" } " / " a href={ "/environments/" (name) } { (name) } " / " a href=(here) { "Ledger" } " / " }
                h1 { "Entry " (sequence) }
            }
            p { span.badge { (said.body.kind().replace('_', " ")) } }
        }
        section {
            @if let Some(row) = &row { p class=(if row.bad { "alarm" } else { "" }) { (row.summary) } }
            @if let Body::Drill(_) = &said.body { p { a href={ "/environments/" (name) "/drills/" (sequence) } { "The report of this drill" } } }
            dl {
                dt { "Recorded" } dd { (parts::time_and_age(app.runtime.now(), said.recorded_at)) }
                dt { "By" } dd { "Lifeboat " (said.recorded_by.version) " on " (said.recorded_by.host) }
                dt { "Signed by" }
                dd { @for id in &entry.signers { (trust.find(id).map_or("a key without a name", |key| &key.name)) " " code { (id) } " " } }
                dt { "SHA-256" } dd { code { (entry.sha256) } }
                dt { "Entry before" } dd { @match &said.previous { Some(previous) => code { (previous) }, None => span.muted { "this is the first" } } }
            }
        }
        section { h2 { "The statement that was signed" } pre { (text) } }
        div.pager {
            span { @if sequence > 1 { a rel="prev" href={ (here) "/" (sequence - 1) } { "← Entry " (sequence - 1) } } }
            span { a rel="next" href={ (here) "/" (sequence + 1) } { "Entry " (sequence + 1) " →" } }
        }
    };
    let title = format!("Entry {sequence} · Ledger of {name}");
    Ok(Page { title: &title, here: Here::Estate, visitor: Some(&visitor), live: false }.around(&app, &content))
}

//! The report of a drill, as `lifeboat drill run --report` writes it, within the site.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};

use super::layout::{Here, Page};
use crate::error;
use crate::evidence::report_html;
use crate::evidence::wording::day;
use crate::evidence::{Appended, Body, Place};
use crate::service::answers;
use crate::service::api::extract::At;
use crate::service::http::app::App;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// The page.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    At((name, sequence)): At<(String, u64)>,
) -> Result<Markup, Problem> {
    let entry = answers::entry(&app, &name, sequence).await?;
    let Body::Drill(record) = &entry.statement.predicate.body else {
        return Err(Problem::not_found(format!("entry {sequence} of the ledger is not a drill")));
    };
    let repository = app.repository().await?;
    let trust = repository.trust().await?;
    let signer = entry.signers.first().and_then(|id| trust.find(id));
    let signer = signer.ok_or_else(|| error::integrity(format!("entry {sequence} is signed by nobody that counts")))?;
    let appended = Appended {
        sequence,
        sha256: entry.sha256.clone(),
        previous: entry.statement.predicate.previous.clone(),
        signer: signer.key.id(),
    };
    let url = app.estate().repository.url.clone();
    let place = Place {
        repository_url: &url,
        appended: &appended,
        signer_name: &signer.name,
        signer: signer.key.clone(),
        // What all drills say now is on the environment's page; the report is about this one.
        outlook: None,
    };
    let content = html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Estate" } " / " a href={ "/environments/" (name) } { (name) } " / " }
                h1 { "Restore drill of " (name) }
            }
            p { (day(record.started_at)) " · " (record.id) }
        }
        (report_html::sections(record, &place))
    };
    let title = format!("Drill of {name}, {}", day(record.started_at));
    Ok(Page { title: &title, here: Here::Estate, visitor: Some(&visitor), live: false }.around(&app, &content))
}

//! For auditors and administrators: who did what, and who is signed in.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::layout::{Here, Page, csrf};
use super::parts;
use crate::service::api::extract::At;
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// Lines of the audit log that are shown.
const LINES: usize = 200;

/// The audit log.
pub(super) async fn audit(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Problem> {
    let lines = app.audit.newest(LINES)?;
    let content = html! {
        div.head { h1 { "Audit log" } p { "of this instance; what changed an environment is in its ledger as well" } }
        section {
            @if lines.is_empty() { p.muted { "Nothing happened yet." } } @else {
                div.scroll { table.stack {
                    caption.hidden { "What people did, newest first" }
                    thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Result" } th scope="col" { "From" } } }
                    tbody { @for line in &lines {
                        tr class=(if line.outcome.starts_with("refused") || line.action == "refused" { "row-warn" } else { "" }) {
                            td.time { (parts::clock(line.at)) }
                            td { @match &line.person { Some(person) => { (person) @if let Some(role) = &line.role { span.why { (role) } } }, None => span.muted { "nobody" } } }
                            th scope="row" { (line.action) @if !line.detail.is_empty() { span.why { (line.detail) } } }
                            td { (line.outcome) }
                            td.nowrap { (line.client) }
                        }
                    } }
                } }
            }
        }
    };
    Ok(Page { title: "Audit log", here: Here::Audit, visitor: Some(&visitor), live: false }.around(&app, &content))
}

/// Who is signed in.
pub(super) async fn sessions(State(app): State<Arc<App>>, visitor: Visitor) -> Markup {
    let now = app.runtime.now();
    let sessions = app.sessions.all(now);
    let content = html! {
        div.head { h1 { "Sessions" } p { "who is signed in to this page" } }
        section {
            @if sessions.is_empty() { p.muted { "Nobody." } } @else {
                div.scroll { table.stack {
                    caption.hidden { "Open sessions, oldest first" }
                    thead { tr { th scope="col" { "Who" } th scope="col" { "Signed in" } th scope="col" { "Seen" } th scope="col" { "Ends" } th scope="col" { "" } } }
                    tbody { @for session in &sessions {
                        tr {
                            th scope="row" { (session.visitor.name) span.why { (session.visitor.role) } }
                            td.time data-label="signed in" { (parts::ago(now, session.began)) }
                            td.time data-label="seen" { (parts::ago(now, session.last_seen)) }
                            td.time data-label="ends" { (parts::ago(now, session.ends)) }
                            td { form method="post" action={ "/sessions/" (session.number) "/end" } {
                                (csrf(&visitor))
                                button.danger type="submit" { "End it" span.hidden { " (session of " (session.visitor.name) ")" } }
                            } }
                        }
                    } }
                } }
            }
        }
    };
    Page { title: "Sessions", here: Here::Sessions, visitor: Some(&visitor), live: false }.around(&app, &content)
}

/// Ends the session of somebody.
pub(super) async fn end_session(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(session): At<u64>,
) -> Result<Redirect, Problem> {
    let whose = app.sessions.end_number(session).ok_or_else(|| Problem::not_found("there is no such session"))?;
    app.audit.note(&client, Some(&visitor), "end session", &format!("{session} of {}", whose.name), "done");
    Ok(Redirect::to("/sessions"))
}

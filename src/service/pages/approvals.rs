//! Restores that wait for a second person, and those that were decided.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Redirect;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Here, Page, csrf};
use super::parts;
use super::restore::Wish;
use crate::config::Role;
use crate::evidence::approval::{Approvals, Decision, Status};
use crate::service::answers;
use crate::service::api::extract::{At, Filled};
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// Decided ones that are shown for each environment.
const DECIDED: usize = 10;

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Markup, Problem> {
    let (view, now) = (app.view(), app.runtime.now());
    let (mut open, mut decided) = (Vec::new(), Vec::new());
    let mut troubles = Vec::new();
    for environment in app.seen_by(&view, &visitor) {
        match answers::all_approvals(&app, &environment.name).await {
            Ok(all) => {
                let (now_open, rest): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|a| matches!(a.status(now), Status::Waiting | Status::Approved));
                open.extend(now_open);
                decided.extend(rest.into_iter().take(DECIDED));
            }
            Err(problem) => troubles.push(format!("{}: {}", environment.name, problem.detail)),
        }
    }
    decided.sort_by_key(|approval| std::cmp::Reverse(approval.requested.at));
    let content = html! {
        div.head { h1 { "Approvals" } p { "A restore of a protected environment needs two people." } }
        @for trouble in &troubles { p.alarm { (trouble) } }
        @if open.is_empty() { section { p.muted { "No restore waits for approval, and none is approved." } } }
        @for approval in &open { (one(approval, &visitor, now)) }
        @if !decided.is_empty() {
            section {
                h2 { "Earlier" }
                div.scroll { table.stack {
                    caption.hidden { "Approvals that were used, denied or expired" }
                    thead { tr { th scope="col" { "Id" } th scope="col" { "Environment" } th scope="col" { "Asked" } th scope="col" { "Restore" } th scope="col" { "What became of it" } } }
                    tbody { @for approval in &decided {
                        tr class=(if approval.broken_glass { "row-bad" } else { "" }) {
                            th scope="row" { (approval.id) }
                            td { (approval.plan.environment) }
                            td.time { (parts::ago(now, approval.requested.at)) span.why { (approval.requested.person.name) } }
                            td { (approval.plan.target) span.why { "to " (approval.plan.place()) } }
                            td { (became(approval, now)) }
                        }
                    } }
                } }
            }
        }
    };
    Ok(Page { title: "Approvals", here: Here::Approvals, visitor: Some(&visitor), live: false }.around(&app, &content))
}

fn became(approval: &Approvals, now: DateTime<Utc>) -> Markup {
    let by = [&approval.used, &approval.denied].into_iter().flatten().next();
    html! {
        @if approval.broken_glass {
            span.badge.is-failed { "without approval" }
            @if let Some(reason) = &approval.requested.reason { span.why { (reason) } }
        } @else {
            (approval.status(now).words())
            @if let Some(by) = by { span.why { "by " (by.person.name) ", " (parts::ago(now, by.at)) @if let Some(reason) = &by.reason { ": " (reason) } } }
        }
    }
}

/// One that is open.
fn one(approval: &Approvals, visitor: &Visitor, now: DateTime<Utc>) -> Markup {
    let plan = &approval.plan;
    let status = approval.status(now);
    let own = plain(&approval.requested.person.name) == plain(&visitor.name);
    html! {
        section aria-labelledby={ "a-" (approval.id) } {
            h2 id={ "a-" (approval.id) } {
                "Restore of " (plan.environment) " "
                span class={ "badge " (if status == Status::Approved { "is-good" } else { "is-look" }) } { (status.words()) }
            }
            dl {
                dt { "Asked by" } dd { (said(&approval.requested, now)) }
                @if let Some(approved) = &approval.approved { dt { "Approved by" } dd { (said(approved, now)) } }
                dt { "To" } dd { (plan.target) span.why { "position " (plan.stop_lsn) " on timeline " (plan.timeline.0) } }
                dt { "Into" }
                dd {
                    @if plan.tenant.is_some() { strong { (plan.place()) } } @else { (plan.pgdata) " on " strong { (plan.host) } }
                    @if let Some(path) = &plan.filestore { span.why { "attachments: " (path) } }
                    @if let Some(path) = &plan.configuration { span.why { "configuration: " (path) } }
                    @if plan.delta { span.not-met { " over what lies there" } }
                    @if plan.force { span.not-met { ", giving up what the repository lacks" } }
                }
                dt { "Ends" } dd { @if let Some(until) = approval.until(now) { (parts::ago(now, until)) } }
                dt { "Id" } dd { code { (approval.id) } span.why { "plan " (approval.plan_sha256) } }
            }
            @if status == Status::Approved {
                h3 { "The command, once, on " (plan.host) }
                (parts::command(&plan.command(&approval.id)))
            }
            @if visitor.role >= Role::Approver {
                @if own && status == Status::Waiting { p.muted { "You asked for this: somebody else approves it." } }
                form.inline method="post" action={ "/environments/" (plan.environment) "/approvals/" (approval.id) "/deny" } {
                    (csrf(visitor))
                    div {
                        label for={ "r-" (approval.id) } { "Reason (goes into the ledger)" }
                        input id={ "r-" (approval.id) } type="text" name="reason" maxlength="500" autocomplete="off";
                    }
                    @if status == Status::Waiting && !own {
                        button.first type="submit" formaction={ "/environments/" (plan.environment) "/approvals/" (approval.id) "/approve" } { "Approve" }
                    }
                    button.danger type="submit" { (if status == Status::Approved { "Take it back" } else { "Deny" }) }
                }
            }
        }
    }
}

fn plain(name: &str) -> String {
    name.split('@').next().unwrap_or_default().trim().to_lowercase()
}

fn said(decision: &Decision, now: DateTime<Utc>) -> Markup {
    html! {
        (decision.person.to_string()) ", " (parts::ago(now, decision.at))
        @if let Some(reason) = &decision.reason { span.why { (reason) } }
    }
}

/// Asks for one.
pub(super) async fn request(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Filled(wish): Filled<Wish>,
) -> Result<Redirect, Problem> {
    let environment = app.environment(&name)?;
    let wanted = wish.wanted().ok_or_else(|| Problem::bad_request("nothing is said of where to restore to"))?;
    answers::request_approval(&app, &client, &visitor, &environment, &wanted).await?;
    Ok(Redirect::to("/approvals"))
}

/// The form of a decision.
#[derive(Debug, Deserialize)]
pub(super) struct Decide {
    reason: Option<String>,
}

/// Agrees.
pub(super) async fn approve(
    app: State<Arc<App>>,
    client: Extension<Client>,
    visitor: Visitor,
    at: At<(String, String)>,
    form: Filled<Decide>,
) -> Result<Redirect, Problem> {
    decide(app, client, visitor, at, form, true).await
}

/// Refuses.
pub(super) async fn deny(
    app: State<Arc<App>>,
    client: Extension<Client>,
    visitor: Visitor,
    at: At<(String, String)>,
    form: Filled<Decide>,
) -> Result<Redirect, Problem> {
    decide(app, client, visitor, at, form, false).await
}

async fn decide(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At((name, id)): At<(String, String)>,
    Filled(form): Filled<Decide>,
    agree: bool,
) -> Result<Redirect, Problem> {
    let environment = app.environment(&name)?;
    answers::decide(&app, &client, &visitor, &environment, &id, agree, form.reason.as_deref()).await?;
    Ok(Redirect::to("/approvals"))
}

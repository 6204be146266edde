//! The restore assistant: shows what a restore would do, and prints the exact command. It restores nothing itself: that
//! happens on the host that gets the data, where somebody sits who sees it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Here, Page, csrf};
use super::parts;
use crate::config::Environment;
use crate::evidence::approval::{PlannedRestore, quoted};
use crate::evidence::wording::{bytes, span, time};
use crate::restore::Plan;
use crate::service::answers;
use crate::service::api::extract::{Asked, At};
use crate::service::api::model::Wanted;
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;
use crate::service::view::View;

/// What the form says; an empty field is none.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Wish {
    to: Option<String>,
    pgdata: Option<String>,
    filestore: Option<String>,
    configuration: Option<String>,
    timeline: Option<String>,
    host: Option<String>,
    delta: Option<String>,
    force: Option<String>,
    reason: Option<String>,
}

fn given(field: &Option<String>) -> Option<String> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

impl Wish {
    /// What is wanted; `None` where the form was not filled in.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        Some(Wanted {
            to: given(&self.to)?,
            pgdata: given(&self.pgdata)?,
            filestore: given(&self.filestore),
            configuration: given(&self.configuration),
            timeline: given(&self.timeline).and_then(|n| n.parse().ok()),
            delta: self.delta.is_some(),
            force: self.force.is_some(),
            host: given(&self.host),
            reason: given(&self.reason),
        })
    }
}

/// The page.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Asked(wish): Asked<Wish>,
) -> Result<Markup, Problem> {
    let environment = app.environment(&name)?;
    let (view, now) = (app.view(), app.runtime.now());
    let shown = view.environment(&name).and_then(|e| e.view.clone());
    let planned = match wish.wanted() {
        Some(wanted) => {
            let planned = answers::plan(&app, &environment, &wanted).await;
            let outcome = planned.as_ref().map_or_else(|p| p.detail.clone(), |_| "shown".to_owned());
            let detail = format!("{name} to {} in {}", wanted.to, wanted.pgdata);
            app.audit.note(&client, Some(&visitor), "plan restore", &detail, &outcome);
            Some((wanted, planned))
        }
        None => None,
    };
    let content = html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Estate" } " / " a href={ "/environments/" (name) } { (name) } " / " }
                h1 { "Restore " (name) }
            }
        }
        @match &planned {
            Some((wanted, Ok((plan, bound)))) => (plan_of(&environment, wanted, plan, bound, &visitor)),
            Some((wanted, Err(problem))) => (no_plan(&name, wanted, problem)),
            None => {},
        }
        (form(&name, &wish, &app.host, shown.as_deref(), now))
        p.muted { "Nothing is touched by this page. What to do around a restore: " code { "runbooks/restore.md" } }
    };
    let title = format!("Restore {name}");
    Ok(Page { title: &title, here: Here::Estate, visitor: Some(&visitor), live: false }.around(&app, &content))
}

fn form(name: &str, wish: &Wish, host: &str, view: Option<&View>, now: DateTime<Utc>) -> Markup {
    let text = |field: &Option<String>, default: &str| given(field).unwrap_or_else(|| default.to_owned());
    html! {
        section {
            h2 { "What, and where to" }
            @if let Some(view) = view {
                @if view.windows.is_empty() { p.alarm { "Nothing can be restored." } }
                @for window in view.windows.iter().rev() {
                    p { "Any second from " strong { (parts::clock(window.from.time)) } " to " strong { (parts::clock(window.to.time)) } " UTC (" (parts::ago(now, window.to.time)) ")" }
                }
            }
            form.fields method="get" action={ "/environments/" (name) "/restore" } {
                label for="to" { "Restore to" }
                div {
                    input id="to" type="text" name="to" required value=(text(&wish.to, "latest")) autocomplete="off" spellcheck="false" aria-describedby="to-help";
                    p.help id="to-help" {
                        code { "latest" } ", a time with zone (" code { "2026-11-22 20:35:00+01:00" } "), "
                        code { "lsn:16/B374D848" } ", " code { "name:RESTORE_POINT" } " or " code { "backup:ID" }
                    }
                }
                label for="pgdata" { "Data directory" }
                div {
                    input id="pgdata" type="text" name="pgdata" required value=(text(&wish.pgdata, "/srv/restored/pgdata")) autocomplete="off" spellcheck="false" aria-describedby="pgdata-help";
                    p.help id="pgdata-help" { "Empty or absent, beside what is there; production is not touched." }
                }
                label for="filestore" { "Attachments" }
                input id="filestore" type="text" name="filestore" value=(text(&wish.filestore, "")) placeholder="leave them out" autocomplete="off" spellcheck="false";
                label for="configuration" { "Configuration" }
                input id="configuration" type="text" name="configuration" value=(text(&wish.configuration, "")) placeholder="leave it out" autocomplete="off" spellcheck="false";
                label for="host" { "On the host" }
                input id="host" type="text" name="host" value=(text(&wish.host, host)) autocomplete="off" spellcheck="false";
                label for="timeline" { "Timeline" }
                input id="timeline" type="text" name="timeline" inputmode="numeric" value=(text(&wish.timeline, "")) placeholder="the newest" autocomplete="off";
                span {}
                div {
                    label.check { input type="checkbox" name="delta" value="yes" checked[wish.delta.is_some()]; span { "Over a stopped copy of this cluster: keep what is right, replace the rest (--delta)" } }
                    label.check { input type="checkbox" name="force" value="yes" checked[wish.force.is_some()]; span { "With that: give up transactions that the repository lacks (--force)" } }
                }
                span {}
                div { button.first type="submit" { "Show the plan" } }
            }
        }
    }
}

fn plan_of(
    environment: &Environment,
    wanted: &Wanted,
    plan: &Plan,
    bound: &PlannedRestore,
    visitor: &Visitor,
) -> Markup {
    let target = &plan.target;
    html! {
        section aria-label="Plan" {
            h2 { "The plan" }
            @for warning in plan.warnings.iter().chain(&plan.late_captures()) { p.note { (parts::first_upper(warning)) } }
            @if plan.delta { p.alarm { "What lies in " (plan.pgdata.display()) " is made equal to the backup: what the backup does not have is removed." } }
            dl {
                dt { "Last transaction kept" }
                dd { @match &target.last_kept { Some(t) => { (time(t.time)) span.why { "xid " (t.xid) ", " (t.lsn) } }, None => "none since the base backup" } }
                dt { "First transaction lost" }
                dd { @match &target.first_lost { Some(t) => { span.not-met { (time(t.time)) } span.why { "xid " (t.xid) ", " (t.lsn) } }, None => "none that is in the repository" } }
                dt { "Recovery stops" } dd { "behind " code { (target.stop_end) } " on timeline " (target.timeline.0) }
                dt { "Begins with" } dd { "base backup " (plan.base.id) ", " (bytes(plan.bytes)) span.why { "then " (bytes(target.wal_bytes)) " of WAL" } }
                dt { "Space" } dd { (bytes(plan.bytes + target.wal_bytes)) span.muted { " for the data directory, attachments not counted" } }
                @for capture in &plan.filestores {
                    dt { "Attachments of " (capture.database) } dd { "capture " (capture.capture) ", complete to " (parts::clock(capture.complete_to)) }
                }
                @if let Some(export) = &plan.export { @if plan.configuration.is_some() { dt { "Configuration" } dd { "export " (export) } } }
                dt { "Probably takes" } dd { @match plan.estimate_seconds { Some(s) => strong { (span(s.max(1.0))) }, None => span.muted { "not known: no restore was measured yet" } } }
            }
            h3 { "Steps" }
            ol.steps { @for step in &plan.steps { li { (parts::first_upper(step)) } } }
            @if environment.restore.approval {
                h3 { "A second person must approve it" }
                form.fields method="post" action={ "/environments/" (environment.name) "/approvals" } {
                    (csrf(visitor))
                    (hidden("to", Some(&bound.target)))
                    (hidden("pgdata", Some(&wanted.pgdata)))
                    (hidden("filestore", wanted.filestore.as_ref()))
                    (hidden("configuration", wanted.configuration.as_ref()))
                    (hidden("timeline", Some(&bound.timeline.0.to_string())))
                    (hidden("host", Some(&bound.host)))
                    @if wanted.delta { (hidden("delta", Some(&"yes".to_owned()))) }
                    @if wanted.force { (hidden("force", Some(&"yes".to_owned()))) }
                    label for="reason" { "Why" }
                    input id="reason" type="text" name="reason" required maxlength="500" autocomplete="off";
                    span {}
                    div { button.first type="submit" { "Ask for approval" } }
                }
                p.help { "Bound to this plan, " code { (bound.sha256()) } "; once it is given, the page “Approvals” prints the command." }
                h3 { "Or, in an emergency, without" }
                (parts::command(&format!("lifeboat {} --break-glass \"REASON\"", bound.carried_out_by())))
                p.help { "Recorded in the ledger with your name, and told everybody." }
            } @else {
                h3 { "The command, on " (bound.host) }
                (parts::command(&format!("lifeboat {}", bound.carried_out_by())))
            }
        }
    }
}

fn hidden(name: &str, value: Option<&String>) -> Markup {
    html! { @if let Some(value) = value { input type="hidden" name=(name) value=(value); } }
}

/// Without the recovery key there is no plan here, but there is a command; for anything else there is a reason.
fn no_plan(name: &str, wanted: &Wanted, problem: &Problem) -> Markup {
    let keyless = problem.kind == "denied";
    html! {
        div class=(if keyless { "note" } else { "alarm" }) {
            p { (parts::first_upper(&problem.detail)) }
            @if let Some(meaning) = &problem.meaning { p { (parts::first_upper(meaning)) } }
            @if !problem.hints.is_empty() { ul { @for hint in &problem.hints { li { (parts::code_in(hint)) } } } }
        }
        @if keyless {
            section {
                h2 { "On the host that restores" }
                p { "First what it would do; it touches nothing:" }
                (parts::command(&format!("{} --plan", typed(name, wanted))))
                p { "Then the same without " code { "--plan" } "." }
            }
        }
    }
}

/// The command as the form says it.
fn typed(name: &str, wanted: &Wanted) -> String {
    let mut command =
        format!("lifeboat restore -e {name} --to {} --pgdata {}", quoted(&wanted.to), quoted(&wanted.pgdata));
    for (flag, value) in [("--filestore", &wanted.filestore), ("--configuration", &wanted.configuration)] {
        if let Some(value) = value {
            command += &format!(" {flag} {}", quoted(value));
        }
    }
    if let Some(timeline) = wanted.timeline {
        command += &format!(" --timeline {timeline}");
    }
    if wanted.delta {
        command += " --delta";
    }
    if wanted.delta && wanted.force {
        command += " --force";
    }
    command
}

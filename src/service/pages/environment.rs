//! One environment: what is wrong, what can be restored and what is proven of it, what runs, what is there.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::layout::{Here, Page, csrf};
use super::overview::exposure;
use super::parts;
use crate::config::Role;
use crate::evidence::charts;
use crate::evidence::proven::DrillPoint;
use crate::evidence::report_outlook;
use crate::evidence::wording::{bytes, number, span};
use crate::repository::window::Part;
use crate::service::advice::{self, Judge};
use crate::service::api::extract::At;
use crate::service::api::model::word;
use crate::service::http::app::App;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;
use crate::service::state::{EnvironmentView, WorkerKind, WorkerState, WorkerView};
use crate::service::view::View;

/// Base backups and drills listed; older ones are in the ledger.
const LISTED: usize = 12;

/// The page.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    At(name): At<String>,
) -> Result<Markup, Problem> {
    let (view, now) = (app.view(), app.runtime.now());
    let environment = view
        .environment(&name)
        .ok_or_else(|| Problem::unavailable(format!("{name} was not looked at yet; reload in a moment")))?;
    let advice = Judge { estate: &view, config: &app.estate().alerts, now }.advice(environment);
    let shown = environment.view.as_deref();
    let finished = view.recent_jobs.iter().map(|job| job.as_ref()).filter(|job| job.environment == name).take(LISTED);
    let due = view.next.iter().filter(|next| next.environment == name).take(LISTED);
    let content = html! {
        div.head {
            div {
                p.crumbs { a href="/" { "Estate" } " / " }
                h1 { (name) " " (parts::badge(advice::worst(&advice))) }
            }
            p.tabs {
                @if visitor.role >= Role::Operator { a.button.first href={ "/environments/" (name) "/restore" } { "Restore …" } }
                @if visitor.role >= Role::Auditor { a.button href={ "/environments/" (name) "/ledger" } { "Ledger" } }
            }
        }
        @if visitor.role >= Role::Operator { (start_form(&name, &visitor)) }
        div id="live" data-environment=(name) {
            @if !advice.is_empty() {
                section { h2 { "What is wrong, and what to do" } (parts::advice(&advice)) }
            }
            (parts::running(&view, &visitor, Some(&name), now))
            div.pair { (loss(environment, now)) (speed(environment)) }
            (report_outlook::outlook(environment.outlook.as_deref()))
            @if let Some(shown) = shown { (watermark(shown, now)) }
            (workers(environment, now))
            @if let Some(outlook) = &environment.outlook { (drills(&name, &outlook.coverage.drills, now)) }
            @if let Some(shown) = shown { (bases(shown, now)) (filestores(shown, now)) (configuration(shown, now)) (failures(shown, now)) }
            section { h2 { "Due next" } (parts::upcoming(due, now, false)) }
            section { h2 { "Jobs that ended" } (parts::finished(finished, now, false)) }
            p.muted {
                (word(&environment.purpose)) " · owner " (environment.owner)
                @if let Some(shown) = shown { " · looked at " (parts::ago(now, shown.now)) " · " (number(shown.ledger_entries)) " ledger entries" }
            }
        }
    };
    let title = format!("{name} · Estate");
    Ok(Page { title: &title, here: Here::Estate, visitor: Some(&visitor), live: true }.around(&app, &content))
}

fn start_form(name: &str, visitor: &Visitor) -> Markup {
    html! {
        section aria-label="Start a job" {
            form.inline method="post" action={ "/environments/" (name) "/jobs" } {
                (csrf(visitor))
                div {
                    label for="kind" { "Start a job by hand" }
                    select id="kind" name="kind" {
                        option value="base" { "Base backup" }
                        option value="filestore" { "Filestore capture" }
                        option value="configuration" { "Configuration export" }
                        option value="verify" { "Verification" }
                        option value="verify-deep" { "Verification, reading everything" }
                        option value="drill" { "Drill to the latest transaction" }
                        option value="drill-random" { "Drill to a random second" }
                    }
                }
                button type="submit" { "Start" }
            }
        }
    }
}

fn loss(environment: &EnvironmentView, now: DateTime<Utc>) -> Markup {
    let commit = environment.view.as_deref().and_then(|view| view.exposure.last_commit);
    html! {
        section.short {
            h2 { "If it were lost now " span.muted { "(RPO)" } }
            (exposure(environment, now))
            @if let Some(commit) = commit { p.muted { "newest commit in the repository: " (parts::ago(now, commit)) } }
        }
    }
}

fn speed(environment: &EnvironmentView) -> Markup {
    let objective = environment.objectives.rto_seconds;
    let forecast = environment.outlook.as_ref().and_then(|outlook| outlook.forecast.as_ref());
    html! {
        section.short {
            h2 { "Until it is back " span.muted { "(RTO)" } }
            @match forecast {
                Some(f) => {
                    p.figure { (parts::rough(f.predicted_seconds + f.assumed_seconds)) " " small { "at the worst moment, from drills" } }
                    (charts::objective_bar("Time until the data is back", f.predicted_seconds, f.assumed_seconds, objective, Some(f.met)))
                },
                None => {
                    p.figure { "not known" }
                    p.muted { "No drill was measured yet; the objective is " (span(objective)) "." }
                },
            }
        }
    }
}

fn watermark(view: &View, now: DateTime<Utc>) -> Markup {
    html! {
        @if let Some(mark) = &view.watermark {
            section.short {
                h2 { "Up to when each part can be restored" }
                div.scroll { table.stack {
                    caption.hidden { "Parts and the newest time to which each can be restored" }
                    thead { tr { th scope="col" { "Part" } th scope="col" { "Restorable to" } th scope="col" { "" } } }
                    tbody { @for component in &mark.components {
                        tr class=(if component.time.is_none() { "row-bad" } else { "" }) {
                            th scope="row" {
                                (match component.part { Part::Database => "Database", Part::Filestore => "Filestore", Part::Configuration => "Configuration" })
                                @if let Some(database) = &component.database { " of " (database) }
                            }
                            td.time { @match component.time { Some(at) => (parts::time_and_age(now, at)), None => span.not-met { "never backed up" } } }
                            td { @if component.limits { span.muted { "limits what agrees" } } }
                        }
                    } }
                } }
            }
        }
    }
}

fn workers(environment: &EnvironmentView, now: DateTime<Utc>) -> Markup {
    let postgres = environment.view.as_deref().map(|view| &view.postgres);
    html! {
        section.short {
            h2 { "WAL and files, as they come" }
            dl {
                @for worker in &environment.workers { (worker_line(worker, now)) }
                @if let Some(postgres) = postgres {
                    dt { "PostgreSQL" }
                    dd { @match (postgres.reachable, postgres.current_lsn) {
                        (true, Some(at)) => { (if postgres.standby { "a standby" } else { "running" }) ", at " code { (at) } },
                        _ => { span.not-met { "does not answer" } @if let Some(error) = &postgres.error { span.why { (error) } } },
                    } }
                    dt { "Slot " (postgres.slot_name) }
                    dd { @match &postgres.slot {
                        Some(slot) => {
                            @if slot.active { "in use" } @else { span.not-met { "nobody receives WAL" } }
                            ", PostgreSQL keeps " (bytes(slot.held_bytes)) " for it"
                            @if let Some(safe) = slot.safe_bytes { ", " (bytes(safe.max(0).unsigned_abs())) " more before it gives WAL up" }
                        },
                        None => span.muted { (if postgres.reachable { "does not exist" } else { "not known" }) },
                    } }
                }
            }
        }
    }
}

fn worker_line(worker: &WorkerView, now: DateTime<Utc>) -> Markup {
    html! {
        dt { (match worker.kind { WorkerKind::Wal => "WAL receiver", WorkerKind::Filestore => "Filestore watcher" }) }
        dd {
            @match &worker.state {
                WorkerState::Running => { "running since " (parts::ago(now, worker.since)) },
                WorkerState::Waiting { until } => { span.not-met { "failed" } ", is started again " (parts::ago(now, *until)) },
                WorkerState::Elsewhere { instance } => { "at " (instance.as_deref().unwrap_or("another instance")) },
                WorkerState::Stopped => span.muted { "stopped" },
            }
            @if let Some((at, lsn)) = &worker.durable { span.why { "durable up to " (lsn) ", " (parts::ago(now, *at)) } }
            @if worker.restarts > 0 { span.why { "started again " (number(worker.restarts)) " times" } }
            @if let Some(failure) = &worker.last_failure { span.why { "last failure, " (parts::ago(now, failure.at)) ": " (failure.message) } }
            @if let Some((at, warning)) = &worker.last_warning { span.why { "warned " (parts::ago(now, *at)) ": " (warning) } }
        }
    }
}

fn drills(name: &str, drills: &[DrillPoint], now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "Drills" }
            @if drills.is_empty() { p.muted { "None yet. A backup that was never restored is a hope." } } @else {
                div.scroll { table.stack {
                    caption.hidden { "Drills, newest first" }
                    thead { tr { th scope="col" { "Drill" } th scope="col" { "When" } th scope="col" { "Restored to" } th scope="col" { "Result" } } }
                    tbody { @for drill in drills.iter().rev().take(LISTED) {
                        tr class=(if drill.sound { "" } else { "row-bad" }) {
                            th scope="row" { a href={ "/environments/" (name) "/drills/" (drill.sequence) } { (drill.drill) } }
                            td.time { (parts::ago(now, drill.at)) }
                            td.time data-label="to" {
                                @match drill.target { Some(at) => (parts::clock(at)), None => span.muted { "not reached" } }
                                @if drill.random { span.why { "drawn at random" } }
                            }
                            td { @if drill.sound { span.badge.is-passed { "restored" } } @else { span.badge.is-failed { "failed" } } }
                        }
                    } }
                } }
                @if drills.len() > LISTED { p.muted { "and " (drills.len() - LISTED) " older ones in the ledger" } }
            }
        }
    }
}

fn bases(view: &View, now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "Base backups" }
            @if view.bases.is_empty() { p.muted { "None." } } @else {
                div.scroll { table.stack {
                    caption.hidden { "Base backups, newest first" }
                    thead { tr {
                        th scope="col" { "Backup" } th scope="col" { "Taken" } th.number scope="col" { "Size" }
                        th.number scope="col" { "Stored" } th scope="col" { "Restorable" }
                    } }
                    tbody { @for base in view.bases.iter().rev().take(LISTED) {
                        tr class=(if base.restorable { "" } else { "row-bad" }) {
                            th scope="row" { (base.backup.id) }
                            td.time { (parts::ago(now, base.backup.stop_time)) span.why { "took " (span(base.backup.seconds)) } }
                            td.number data-label="size" { (bytes(base.backup.logical_bytes)) }
                            td.number data-label="stored" { (bytes(base.backup.stored_bytes)) }
                            td data-label="restorable" { @match &base.why_not { None => "yes", Some(why) => { span.not-met { "no" } span.why { (why) } } } }
                        }
                    } }
                } }
                @if view.bases.len() > LISTED { p.muted { "and " (view.bases.len() - LISTED) " older ones" } }
            }
        }
    }
}

fn filestores(view: &View, now: DateTime<Utc>) -> Markup {
    html! {
        @if !view.filestores.is_empty() {
            section {
                h2 { "Filestores" }
                div.scroll { table.stack {
                    caption.hidden { "The newest capture of each filestore" }
                    thead { tr {
                        th scope="col" { "Database" } th scope="col" { "Captured" } th.number scope="col" { "Files" }
                        th.number scope="col" { "New" } th scope="col" { "State" }
                    } }
                    tbody { @for filestore in &view.filestores {
                        @let capture = &filestore.capture;
                        @let named = capture.suspects.len() + capture.missing_at_source.len();
                        tr class=(if named > 0 || !capture.complete { "row-warn" } else { "" }) {
                            th scope="row" { (filestore.database) }
                            td.time { (parts::ago(now, capture.restore_point.time)) span.why { (number(filestore.captures)) " captures" } }
                            td.number data-label="files" { (number(capture.files_present)) }
                            td.number data-label="new" { (number(capture.files_new)) }
                            td {
                                @if named == 0 && capture.complete { "complete" } @else {
                                    (number(capture.suspects.len() as u64)) " unsound, " (number(capture.missing_at_source.len() as u64)) " missing at the source"
                                    @if !capture.complete { span.why { "the capture is incomplete" } }
                                }
                            }
                        }
                    } }
                } }
            }
        }
    }
}

fn configuration(view: &View, now: DateTime<Utc>) -> Markup {
    html! {
        @if let Some(configuration) = &view.configuration {
            @let export = &configuration.export;
            section.short {
                h2 { "Configuration" }
                dl {
                    dt { "Newest export" } dd { (parts::time_and_age(now, export.taken_at)) span.why { (export.id) ", " (number(configuration.exports)) " in all" } }
                    dt { "Files" } dd { (number(export.files)) ", " (bytes(export.bytes)) }
                    dt { "Changed since the one before" }
                    dd { @if export.changed.is_empty() { span.muted { "nothing" } } @else { (export.changed.join(", ")) } }
                    @if !export.unreadable.is_empty() {
                        dt { "Could not be read" }
                        dd { @for suspect in &export.unreadable { span.why { (suspect.name) ": " (suspect.reason) } } }
                    }
                }
            }
        }
    }
}

fn failures(view: &View, now: DateTime<Utc>) -> Markup {
    html! {
        @if !view.failures.is_empty() {
            section.short {
                h2 { "Failed since the newest base backup" }
                @for failure in &view.failures { p.note { (parts::ago(now, failure.recorded_at)) ": " (failure.summary) } }
            }
        }
    }
}

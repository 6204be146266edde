//! The first page: can everything be restored, how much would be lost, what was proven, and what somebody must do.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::layout::{Here, Page};
use super::parts;
use crate::evidence::charts;
use crate::service::advice::{self, Advice, Judge, Severity};
use crate::service::api::model::{next_drill, word};
use crate::service::http::app::App;
use crate::service::http::visitor::Visitor;
use crate::service::state::{EnvironmentView, EstateView};

/// Advice on a card; the rest is on the environment's page.
const ON_A_CARD: usize = 2;

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, visitor: Visitor) -> Markup {
    let (view, now) = (app.view(), app.runtime.now());
    let estate = app.estate();
    let judge = Judge { estate: &view, config: &estate.alerts, now };
    let environments: Vec<(&EnvironmentView, Vec<Advice>)> =
        app.seen_by(&view, &visitor).map(|environment| (environment, judge.advice(environment))).collect();
    let content = html! {
        div.head { h1 { "Estate" } p { (view.repository.url) } }
        div id="live" {
            (problems(&view, now))
            (verdict(&environments))
            @for (environment, _) in &environments {
                @if let Some(waiting) = environment.view.as_ref().map(|v| v.approvals_waiting.len()).filter(|n| *n > 0) {
                    p.note { (waiting) " restore" (if waiting == 1 { "" } else { "s" }) " of " (environment.name) " waits for a second person: " a href="/approvals" { "Approvals" } }
                }
            }
            div.cards { @for (environment, advice) in &environments { (card(environment, advice, &view, now)) } }
            (parts::running(&view, &visitor, None, now))
        }
    };
    Page { title: "Estate", here: Here::Estate, visitor: Some(&visitor), live: true }.around(&app, &content)
}

/// What is wrong with the service itself.
fn problems(view: &EstateView, now: DateTime<Utc>) -> Markup {
    html! {
        @if view.stopping { p.note { "This instance is being stopped: it begins no new job." } }
        @if let Some(problem) = &view.config_problem {
            div.alarm {
                p { "The configuration was changed and is refused; the one before stays in force (" (parts::ago(now, problem.at)) ")." }
                ul { li { (problem.message) } @for hint in &problem.hints { li { (parts::code_in(hint)) } } }
            }
        }
    }
}

/// The answer in one sentence.
fn verdict(environments: &[(&EnvironmentView, Vec<Advice>)]) -> Markup {
    let of = |severity: Severity| -> Vec<&str> {
        let with = environments.iter().filter(|(_, advice)| advice::worst(advice) == severity);
        with.map(|(environment, _)| environment.name.as_str()).collect()
    };
    let (bad, look, unknown) = (of(Severity::Bad), of(Severity::Look), of(Severity::Unknown));
    let (class, sign, title, sentence) = if environments.is_empty() {
        ("unknown", "M22 11 v14 M22 31 v2", "Nothing here", "There is no environment that you may see.".to_owned())
    } else if !bad.is_empty() {
        let them = listed(&bad);
        let verb = if bad.len() == 1 { "needs" } else { "need" };
        ("failed", "M14 14 l16 16 M30 14 l-16 16", "Act now", format!("{them} {verb} somebody now."))
    } else if !look.is_empty() {
        let verb = if look.len() == 1 { "has" } else { "have" };
        let sentence = format!("Nothing is urgent; {} {verb} something to look at.", listed(&look));
        ("objective_missed", "M22 11 v14 M22 31 v2", "Look at it", sentence)
    } else if !unknown.is_empty() {
        ("unknown", "M22 11 v14 M22 31 v2", "Not known yet", "The service has just begun to look.".to_owned())
    } else {
        let all = if environments.len() == 1 { "The environment" } else { "Every environment" };
        let sentence = format!("{all} can be restored, within its objectives, and nothing is known to be wrong.");
        ("passed", "M13 23 l7 7 14 -15", "All is well", sentence)
    };
    html! {
        section class={ "verdict quiet " (class) } aria-label="Summary" {
            svg viewBox="0 0 44 44" aria-hidden="true" {
                circle cx="22" cy="22" r="20.5" fill="none" stroke="currentColor" stroke-width="3" {}
                path d=(sign) fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" stroke-linejoin="round" {}
            }
            div { p.word { (title) } p.sentence { (sentence) } }
        }
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// One environment.
fn card(environment: &EnvironmentView, advice: &[Advice], estate: &EstateView, now: DateTime<Utc>) -> Markup {
    let name = &environment.name;
    let worst = advice::worst(advice);
    let more = advice.len().saturating_sub(ON_A_CARD);
    html! {
        section class={ "card " (parts::class(worst)) } aria-labelledby={ "e-" (name) } {
            h2 id={ "e-" (name) } { a href={ "/environments/" (name) } { (name) } (parts::badge(worst)) }
            p.sub { (word(&environment.purpose)) " · " (environment.owner) }
            (exposure(environment, now))
            dl {
                (restorable(environment, now))
                dt { "Last proof" }
                dd {
                    @match environment.view.as_ref().and_then(|v| v.last_drill.as_ref()) {
                        Some(drill) => {
                            a href={ "/environments/" (name) "/drills/" (drill.sequence) } {
                                @if drill.bad { span.not-met { "did not pass" } } @else { span.met { "passed" } }
                            }
                            " " (parts::ago(now, drill.recorded_at))
                        },
                        None => span.muted { "never drilled" },
                    }
                }
                dt { "Next drill" }
                dd { @match next_drill(environment, estate) {
                    Some(at) => (parts::ago(now, at)),
                    None => span.muted { "none is due" },
                } }
            }
            (parts::advice(&advice[..advice.len().min(ON_A_CARD)]))
            @if more > 0 { p.why { a href={ "/environments/" (name) } { "and " (more) " more" } } }
        }
    }
}

/// What would be lost now, against the objective.
pub(super) fn exposure(environment: &EnvironmentView, now: DateTime<Utc>) -> Markup {
    let objective = environment.objectives.rpo_seconds;
    let known = environment.view.as_deref().and_then(|view| Some((view, view.exposure.seconds?)));
    html! {
        @match known {
            Some((view, seconds)) => {
                @let seconds = if seconds > 0.0 { seconds } else { 0.0 };
                @let met = seconds <= objective;
                p.figure {
                    @if seconds > 0.0 { "≤ " (parts::rough(seconds)) } @else { "nothing" }
                    " " small { "would be lost now" }
                }
                (charts::objective_bar("What would be lost now", seconds, 0.0, objective, Some(met)))
                @if let Some(calendar) = &environment.objectives.calendar { p.why { "objective of the calendar " (calendar) } }
                @if !view.postgres.reachable { p.why { "PostgreSQL does not answer, so this is an upper bound, as of " (parts::ago(now, view.now)) } }
            },
            None => {
                p.figure { "not known" " " small { "what would be lost now" } }
            },
        }
    }
}

/// From when to when.
fn restorable(environment: &EnvironmentView, now: DateTime<Utc>) -> Markup {
    let view = environment.view.as_deref();
    let newest = view.and_then(|v| v.windows.iter().map(|w| w.to.time).max());
    let oldest = view.and_then(|v| v.windows.iter().map(|w| w.from.time).min());
    let mark = view.and_then(|v| v.watermark.as_ref());
    html! {
        dt { "Database" }
        dd { @match (oldest, newest) {
            (Some(from), Some(to)) => { "any second up to " (parts::ago(now, to)) span.why { "back to " (parts::ago(now, from)) } },
            _ => span.not-met { "cannot be restored" },
        } }
        @if let Some(mark) = mark {
            dt { "All in agreement" }
            dd { @match mark.time {
                Some(at) => { (parts::ago(now, at)) span.why { "database, files, configuration" } },
                None => span.not-met { "a part was never backed up" },
            } }
        }
    }
}

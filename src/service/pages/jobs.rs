//! Jobs: those that run, those that ended; starting and ending them.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Here, Page};
use super::parts;
use crate::service::answers;
use crate::service::api::extract::{At, Filled};
use crate::service::api::model::{Sample, StartJob, StartKind};
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, visitor: Visitor) -> Markup {
    let (view, now) = (app.view(), app.runtime.now());
    let finished = view.recent_jobs.iter().map(|job| job.as_ref()).filter(|job| visitor.sees(&job.environment));
    let none = !view.jobs_running.iter().any(|job| visitor.sees(&job.environment));
    let content = html! {
        div.head { h1 { "Jobs" } p { "at " (view.instance) } }
        div id="live" {
            @if none { section { p.muted { "Nothing runs at this moment." } } }
            (parts::running(&view, &visitor, None, now))
            section { h2 { "Ended" } (parts::finished(finished, now, true)) }
        }
    };
    Page { title: "Jobs", here: Here::Jobs, visitor: Some(&visitor), live: true }.around(&app, &content)
}

/// The form.
#[derive(Debug, Deserialize)]
pub(super) struct Start {
    kind: String,
}

/// Starts a job.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Filled(form): Filled<Start>,
) -> Result<Redirect, Problem> {
    let (kind, deep, sample) = match form.kind.as_str() {
        "base" => (StartKind::Base, false, None),
        "filestore" => (StartKind::Filestore, false, None),
        "configuration" => (StartKind::Configuration, false, None),
        "verify" => (StartKind::Verify, false, None),
        "verify-deep" => (StartKind::Verify, true, None),
        "drill" => (StartKind::Drill, false, None),
        "drill-random" => (StartKind::Drill, false, Some(Sample::Random)),
        _ => return Err(Problem::bad_request("this kind of job is not known")),
    };
    answers::start(&app, &client, &visitor, &name, &StartJob { kind, deep, sample }).await?;
    Ok(Redirect::to(&format!("/environments/{name}")))
}

/// Ends one.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(run): At<String>,
) -> Result<Redirect, Problem> {
    answers::cancel(&app, &client, &visitor, &run).await?;
    Ok(Redirect::to("/jobs"))
}

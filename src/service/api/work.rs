//! What somebody can do. Each is in the audit log, and what concerns an environment in its ledger.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::extract::{At, Given};
use super::model::{ApprovalView, Decide, Planned, StartJob, Started, Wanted};
use super::refusals::{Absent, Guarded, Misread, Unreadable};
use crate::service::answers;
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

type Answer<T> = Result<Json<T>, Problem>;

#[utoipa::path(
    post,
    path = "/api/v1/environments/{environment}/plan",
    summary = "What a restore would do; touches nothing",
    description = "Role: operator.",
    params(("environment" = String, Path, description = "Name of the environment")),
    request_body = Wanted,
    responses(
        (status = 200, description = "What a restore would do; touches nothing", body = Planned),
        Guarded, Absent, Misread, Unreadable,
        (status = 409, description = "This cannot be restored", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The source does not answer", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "This took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn plan(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Given(wanted): Given<Wanted>,
) -> Answer<Planned> {
    let environment = app.environment(&name)?;
    let (plan, bound) = answers::plan(&app, &environment, &wanted).await?;
    app.audit.note(&client, Some(&visitor), "plan restore", &format!("{name} to {}", wanted.to), "shown");
    Ok(Json(Planned {
        plan: serde_json::to_value(&plan).unwrap_or_default(),
        plan_sha256: bound.sha256(),
        approval_required: environment.restore.approval,
        command: format!("lifeboat restore {}", bound.flags()),
    }))
}

#[utoipa::path(
    post,
    path = "/api/v1/environments/{environment}/approvals",
    summary = "Ask for approval of a restore",
    description = "Role: operator.",
    params(("environment" = String, Path, description = "Name of the environment")),
    request_body = Wanted,
    responses(
        (status = 201, description = "Ask for approval of a restore", body = ApprovalView),
        Guarded, Absent, Misread, Unreadable,
        (status = 409, description = "This cannot be restored", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The source does not answer", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "This took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn request_approval(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Given(wanted): Given<Wanted>,
) -> Result<(StatusCode, Json<ApprovalView>), Problem> {
    let environment = app.environment(&name)?;
    let approval = answers::request_approval(&app, &client, &visitor, &environment, &wanted).await?;
    Ok((StatusCode::CREATED, Json(ApprovalView::of(&approval, app.runtime.now()))))
}

#[utoipa::path(
    post,
    path = "/api/v1/environments/{environment}/approvals/{approval}/approve",
    summary = "Approve a restore that somebody else asked for",
    description = "Role: approver.",
    params(("environment" = String, Path, description = "Name of the environment"), ("approval" = String, Path, description = "Id of the request")),
    request_body = Decide,
    responses(
        (status = 200, description = "Approve a restore that somebody else asked for", body = ApprovalView),
        Guarded, Absent, Misread, Unreadable,
    )
)]
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At((name, id)): At<(String, String)>,
    Given(decide): Given<Decide>,
) -> Answer<ApprovalView> {
    let environment = app.environment(&name)?;
    let why = decide.reason.as_deref();
    let approval = answers::decide(&app, &client, &visitor, &environment, &id, true, why).await?;
    Ok(Json(ApprovalView::of(&approval, app.runtime.now())))
}

#[utoipa::path(
    post,
    path = "/api/v1/environments/{environment}/approvals/{approval}/deny",
    summary = "Refuse a restore, or take an approval back",
    description = "Role: approver.",
    params(("environment" = String, Path, description = "Name of the environment"), ("approval" = String, Path, description = "Id of the request")),
    request_body = Decide,
    responses(
        (status = 200, description = "Refuse a restore, or take an approval back", body = ApprovalView),
        Guarded, Absent, Misread, Unreadable,
    )
)]
pub(crate) async fn deny(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At((name, id)): At<(String, String)>,
    Given(decide): Given<Decide>,
) -> Answer<ApprovalView> {
    let environment = app.environment(&name)?;
    let why = decide.reason.as_deref();
    let approval = answers::decide(&app, &client, &visitor, &environment, &id, false, why).await?;
    Ok(Json(ApprovalView::of(&approval, app.runtime.now())))
}

#[utoipa::path(
    post,
    path = "/api/v1/environments/{environment}/jobs",
    summary = "Start a job",
    description = "Role: operator.",
    params(("environment" = String, Path, description = "Name of the environment")),
    request_body = StartJob,
    responses(
        (status = 202, description = "Start a job", body = Started),
        Guarded, Absent, Misread, Unreadable,
    )
)]
pub(crate) async fn start_job(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(name): At<String>,
    Given(job): Given<StartJob>,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let run = answers::start(&app, &client, &visitor, &name, &job).await?;
    Ok((StatusCode::ACCEPTED, Json(Started { run })))
}

#[utoipa::path(
    delete,
    path = "/api/v1/jobs/{job}",
    summary = "End a job",
    description = "Role: operator.",
    params(("job" = String, Path, description = "Id of the run")),
    responses(
        (status = 202, description = "It was asked to end"),
        Guarded, Absent, Unreadable,
    )
)]
pub(crate) async fn cancel_job(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(run): At<String>,
) -> Result<StatusCode, Problem> {
    answers::cancel(&app, &client, &visitor, &run).await?;
    Ok(StatusCode::ACCEPTED)
}

#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{session}",
    summary = "End the session of somebody",
    description = "Role: admin.",
    params(("session" = u64, Path, description = "Number of the session")),
    responses(
        (status = 204, description = "It is ended"),
        Guarded, Absent,
    )
)]
pub(crate) async fn end_session(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    At(session): At<u64>,
) -> Result<StatusCode, Problem> {
    let whose = app.sessions.end_number(session).ok_or_else(|| Problem::not_found("there is no such session"))?;
    app.audit.note(&client, Some(&visitor), "end session", &format!("{session} of {}", whose.name), "done");
    Ok(StatusCode::NO_CONTENT)
}

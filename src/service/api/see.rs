//! What can be seen: nothing here changes anything.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At};
use super::model::{
    ApprovalList, ApprovalView, Backups, CalendarView, Drill, Drills, Due, EnvironmentDetail, EnvironmentSummary,
    EstateSummary, Job, Jobs, LedgerPage, LedgerStatement, Me, Schedule, SessionList, SessionView, Verification,
    Windows, running,
};
use super::refusals::{Absent, Guarded, Unreadable, Unseen};
use crate::evidence::{Body, verify_ledger};
use crate::service::advice::Judge;
use crate::service::answers;
use crate::service::http::AuditLine;
use crate::service::http::app::{App, busy};
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;
use crate::service::state::EnvironmentView;

type Answer<T> = Result<Json<T>, Problem>;

/// Anything as JSON.
fn value(what: &impl serde::Serialize) -> Value {
    serde_json::to_value(what).unwrap_or_default()
}

/// The environment that the guard has let somebody see.
fn found<T>(app: &App, name: &str, tell: impl FnOnce(&EnvironmentView) -> T) -> Result<T, Problem> {
    let view = app.view();
    view.environment(name).map(tell).ok_or_else(|| Problem::unavailable(format!("{name} was not looked at yet")))
}

#[utoipa::path(
    get,
    path = "/api/v1/me",
    summary = "Who asks",
    description = "Role: viewer.",
    responses(
        (status = 200, description = "Who asks", body = Me),
        Guarded,
    )
)]
pub(crate) async fn me(visitor: Visitor) -> Json<Me> {
    let environments = visitor.environments.as_ref().map(|names| names.to_vec());
    Json(Me { name: visitor.name, role: visitor.role, environments })
}

#[utoipa::path(
    get,
    path = "/api/v1/estate",
    summary = "The estate",
    description = "Role: viewer.",
    responses(
        (status = 200, description = "The estate", body = EstateSummary),
        Guarded,
    )
)]
pub(crate) async fn estate(State(app): State<Arc<App>>, visitor: Visitor) -> Json<EstateSummary> {
    let (view, estate) = (app.view(), app.estate());
    let judge = Judge { estate: &view, config: &estate.alerts, now: app.runtime.now() };
    Json(EstateSummary::of(&view, &judge, app.seen_by(&view, &visitor), &visitor))
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}",
    summary = "One environment",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "One environment", body = EnvironmentDetail),
        Guarded, Absent, Unseen,
    )
)]
pub(crate) async fn environment(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<EnvironmentDetail> {
    let (view, estate) = (app.view(), app.estate());
    let judge = Judge { estate: &view, config: &estate.alerts, now: app.runtime.now() };
    found(&app, &name, |environment| {
        let jobs = view.jobs_running.iter().filter(|job| job.environment == name).map(Job::running).collect();
        let upcoming = view.next.iter().filter(|next| next.environment == name).map(Due::of).collect();
        Json(EnvironmentDetail {
            summary: EnvironmentSummary::of(environment, &judge),
            show: value(&environment.view.as_deref()),
            outlook: value(&environment.outlook.as_deref()),
            jobs,
            upcoming,
        })
    })
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/backups",
    summary = "What is in the repository",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "What is in the repository", body = Backups),
        Guarded, Absent, Unseen,
    )
)]
pub(crate) async fn backups(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<Backups> {
    found(&app, &name, |environment| {
        let view = environment.view.as_deref();
        let list = |list: Option<Value>| list.unwrap_or_else(|| Value::Array(Vec::new()));
        Json(Backups {
            base_backups: list(view.map(|v| value(&v.bases))),
            filestores: list(view.map(|v| value(&v.filestores))),
            configuration: view.map(|v| value(&v.configuration)).unwrap_or_default(),
            wal: list(view.map(|v| value(&v.wal))),
        })
    })
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/windows",
    summary = "What can be restored",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "What can be restored", body = Windows),
        Guarded, Absent, Unseen,
    )
)]
pub(crate) async fn windows(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<Windows> {
    found(&app, &name, |environment| {
        let view = environment.view.as_deref();
        let list = |list: Option<Value>| list.unwrap_or_else(|| Value::Array(Vec::new()));
        Json(Windows {
            windows: list(view.map(|v| value(&v.windows))),
            gaps: list(view.map(|v| value(&v.gaps))),
            watermark: view.map(|v| value(&v.watermark)).unwrap_or_default(),
        })
    })
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/drills",
    summary = "All drills",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "All drills", body = Drills),
        Guarded, Absent, Unseen,
    )
)]
pub(crate) async fn drills(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<Drills> {
    found(&app, &name, |environment| {
        let coverage = environment.outlook.as_ref().map(|outlook| &outlook.coverage);
        Json(Drills {
            drills: coverage.map_or_else(|| Value::Array(Vec::new()), |c| value(&c.drills)),
            random: coverage.map(|c| value(&c.random)).unwrap_or_default(),
        })
    })
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/drills/{sequence}",
    summary = "One drill",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment"), ("sequence" = u64, Path, description = "Number of the ledger entry")),
    responses(
        (status = 200, description = "One drill", body = Drill),
        Guarded, Absent, Unreadable,
    )
)]
pub(crate) async fn drill(State(app): State<Arc<App>>, At((name, sequence)): At<(String, u64)>) -> Answer<Drill> {
    let entry = answers::entry(&app, &name, sequence).await?;
    let Body::Drill(record) = &entry.statement.predicate.body else {
        return Err(Problem::not_found(format!("entry {sequence} is not a drill")));
    };
    Ok(Json(Drill { sequence, sha256: entry.sha256.clone(), record: value(record) }))
}

#[utoipa::path(
    get,
    path = "/api/v1/schedule",
    summary = "What is due",
    description = "Role: viewer.",
    responses(
        (status = 200, description = "What is due", body = Schedule),
        Guarded,
    )
)]
pub(crate) async fn schedule(State(app): State<Arc<App>>, visitor: Visitor) -> Json<Schedule> {
    let view = app.view();
    let windows = app.calendars(&visitor).into_iter();
    let calendars = windows.map(|(environment, window)| CalendarView {
        calendar: window.calendar,
        title: window.title,
        environment,
        from: window.from,
        to: window.to,
    });
    let next = view.next.iter().filter(|next| visitor.sees(&next.environment)).map(Due::of).collect();
    Json(Schedule { next, calendars: calendars.collect() })
}

#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    summary = "Jobs that run and that ran",
    description = "Role: viewer.",
    responses(
        (status = 200, description = "Jobs that run and that ran", body = Jobs),
        Guarded,
    )
)]
pub(crate) async fn jobs(State(app): State<Arc<App>>, visitor: Visitor) -> Json<Jobs> {
    let view = app.view();
    let recent = view.recent_jobs.iter().filter(|job| visitor.sees(&job.environment));
    Json(Jobs { running: running(&view, &visitor), recent: recent.map(|job| Job::finished(job)).collect() })
}

/// Which stretch of a ledger.
#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(crate) struct Stretch {
    /// Entries before this one; absent: the newest.
    #[param(minimum = 1)]
    before: Option<u64>,
    /// How many, 50 at most.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<u64>,
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/ledger",
    summary = "A stretch of the ledger, verified",
    description = "Role: auditor.",
    params(("environment" = String, Path, description = "Name of the environment"), Stretch),
    responses(
        (status = 200, description = "A stretch of the ledger, verified", body = LedgerPage),
        Guarded, Absent,
        (status = 400, description = "Not understood", body = Problem, content_type = "application/problem+json"),
        Unreadable,
    )
)]
pub(crate) async fn ledger(
    State(app): State<Arc<App>>,
    At(name): At<String>,
    Asked(stretch): Asked<Stretch>,
) -> Answer<LedgerPage> {
    let limit = stretch.limit.unwrap_or(answers::STRETCH);
    answers::ledger_page(&app, &name, stretch.before, limit).await.map(Json)
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/ledger/verification",
    summary = "The whole ledger, verified",
    description = "Role: auditor.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "The whole ledger, verified", body = Verification),
        Guarded, Absent, Unreadable,
        (status = 504, description = "This took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn verification(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<Verification> {
    let _place = app.plans.clone().try_acquire_owned().map_err(|_| busy("verifications"))?;
    let repository = app.repository().await?;
    let trust = repository.trust().await?;
    let report = verify_ledger(&repository.store, &name, &repository.descriptor.repository, &trust).await?;
    Ok(Json(Verification { ok: report.ok, entries: report.entries, report: value(&report) }))
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/ledger/{sequence}",
    summary = "One entry of the ledger",
    description = "Role: auditor.",
    params(("environment" = String, Path, description = "Name of the environment"), ("sequence" = u64, Path, description = "Number of the ledger entry")),
    responses(
        (status = 200, description = "One entry of the ledger", body = LedgerStatement),
        Guarded, Absent, Unreadable,
    )
)]
pub(crate) async fn entry(
    State(app): State<Arc<App>>,
    At((name, sequence)): At<(String, u64)>,
) -> Answer<LedgerStatement> {
    let entry = answers::entry(&app, &name, sequence).await?;
    let statement = value(&entry.statement);
    Ok(Json(LedgerStatement { sequence, sha256: entry.sha256, signers: entry.signers, statement }))
}

/// Lines of the audit log.
#[derive(Debug, serde::Serialize, ToSchema)]
pub(crate) struct AuditLog {
    /// Newest first, 200 at most.
    lines: Vec<AuditLine>,
}

#[utoipa::path(
    get,
    path = "/api/v1/audit",
    summary = "The audit log of this instance",
    description = "Role: auditor.",
    responses(
        (status = 200, description = "The audit log of this instance", body = AuditLog),
        Guarded,
        (status = 500, description = "It cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn audit(State(app): State<Arc<App>>) -> Answer<AuditLog> {
    Ok(Json(AuditLog { lines: app.audit.newest(200)? }))
}

#[utoipa::path(
    get,
    path = "/api/v1/environments/{environment}/approvals",
    summary = "Approvals of restores",
    description = "Role: viewer.",
    params(("environment" = String, Path, description = "Name of the environment")),
    responses(
        (status = 200, description = "Approvals of restores", body = ApprovalList),
        Guarded, Absent, Unreadable,
    )
)]
pub(crate) async fn approvals(State(app): State<Arc<App>>, At(name): At<String>) -> Answer<ApprovalList> {
    let all = answers::all_approvals(&app, &name).await?;
    let now = app.runtime.now();
    Ok(Json(ApprovalList { approvals: all.iter().map(|approval| ApprovalView::of(approval, now)).collect() }))
}

#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    summary = "Who is signed in",
    description = "Role: admin.",
    responses(
        (status = 200, description = "Who is signed in", body = SessionList),
        Guarded,
    )
)]
pub(crate) async fn sessions(State(app): State<Arc<App>>) -> Json<SessionList> {
    let of = |session: crate::service::http::Session| SessionView {
        session: session.number,
        name: session.visitor.name,
        role: session.visitor.role,
        began: session.began,
        last_seen: session.last_seen,
        ends: session.ends,
    };
    Json(SessionList { sessions: app.sessions.all(app.runtime.now()).into_iter().map(of).collect() })
}

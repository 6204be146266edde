//! The pages: rendered here, without a build step, without a request to anywhere else, of use without script. They share
//! their style with the reports of drills (`evidence/report.css`), and say what the API says.

mod admin;
mod approvals;
mod assets;
mod drill;
mod environment;
mod jobs;
mod layout;
mod ledger;
mod login;
mod overview;
pub(crate) mod parts;
pub(crate) mod problem;
mod restore;
mod schedule;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::http::app::App;

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/assets/{file}", get(assets::file))
        .route("/login", get(login::page).post(login::by_token))
        .route("/login/oidc", get(login::to_provider))
        .route("/login/oidc/callback", get(login::from_provider))
        .route("/logout", post(login::out))
        .route("/environments/{environment}", get(environment::page))
        .route("/environments/{environment}/drills/{sequence}", get(drill::page))
        .route("/environments/{environment}/ledger", get(ledger::page))
        .route("/environments/{environment}/ledger/{sequence}", get(ledger::entry))
        .route("/environments/{environment}/restore", get(restore::page))
        .route("/environments/{environment}/jobs", post(jobs::start))
        .route("/environments/{environment}/approvals", post(approvals::request))
        .route("/environments/{environment}/approvals/{approval}/approve", post(approvals::approve))
        .route("/environments/{environment}/approvals/{approval}/deny", post(approvals::deny))
        .route("/jobs", get(jobs::page))
        .route("/jobs/{job}/cancel", post(jobs::cancel))
        .route("/schedule", get(schedule::page))
        .route("/approvals", get(approvals::page))
        .route("/audit", get(admin::audit))
        .route("/sessions", get(admin::sessions))
        .route("/sessions/{session}/end", post(admin::end_session))
}

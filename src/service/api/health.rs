//! Whether the process lives and whether it is of use: for systemd, Kubernetes, load balancers. They tell no more than that.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;

use crate::service::http::app::App;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;
use crate::service::metrics::CONTENT_TYPE;

/// `/healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// `/readyz`: it is not being stopped, and has looked at every environment or said why not.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    let view = app.view();
    let looked = view.environments.iter().all(|e| e.view.is_some() || e.trouble.is_some());
    match (view.stopping, looked) {
        (false, true) => (StatusCode::OK, "ready\n"),
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

/// `/metrics`: figures for Prometheus. They name every environment, so a token that is bound to some does not do.
pub(super) async fn metrics(State(app): State<Arc<App>>, visitor: Visitor) -> Result<impl IntoResponse, Problem> {
    if visitor.environments.is_some() {
        return Err(Problem::forbidden("metrics name every environment: use a token that is bound to none"));
    }
    let text = app.state.metrics().render(&app.view(), app.runtime.now());
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

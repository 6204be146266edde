//! Whether the process lives and whether it is of use: for systemd, Kubernetes, load balancers. They tell no more than that.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::service::http::app::App;

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

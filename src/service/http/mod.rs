//! The HTTP server of the service: who may come in, and what leaves it. What it serves is in `api/` and `pages/`.
//!
//! ```text
//! server ─ tls            connections, bounded
//!   └─ router: headers ─ dress ─ panics ─ limits (client, limit) ─ time ─ size ─ guard ─▶ api, pages
//! guard ─ routes (the table) ─ visitor ─ tokens (secrets), sessions, oidc;  audit
//! ```

pub(crate) mod app;
mod audit;
pub(crate) mod client;
mod dress;
pub(crate) mod guard;
mod headers;
mod limit;
mod oidc;
pub(crate) mod problem;
pub(crate) mod routes;
pub mod secrets;
mod server;
mod sessions;
#[cfg(test)]
mod tests;
mod tls;
pub(crate) mod visitor;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use audit::Line as AuditLine;
pub use server::Server;
pub(crate) use sessions::Session;

use app::App;
use problem::Problem;

use super::control::Control;
use super::state::ServiceState;
use super::{api, pages};
use crate::config::{Estate, HttpConfig};
use crate::error::Result;
use crate::runtime::Runtime;

/// How long an answer may be made; a plan reads WAL, and takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The page and the API of a service.
#[derive(Debug, Clone)]
pub struct Http {
    app: Arc<App>,
}

impl Http {
    /// Everything but the network: reads no file but the audit log.
    ///
    /// # Errors
    /// Config where the audit log cannot be opened.
    pub fn new(
        estates: watch::Receiver<Arc<Estate>>,
        config: HttpConfig,
        state: ServiceState,
        control: Control,
        runtime: Runtime,
        stop: CancellationToken,
    ) -> Result<Self> {
        Ok(Self { app: App::new(estates, config, state, control, runtime, stop)? })
    }

    /// Takes the address; [`Server::run`] then serves.
    ///
    /// # Errors
    /// Config where the address or the certificate cannot be used.
    pub async fn bind(&self) -> Result<Server> {
        Server::bind(self.app.http(), self.app.clone()).await
    }
}

/// Everything that is served, behind everything that guards it.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(pages::routes())
        .method_not_allowed_fallback(dress::nowhere)
        .route_layer(from_fn_with_state(app.clone(), guard::guarded))
        .fallback(dress::nowhere)
        .layer(DefaultBodyLimit::max(guard::LARGEST_BODY))
        .layer(from_fn(in_time))
        .layer(CatchPanicLayer::custom(dress::panicked))
        .layer(from_fn_with_state(app.clone(), dress::dressed))
        .layer(from_fn(headers::secured))
        .layer(from_fn_with_state(app.clone(), guard::limited))
        .with_state(app)
}

/// Ends what takes too long. Streams of events begin at once, and are not counted.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "This took too long",
            "no answer could be made in time",
        )
        .into_response(),
    }
}

//! Makes a page of a problem for whoever asks for pages, and catches what panics.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, RETRY_AFTER};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::problem::Problem;
use super::visitor::Visitor;
use crate::service::pages;

/// Behind it, problems leave as pages where pages are wanted.
pub(crate) async fn dressed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let page = !request.uri().path().starts_with("/api/") && wants_page(request.headers());
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>().filter(|_| page) else { return response };
    let visitor = response.extensions().get::<Visitor>();
    let mut dressed = pages::problem::page(&app, problem, visitor).into_response();
    *dressed.status_mut() = response.status();
    if let Some(value) = response.headers().get(RETRY_AFTER) {
        dressed.headers_mut().insert(RETRY_AFTER, value.clone());
    }
    dressed
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// What a panic becomes: an answer that tells nothing of it. The panic itself was told on standard error.
pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::internal("this request could not be answered, and the service goes on").into_response()
}

/// Whatever has no route.
pub(crate) async fn nowhere() -> Problem {
    Problem::not_found("there is nothing here")
}

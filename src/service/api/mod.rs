//! `/api/v1`: what the page shows, for programs. Its description (OpenAPI) is made from this code.

pub(crate) mod events;
pub(crate) mod extract;
mod health;
pub(crate) mod model;
mod refusals;
mod see;
mod work;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::http::app::App;
use super::http::problem::Problem;

/// The description without the paths, which come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lifeboat",
        description = "State of an estate and of its service. Times are RFC 3339 in UTC, spans in seconds, sizes in bytes; \
what is not known is null. Errors are `application/problem+json` (RFC 9457). Tokens stand in `Authorization: Bearer`; \
each route says which role it needs."
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(see::me))
        .routes(routes!(see::estate))
        .routes(routes!(see::environment))
        .routes(routes!(see::backups))
        .routes(routes!(see::windows))
        .routes(routes!(see::drills))
        .routes(routes!(see::drill))
        .routes(routes!(see::schedule))
        .routes(routes!(see::jobs))
        .routes(routes!(see::ledger))
        .routes(routes!(see::verification))
        .routes(routes!(see::entry))
        .routes(routes!(see::audit))
        .routes(routes!(see::approvals, work::request_approval))
        .routes(routes!(see::sessions))
        .routes(routes!(work::plan))
        .routes(routes!(work::start_job))
        .routes(routes!(work::cancel_job))
        .routes(routes!(work::approve))
        .routes(routes!(work::deny))
        .routes(routes!(work::end_session))
        .routes(routes!(events::events))
}

/// The description.
#[cfg(test)]
fn document() -> Document {
    described().split_for_parts().1
}

/// The routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    let (router, document) = described().split_for_parts();
    let document = Arc::new(document);
    router
        .route("/api/openapi.json", get(move || async move { Json(document.as_ref().clone()) }))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::routes::ROUTES;

    #[test]
    fn what_is_described_is_what_the_table_of_routes_has() {
        let document = serde_json::to_value(document()).expect("JSON");
        let mut described: Vec<String> = Vec::new();
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for method in operations.as_object().expect("operations").keys() {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut table: Vec<String> = ROUTES
            .iter()
            .filter(|route| route.path.starts_with("/api/v1/"))
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        described.sort();
        table.sort();
        assert_eq!(described, table);
    }

    #[test]
    fn every_operation_is_explained_and_says_how_it_fails() {
        let document = serde_json::to_value(document()).expect("JSON");
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                let responses = operation["responses"].as_object().expect("responses");
                for status in ["401", "403", "429"] {
                    assert!(responses.contains_key(status), "{method} {path} does not describe {status}");
                }
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            }
        }
    }
}

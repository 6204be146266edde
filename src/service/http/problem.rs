//! What is answered when something is refused or goes wrong: RFC 9457 (`application/problem+json`) for programs; the
//! dresser (`dress.rs`) makes a page of it for people. Nothing internal is told that the requester may not know.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::error::{Error, ErrorKind};

/// A refusal or a failure, as RFC 9457 wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of the problem: `urn:lifeboat:problem:…`.
    #[serde(rename = "type", serialize_with = "urn")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened, to what.
    pub detail: String,
    /// What it means for the data, where that is not obvious.
    pub meaning: Option<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// Seconds after which it can be tried again.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

// The shape that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn urn<S: Serializer>(kind: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:lifeboat:problem:{kind}"))
}

/// The media type of problems.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem of `kind` with an HTTP status.
    pub(crate) fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            meaning: None,
            hints: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds one thing to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Nobody is signed in.
    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Not signed in", detail)
    }

    /// The person may not.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// There is no such thing, or none that the person may see.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The request makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Not understood", detail)
    }

    /// Too much at once.
    pub(crate) fn too_many(detail: impl Into<String>, retry_after: u32) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail);
        Self { retry_after: Some(retry_after.max(1)), ..problem }
    }

    /// Something that is needed is away for now.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
    }

    /// A bug.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here", detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, kind, title) = match error.kind() {
            ErrorKind::Absent => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            ErrorKind::Usage => (StatusCode::BAD_REQUEST, "bad-request", "Not understood"),
            ErrorKind::Denied => (StatusCode::FORBIDDEN, "denied", "Denied"),
            ErrorKind::NotRecoverable => (StatusCode::CONFLICT, "not-recoverable", "This cannot be restored"),
            ErrorKind::Source => (StatusCode::BAD_GATEWAY, "source", "The source does not answer"),
            ErrorKind::Repository => (StatusCode::SERVICE_UNAVAILABLE, "repository", "The repository is away"),
            ErrorKind::Integrity => (StatusCode::INTERNAL_SERVER_ERROR, "integrity", "Something is damaged"),
            ErrorKind::Config => (StatusCode::INTERNAL_SERVER_ERROR, "configuration", "The configuration is wrong"),
            ErrorKind::CheckFailed | ErrorKind::ObjectiveMissed | ErrorKind::Partial => {
                (StatusCode::CONFLICT, "bad-result", "Done, with a bad result")
            }
            ErrorKind::Internal | ErrorKind::Interrupted => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here")
            }
        };
        Self {
            meaning: error.what_it_means().map(str::to_owned),
            hints: error.hints().to_vec(),
            ..Self::new(status, kind, title, error.message())
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lifeboat\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

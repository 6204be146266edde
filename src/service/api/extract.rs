//! Parts of a request, refused as problems where they are not what they must be.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Form, Json};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::service::http::problem::Problem;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Given<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // serde would take a list for an object with the same fields in order; nobody who sends one means that.
        let given = Json::<Map<String, Value>>::from_request(request, state).await;
        let Json(fields) = given.map_err(|refused| match refused.status() {
            status @ (StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
                Problem::new(status, "bad-request", "Not understood", refused.body_text())
            }
            // Well-formed or not: what this body says is not what is asked for.
            _ => Problem::bad_request(refused.body_text()),
        })?;
        let value = serde_json::from_value(Value::Object(fields));
        value.map(Self).map_err(|refused| Problem::bad_request(refused.to_string()))
    }
}

/// A form.
#[derive(Debug)]
pub(crate) struct Filled<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Filled<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let given = Form::<T>::from_request(request, state).await;
        given.map(|Form(value)| Self(value)).map_err(|refused| Problem::bad_request(refused.body_text()))
    }
}

/// Parts of the path.
#[derive(Debug)]
pub(crate) struct At<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What is not even written like one is not there.
        let found = Path::<T>::from_request_parts(parts, state).await;
        found.map(|Path(value)| Self(value)).map_err(|_| Problem::not_found("there is nothing here"))
    }
}

/// The query.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Query::<T>::from_request_parts(parts, state).await;
        found.map(|Query(value)| Self(value)).map_err(|refused| Problem::bad_request(refused.body_text()))
    }
}

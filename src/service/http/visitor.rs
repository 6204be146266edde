//! Who asks: known by a token or by a session, with a role and with the environments that he may see.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;
use crate::config::Role;
use crate::evidence::approval::{KnownBy, Person};

/// Somebody whose identity was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) known_by: KnownBy,
    pub(crate) role: Role,
    /// Environments that he may see; `None`: all.
    pub(crate) environments: Option<Arc<[String]>>,
    /// Of a browser: the token that his forms carry.
    pub(crate) session: Option<Arc<str>>,
}

impl Visitor {
    /// Whether he may see an environment.
    pub(crate) fn sees(&self, environment: &str) -> bool {
        self.environments.as_ref().is_none_or(|names| names.iter().any(|name| name == environment))
    }

    /// As he stands in ledgers.
    pub(crate) fn person(&self, host: &str) -> Person {
        Person { name: self.name.clone(), known_by: self.known_by, host: host.to_owned() }
    }

    /// What his forms carry, in the hidden field `csrf`.
    pub(crate) fn csrf(&self) -> &str {
        self.session.as_deref().unwrap_or_default()
    }
}

/// Behind the guard every request of a route that needs a role has its visitor.
impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Visitor>().cloned().ok_or_else(|| Problem::unauthenticated("sign in first"))
    }
}

//! Sessions of people at the page.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Role;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    /// Its number.
    pub(crate) session: u64,
    /// Whose it is.
    pub(crate) name: String,
    /// The role.
    pub(crate) role: Role,
    /// When it began.
    pub(crate) began: DateTime<Utc>,
    /// When it was used last.
    pub(crate) last_seen: DateTime<Utc>,
    /// When it ends.
    pub(crate) ends: DateTime<Utc>,
}

/// The sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// Oldest first.
    pub(crate) sessions: Vec<SessionView>,
}

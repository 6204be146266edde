//! Something that the program itself asserts about a restored copy: the fixed half of a check, to which a result
//! is added.

use std::time::Instant;

use crate::evidence::drill_record::{Check, CheckResult, Severity};

/// What is asserted, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asserted<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) why: &'a str,
    pub(super) severity: Severity,
}

impl<'a> Asserted<'a> {
    /// An assertion whose failure fails the drill.
    pub(super) fn hard(id: &'a str, title: &'a str, why: &'a str) -> Self {
        Self { id, title, why, severity: Severity::Hard }
    }

    /// The check, with its result about `scope`.
    pub(super) fn check(
        &self,
        scope: &str,
        result: CheckResult,
        detail: impl Into<String>,
        rows: Vec<String>,
        began: Instant,
    ) -> Check {
        Check {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            why: self.why.to_owned(),
            severity: self.severity,
            scope: scope.to_owned(),
            result,
            detail: detail.into(),
            rows,
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}

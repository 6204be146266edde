//! Restores: to exactly the place that was asked for, refused where that cannot be, continued where they
//! were interrupted, and never over anything that exists.

mod approval;
mod delta;
mod dump;
mod loss;
mod places;
mod targets;
mod tenant;

use std::time::Duration;

use crate::common::Output;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Must be refused with `code`; what was said.
#[track_caller]
pub(super) fn refused(output: Output, code: i32) -> String {
    let json = output.expect_code(code).json();
    let error = &json["error"];
    format!("{} {}", error["message"].as_str().expect("a message"), error["hints"])
}

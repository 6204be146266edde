//! Style, script and icon: three small files that are part of the program.

use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::layout::ICON;
use crate::evidence::report_html::STYLE;
use crate::service::api::extract::At;
use crate::service::http::problem::Problem;

const SCRIPT: &str = include_str!("page.js");
const OWN_STYLE: &str = include_str!("page.css");

/// One of them.
pub(super) async fn file(At(name): At<String>) -> Result<([(HeaderName, &'static str); 2], String), Problem> {
    let (kind, content) = match name.as_str() {
        "lifeboat.css" => ("text/css; charset=utf-8", format!("{STYLE}\n{OWN_STYLE}")),
        "lifeboat.js" => ("text/javascript; charset=utf-8", SCRIPT.to_owned()),
        "icon.svg" => ("image/svg+xml", ICON.to_owned()),
        _ => return Err(Problem::not_found("there is no such file")),
    };
    Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=300")], content))
}

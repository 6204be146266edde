//! A refusal or a failure as a page.

use maud::{Markup, html};

use super::layout::{Here, Page};
use super::parts::{code_in, first_upper};
use crate::service::http::app::App;
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// The page.
pub(crate) fn page(app: &App, problem: &Problem, visitor: Option<&Visitor>) -> Markup {
    let content = html! {
        section class="verdict quiet objective_missed" {
            div {
                p.word { (problem.title) }
                p.sentence { (first_upper(&problem.detail)) }
            }
        }
        @if problem.meaning.is_some() || !problem.hints.is_empty() {
            section {
                @if let Some(meaning) = &problem.meaning { p { (first_upper(meaning)) "." } }
                @if !problem.hints.is_empty() {
                    h2 { "What to do" }
                    ul { @for hint in &problem.hints { li { (code_in(hint)) } } }
                }
            }
        }
        p { a href="/" { "To the estate" } @if visitor.is_none() { " · " a href="/login" { "Sign in" } } }
    };
    Page { title: problem.title, here: Here::Nowhere, visitor, live: false }.around(app, &content)
}

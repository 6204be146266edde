//! What is due when, and what stands against it.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};

use super::layout::{Here, Page};
use super::parts;
use crate::service::http::app::App;
use crate::service::http::visitor::Visitor;

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, visitor: Visitor) -> Markup {
    let (view, now) = (app.view(), app.runtime.now());
    let due = view.next.iter().filter(|next| visitor.sees(&next.environment));
    let content = html! {
        div.head { h1 { "Schedule" } }
        div id="live" {
            section { h2 { "Due next" } (parts::upcoming(due, now, true)) }
        }
        p.muted { "Further ahead, and why something will not run: " code { "lifeboat schedule preview --days 30" } }
    };
    Page { title: "Schedule", here: Here::Schedule, visitor: Some(&visitor), live: true }.around(&app, &content)
}

//! What is due when, and what stands against it.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};

use super::layout::{Here, Page};
use super::parts;
use crate::config::{CalendarKind, Estate};
use crate::service::api::model::word;
use crate::service::http::app::App;
use crate::service::http::visitor::Visitor;

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, visitor: Visitor) -> Markup {
    let (view, now) = (app.view(), app.runtime.now());
    let due = view.next.iter().filter(|next| visitor.sees(&next.environment));
    let (estate, calendars) = (app.estate(), app.calendars(&visitor));
    let content = html! {
        div.head { h1 { "Schedule" } }
        div id="live" {
            section { h2 { "Due next" } (parts::upcoming(due, now, true)) }
            section {
                h2 { "Calendars" }
                @if calendars.is_empty() { p.muted { "No calendar has a window in the next 60 days." } } @else {
                    div.scroll { table.stack {
                        caption.hidden { "Windows of calendars in the next 60 days" }
                        thead { tr { th scope="col" { "From" } th scope="col" { "To" } th scope="col" { "Calendar" } th scope="col" { "Environment" } th scope="col" { "What it does" } } }
                        tbody { @for (environment, window) in &calendars {
                            tr class=(if window.from <= now && now < window.to { "row-warn" } else { "" }) {
                                td.time data-label="from" { (parts::clock(window.from)) }
                                td.time data-label="to" { (parts::clock(window.to)) span.why { (parts::ago(now, window.to)) } }
                                th scope="row" { (window.calendar) @if let Some(title) = &window.title { span.why { (title) } } }
                                td data-label="environment" { (environment) }
                                td { (effects(&estate, &window.calendar)) }
                            }
                        } }
                    } }
                }
            }
        }
        p.muted { "Further ahead, and why something will not run: " code { "lifeboat schedule preview --days 30" } }
    };
    Page { title: "Schedule", here: Here::Schedule, visitor: Some(&visitor), live: true }.around(&app, &content)
}

/// What a calendar does, in words.
fn effects(estate: &Estate, name: &str) -> String {
    let calendar = estate.calendars.iter().find(|calendar| calendar.name == name);
    let words = calendar.into_iter().flat_map(|calendar| &calendar.effects).map(word);
    let mut words: Vec<String> = words.map(|effect| effect.replace('-', " ")).collect();
    if calendar.is_some_and(|calendar| calendar.rpo.is_some() || calendar.rto.is_some()) {
        words.push("tighter objectives".to_owned());
    }
    match calendar.is_some_and(|calendar| calendar.kind == CalendarKind::Allow) {
        true => format!("the only time without: {}", words.join(", ")),
        false => words.join(", "),
    }
}

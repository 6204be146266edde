//! The runbook as a page: the same Markdown, in the style of the reports, for the screen and for paper.

use maud::{DOCTYPE, PreEscaped, html};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd, html as push};

use super::bound::Marker;
use super::markdown;
use super::model::Runbook;

const STYLE: &str = concat!(include_str!("../evidence/report.css"), include_str!("runbook.css"));

/// The page.
pub(super) fn page(runbook: &Runbook) -> String {
    let body = rendered(&markdown::text(runbook));
    let marker = Marker::of(runbook, &body);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="lifeboat-runbook" content=(marker.line());
                title { "Runbook of " (runbook.environment) }
                style { (PreEscaped(STYLE)) }
            }
            body.runbook {
                main { (PreEscaped(&body)) }
                footer { p {
                    "Runbook of " (runbook.environment) " · configuration " code { (runbook.configuration.get(..16).unwrap_or(&runbook.configuration)) }
                    " · Lifeboat " (runbook.version)
                } }
            }
        }
    };
    page.into_string()
}

/// Markdown as HTML. What looks like HTML in it is text: names and addresses come from configuration files.
fn rendered(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let mut open = false;
    let mut events: Vec<Event<'_>> = Vec::new();
    for event in Parser::new_ext(markdown, options) {
        match event {
            Event::Html(text) | Event::InlineHtml(text) => match text.trim().strip_prefix("<!-- scenario: ") {
                Some(rest) => {
                    let id: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                    let close = if open { "</section>" } else { "" };
                    open = true;
                    events.push(Event::Html(
                        format!("{close}<section class=\"scenario\" id=\"{}\">", id.trim_end_matches('-')).into(),
                    ));
                }
                None => events.push(Event::Text(text)),
            },
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let class = if info.ends_with("by-hand") { "by-hand" } else { "run" };
                events.push(Event::Html(format!("<pre class=\"{class}\"><code>").into()));
            }
            Event::End(TagEnd::CodeBlock) => events.push(Event::Html(CowStr::Borrowed("</code></pre>"))),
            // A box to tick with a pen.
            Event::TaskListMarker(_) => {
                events.push(Event::Html(CowStr::Borrowed("<span class=\"box\" aria-hidden=\"true\"></span>")))
            }
            Event::Start(Tag::Table(_)) => {
                events.push(Event::Html(CowStr::Borrowed("<div class=\"scroll\">")));
                events.push(event);
            }
            Event::End(TagEnd::Table) => {
                events.push(event);
                events.push(Event::Html(CowStr::Borrowed("</div>")));
            }
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) | Event::End(TagEnd::Link | TagEnd::Image) => {}
            other => events.push(other),
        }
    }
    let mut html = String::from("<section class=\"first\">");
    push::push_html(&mut html, events.into_iter());
    // The first section ends where the first scenario begins.
    let html = html.replacen("<section class=\"scenario\"", "</section><section class=\"scenario\"", 1);
    html + "</section>"
}

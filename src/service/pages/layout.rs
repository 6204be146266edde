//! What all pages share: head, navigation, the frame around the content.

use maud::{DOCTYPE, Markup, html};

use crate::config::Role;
use crate::service::http::app::App;
use crate::service::http::visitor::Visitor;

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    Estate,
    Jobs,
    Schedule,
    Approvals,
    Audit,
    Sessions,
    /// Not in it.
    Nowhere,
}

const NAVIGATION: [(Here, &str, &str, Role); 6] = [
    (Here::Estate, "/", "Estate", Role::Viewer),
    (Here::Jobs, "/jobs", "Jobs", Role::Viewer),
    (Here::Schedule, "/schedule", "Schedule", Role::Viewer),
    (Here::Approvals, "/approvals", "Approvals", Role::Viewer),
    (Here::Audit, "/audit", "Audit", Role::Auditor),
    (Here::Sessions, "/sessions", "Sessions", Role::Admin),
];

/// A page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) here: Here,
    pub(crate) visitor: Option<&'a Visitor>,
    /// Whether it is kept fresh while somebody looks at it.
    pub(crate) live: bool,
}

impl Page<'_> {
    /// The whole page around `content`.
    pub(crate) fn around(&self, app: &App, content: &Markup) -> Markup {
        let view = app.view();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Lifeboat" }
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/assets/lifeboat.css";
                    @if self.live { noscript { meta http-equiv="refresh" content="60"; } }
                    script src="/assets/lifeboat.js" defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href="/" { (mark()) "Lifeboat" }
                        @if let Some(visitor) = self.visitor {
                            nav aria-label="Main" { ul {
                                @for (here, path, name, role) in NAVIGATION {
                                    @if visitor.role >= role {
                                        li { a href=(path) aria-current=[(here == self.here).then_some("page")] { (name) } }
                                    }
                                }
                            } }
                            div.who {
                                span { (visitor.name) " · " (visitor.role) }
                                @if visitor.session.is_some() {
                                    form method="post" action="/logout" {
                                        (csrf(visitor))
                                        button.plain type="submit" { "Sign out" }
                                    }
                                }
                            }
                        }
                    }
                    main id="main" tabindex="-1" { (content) }
                    footer {
                        p {
                            span { "Lifeboat " (view.version) @if self.visitor.is_some() { " · " (view.instance) } }
                            @if self.visitor.is_some() {
                                span { "Times are UTC; this page is of " (super::parts::clock(app.runtime.now())) }
                            }
                        }
                        p.hidden id="status" role="status" aria-live="polite" {}
                    }
                }
            }
        }
    }
}

/// The hidden field without which a form is not taken.
pub(crate) fn csrf(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.csrf()); }
}

/// A ring buoy.
fn mark() -> Markup {
    html! {
        svg viewBox="0 0 24 24" aria-hidden="true" {
            circle cx="12" cy="12" r="8.2" fill="none" stroke="currentColor" stroke-width="5.2" {}
            path d="M12 1v5.6M12 17.4V23M1 12h5.6M17.4 12H23" stroke="var(--card)" stroke-width="3" {}
        }
    }
}

/// The same as an icon of its own.
pub(crate) const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 24 24\">\
<circle cx=\"12\" cy=\"12\" r=\"8.2\" fill=\"none\" stroke=\"#2d5fa8\" stroke-width=\"5.2\"/>\
<path d=\"M12 1v5.6M12 17.4V23M1 12h5.6M17.4 12H23\" stroke=\"#fff\" stroke-width=\"3\"/></svg>";

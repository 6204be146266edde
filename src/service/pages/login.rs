//! Signing in and out.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Here, Page};
use crate::service::api::extract::{Asked, Filled};
use crate::service::http::app::App;
use crate::service::http::client::Client;
use crate::service::http::guard::{by_token as holder, cookie, cookie_name, place_here};
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;

/// Where to go afterwards.
#[derive(Debug, Deserialize)]
pub(super) struct Next {
    next: Option<String>,
}

/// The page.
pub(super) async fn page(State(app): State<Arc<App>>, Asked(next): Asked<Next>) -> Markup {
    form(&app, next.next.as_deref().unwrap_or("/"), None)
}

fn form(app: &App, next: &str, refused: Option<&str>) -> Markup {
    let next = place_here(next);
    let tokens = app.tokens();
    let content = html! {
        section.login {
            h1 { "Sign in" }
            @if let Some(refused) = refused { p.alarm role="alert" { (refused) } }
            @if app.oidc.is_some() {
                @let to: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
                p { a.button.first href={ "/login/oidc?next=" (to) } { "With your organisation's account" } }
                @if !tokens.is_empty() { p.muted { "or with a token:" } }
            }
            @if !tokens.is_empty() || app.oidc.is_none() {
                form method="post" action="/login" {
                    input type="hidden" name="next" value=(next);
                    p {
                        label for="token" { "Token" }
                        input id="token" type="password" name="token" required autocomplete="current-password" autofocus[app.oidc.is_none()];
                    }
                    button.first type="submit" { "Sign in" }
                }
            }
            @if tokens.is_empty() && app.oidc.is_none() {
                p.note { "Nobody can sign in yet: " code { "lifeboat service token --role admin --name NAME" } " makes a token, and prints what the configuration needs." }
            }
        }
    };
    Page { title: "Sign in", here: Here::Nowhere, visitor: None, live: false }.around(app, &content)
}

/// The form.
#[derive(Deserialize)]
pub(super) struct Shown {
    token: String,
    next: Option<String>,
}

/// Signs in by a token.
pub(super) async fn by_token(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Filled(shown): Filled<Shown>,
) -> Result<Response, Problem> {
    app.limits.attempt(&client)?;
    let next = shown.next.as_deref().unwrap_or("/");
    let Some((visitor, hash)) = holder(&app, shown.token.trim()) else {
        app.audit.note(&client, None, "sign in", "token", "refused");
        let page = form(&app, next, Some("This token is not known."));
        return Ok((axum::http::StatusCode::UNAUTHORIZED, page).into_response());
    };
    signed_in(&app, &client, visitor, Some(hash), next)
}

fn signed_in(
    app: &App,
    client: &Client,
    visitor: Visitor,
    token: Option<[u8; 32]>,
    next: &str,
) -> Result<Response, Problem> {
    app.audit.note(client, Some(&visitor), "sign in", if token.is_some() { "token" } else { "oidc" }, "done");
    let lasts = app.http().session_lasts;
    let secret = app.sessions.begin(visitor, token, lasts, app.runtime.now())?;
    let set = set_cookie(cookie_name(client.secure), &secret, client.secure, "/", lasts.as_secs());
    Ok(([(SET_COOKIE, set)], Redirect::to(place_here(next))).into_response())
}

fn set_cookie(name: &str, value: &str, secure: bool, path: &str, seconds: u64) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}")
}

/// Signs out.
pub(super) async fn out(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Response {
    if let Some(secret) = cookie(&headers, cookie_name(client.secure)) {
        app.sessions.end(secret);
    }
    app.audit.note(&client, Some(&visitor), "sign out", "", "done");
    let set = set_cookie(cookie_name(client.secure), "", client.secure, "/", 0);
    let clear = (HeaderName::from_static("clear-site-data"), "\"cache\", \"storage\"".to_owned());
    ([(SET_COOKIE, set), clear], Redirect::to("/login")).into_response()
}

/// The cookie that ties a login at the provider to the browser that began it.
const LOGIN: &str = "lifeboat-login";

/// Sends the browser to the identity provider.
pub(super) async fn to_provider(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Asked(next): Asked<Next>,
) -> Result<Response, Problem> {
    let oidc = app.oidc.as_ref().ok_or_else(|| Problem::not_found("no identity provider is configured"))?;
    let begun = oidc.begin(place_here(next.next.as_deref().unwrap_or("/")), app.runtime.now()).await?;
    let set = set_cookie(LOGIN, &begun.browser, client.secure, "/login/oidc", 600);
    Ok(([(SET_COOKIE, set)], Redirect::to(&begun.address)).into_response())
}

/// What the provider sends back.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

/// Takes the browser back from the identity provider.
pub(super) async fn from_provider(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Asked(answer): Asked<Answer>,
) -> Result<Response, Problem> {
    let oidc = app.oidc.as_ref().ok_or_else(|| Problem::not_found("no identity provider is configured"))?;
    app.limits.attempt(&client)?;
    let (Some(state), Some(code)) = (&answer.state, &answer.code) else {
        let word = answer.error.as_deref().filter(|e| e.len() < 60 && e.chars().all(|c| c.is_ascii_graphic()));
        let why = word.map_or_else(|| "no code came back".to_owned(), |word| format!("it says {word}"));
        app.audit.note(&client, None, "sign in", "oidc", &why);
        return Err(Problem::forbidden(format!("the identity provider did not let you in: {why}")));
    };
    match oidc.finish(state, code, cookie(&headers, LOGIN), app.runtime.now()).await {
        Ok((visitor, next)) => signed_in(&app, &client, visitor, None, &next),
        Err(e) => {
            app.audit.note(&client, None, "sign in", "oidc", &format!("refused: {e}"));
            Err(e.into())
        }
    }
}

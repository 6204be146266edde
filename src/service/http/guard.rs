//! What every request passes: its share of the limits, who asks, whether he may, and whether a form is his own.
//!
//! Nothing behind it is reached by a route that is not in the table (`routes.rs`), by somebody whose role is too low,
//! for an environment that he may not see, or by a form that another site sent in his name.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{RequestExt, extract::Extension};

use super::app::App;
use super::client::{Client, Peer};
use super::problem::Problem;
use super::routes::{Needs, needs};
use super::secrets;
use super::visitor::Visitor;
use crate::evidence::approval::KnownBy;

/// Bytes of a form or of a JSON body.
pub(crate) const LARGEST_BODY: usize = 64 << 10;

/// The name of the cookie that holds a session: with TLS one that browsers accept from this host by TLS only.
pub(crate) fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-lifeboat" } else { "lifeboat" }
}

/// The outermost: limits, before anything costs anything.
pub(crate) async fn limited(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let client = Client::of(peer, request.headers(), &app.http().trusted_proxies);
    // Whoever watches over the service must not be kept out by those who flood it.
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !probe && let Err(refused) = app.limits.admit(&client) {
        return refused.into_response();
    }
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// Who asks, and whether he may.
pub(crate) async fn guarded(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match admit(&app, &mut request).await {
        Ok(Some(visitor)) => {
            request.extensions_mut().insert(visitor.clone());
            let mut response = next.run(request).await;
            // For whoever makes a page of a problem.
            response.extensions_mut().insert(visitor);
            response
        }
        Ok(None) => next.run(request).await,
        Err(refused) => *refused,
    }
}

async fn admit(app: &App, request: &mut Request) -> Result<Option<Visitor>, Box<Response>> {
    let answer = |problem: Problem| Box::new(problem.into_response());
    let client = request.extensions().get::<Client>().copied();
    let client = client.ok_or_else(|| answer(Problem::internal("the client is not known")))?;
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let Some(needs) = needs(request.method(), &path) else {
        return Err(answer(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Not done this way",
            format!("{} is not known here", request.method()),
        )));
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && let Some(from) = other_site(request.headers(), request.uri()) {
        app.audit.note(&client, None, "refused", &format!("{path} from {from}"), "cross-site");
        return Err(answer(Problem::forbidden(format!("this form was sent by another site ({from})"))));
    }
    let visitor = who(app, &client, request.headers()).map_err(answer)?;
    let Needs::Role(role) = needs else { return Ok(visitor) };
    let Some(visitor) = visitor else {
        let page = !path.starts_with("/api/");
        if page && !changes {
            let wanted: String = url::form_urlencoded::byte_serialize(asked(request).as_bytes()).collect();
            return Err(Box::new(
                (StatusCode::SEE_OTHER, [(LOCATION, format!("/login?next={wanted}"))]).into_response(),
            ));
        }
        return Err(answer(Problem::unauthenticated("this needs a token, or a session").hint("sign in at /login")));
    };
    if visitor.role < role {
        app.audit.note(&client, Some(&visitor), "refused", &path, &format!("needs {role}"));
        let refusal = format!("this needs the role {role}; {} is {}", visitor.name, visitor.role);
        let mut response = answer(Problem::forbidden(refusal));
        response.extensions_mut().insert(visitor);
        return Err(response);
    }
    if let Ok(parameters) = request.extract_parts::<RawPathParams>().await
        && let Some((_, name)) = parameters.iter().find(|(key, _)| *key == "environment")
        && !(visitor.sees(name) && app.estate().environment(name).is_ok())
    {
        return Err(answer(Problem::not_found("there is no such environment")));
    }
    if changes && visitor.session.is_some() {
        own_form(&visitor, request).await.map_err(answer)?;
    }
    Ok(Some(visitor))
}

/// The site that sent a form, where it is not this one. Browsers say so in two ways, and cannot be made to lie; what is no
/// browser says nothing, and carries no cookie.
fn other_site(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        let ours = matches!(site, "same-origin" | "none");
        return (!ours).then(|| text("origin").unwrap_or(site).to_owned());
    }
    let origin = text("origin")?;
    // HTTP/2 has no header `host`, but an address that names it.
    let host = text(HOST.as_str()).or(uri.authority().map(Authority::as_str)).unwrap_or_default();
    let theirs = origin.split_once("://").map_or(origin, |(_, host)| host);
    (theirs != host).then(|| origin.to_owned())
}

/// Who shows a token or a session that counts; `None`: nobody shows either.
fn who(app: &App, client: &Client, headers: &HeaderMap) -> Result<Option<Visitor>, Problem> {
    if let Some(shown) = headers.get(AUTHORIZATION) {
        let token = shown.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(|| Problem::unauthenticated("Authorization is not a bearer token"))?;
        if let Some((visitor, _)) = by_token(app, token) {
            return Ok(Some(visitor));
        }
        app.limits.attempt(client)?;
        app.audit.note(client, None, "sign in", "token", "refused");
        return Err(Problem::unauthenticated("this token is not known"));
    }
    let Some(secret) = cookie(headers, cookie_name(client.secure)) else { return Ok(None) };
    let Some(session) = app.sessions.find(secret, app.runtime.now()) else { return Ok(None) };
    // A token that was taken out of the configuration takes its sessions along; its role may have changed.
    let mut visitor = match session.token {
        None => session.visitor,
        Some(hash) => match known_token(app, &hash) {
            Some(visitor) => visitor,
            None => {
                app.sessions.end(secret);
                return Ok(None);
            }
        },
    };
    visitor.session = Some(session.csrf.into());
    Ok(Some(visitor))
}

/// The holder of a static token, and the token's hash.
pub(crate) fn by_token(app: &App, token: &str) -> Option<(Visitor, [u8; 32])> {
    let hash = secrets::hash(token);
    known_token(app, &hash).map(|visitor| (visitor, hash))
}

fn known_token(app: &App, hash: &[u8; 32]) -> Option<Visitor> {
    let tokens = app.tokens();
    let token = secrets::find(hash, tokens.iter().map(|token| (&token.sha256, token)))?;
    Some(Visitor {
        name: token.name.clone(),
        known_by: KnownBy::Token,
        role: token.role,
        environments: token.environments.as_ref().map(|names| names.clone().into()),
        session: None,
    })
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// A form, or a request of a script, of a browser must carry what the page gave it: another site cannot know that.
async fn own_form(visitor: &Visitor, request: &mut Request) -> Result<(), Problem> {
    let refusal = || {
        Problem::forbidden("this form is not from a page of your present session")
            .hint("go back, load the page again and repeat what you did")
    };
    if let Some(shown) = request.headers().get("x-csrf-token") {
        let right = shown.to_str().is_ok_and(|shown| secrets::same(shown, visitor.csrf()));
        return right.then_some(()).ok_or_else(refusal);
    }
    let form = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !form.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        return Err(refusal());
    }
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let bytes: Bytes = to_bytes(body, LARGEST_BODY)
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", "this form is too large"))?;
    let right =
        url::form_urlencoded::parse(&bytes).any(|(key, value)| key == "csrf" && secrets::same(&value, visitor.csrf()));
    *request.body_mut() = Body::from(bytes);
    right.then_some(()).ok_or_else(refusal)
}

/// Path and query, as asked for.
fn asked(request: &Request) -> String {
    request.uri().path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned())
}

/// Where to go after signing in: a place of this site, never another site.
pub(crate) fn place_here(next: &str) -> &str {
    let plain = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n']);
    if plain && !next.starts_with("/login") { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect()
    }

    #[test]
    fn forms_of_other_sites_are_told() {
        let host = ("host", "lifeboat.example:8420");
        let from =
            |pairs: &[(&'static str, &'static str)]| other_site(&headers(&[&[host], pairs].concat()), &Uri::default());
        assert_eq!(from(&[]), None);
        assert_eq!(from(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(from(&[("origin", "https://lifeboat.example:8420")]), None);
        assert_eq!(from(&[("origin", "https://evil.example")]).as_deref(), Some("https://evil.example"));
        assert_eq!(from(&[("origin", "null")]).as_deref(), Some("null"));
        let by_http2: Uri = "https://lifeboat.example/login".parse().expect("an address");
        assert_eq!(other_site(&headers(&[("origin", "https://lifeboat.example")]), &by_http2), None);
        assert_eq!(from(&[("sec-fetch-site", "cross-site")]).as_deref(), Some("cross-site"));
        assert!(from(&[("sec-fetch-site", "same-site"), ("origin", "https://other.example")]).is_some());
    }

    #[test]
    fn nobody_is_sent_to_another_site() {
        for bad in ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nb", "evil", "", "/login?next=/"]
        {
            assert_eq!(place_here(bad), "/", "{bad}");
        }
        assert_eq!(place_here("/environments/production?x=1"), "/environments/production?x=1");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&[("cookie", "xlifeboat=a; lifeboat=b; other=c")]);
        assert_eq!(cookie(&headers, "lifeboat"), Some("b"));
        assert_eq!(cookie(&headers, "life"), None);
    }
}

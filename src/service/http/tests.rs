//! The guard, over the whole router: every route with every role, from outside, in a browser, from another site.

mod hostile;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::app::App;
use super::client::Peer;
use super::routes::{Needs, ROUTES};
use super::{router, secrets};
use crate::config::{Estate, Role};
use crate::runtime::Runtime;
use crate::service::control::Control;
use crate::service::state::{ServiceState, tests::empty};

/// A service without workers, and everybody's token.
struct Site {
    router: Router,
    app: Arc<App>,
    tokens: Vec<(Role, String)>,
    scoped: String,
    estates: watch::Sender<Arc<Estate>>,
    file: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// The kind of the problem, where it is one.
    fn problem(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default().to_owned()
    }
}

impl Site {
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let recipient = age::x25519::Identity::generate().to_public();
        let mut text = format!(
            "[repository]\nurl = \"file://{0}/repository\"\nretry_for = \"1s\"\n\
             [keys]\nrecipients = [\"{recipient}\"]\nstate_dir = \"{0}/state\"\n\
             [service.http]\nlisten = \"127.0.0.1:0\"\nclient_rate = 100000\ntotal_rate = 100000\n{more}",
            directory.path().display()
        );
        let mut tokens = Vec::new();
        for role in Role::ALL {
            let token = secrets::new_token().expect("random");
            let hash = hex::encode(secrets::hash(&token));
            write!(text, "[[service.http.token]]\nname = \"{role}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
                .expect("text");
            tokens.push((role, token));
        }
        let scoped = secrets::new_token().expect("random");
        let hash = hex::encode(secrets::hash(&scoped));
        write!(
            text,
            "[[service.http.token]]\nname = \"scoped\"\nrole = \"admin\"\nsha256 = \"{hash}\"\nenvironments = [\"staging\"]\n"
        )
        .expect("text");
        for name in ["production", "staging"] {
            write!(
                text,
                "[[environment]]\nname = \"{name}\"\npurpose = \"production\"\nowner = \"test\"\n\
                 [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
                 [environment.postgres]\ndsn = \"host=/nowhere/{name} user=x dbname=x\"\n"
            )
            .expect("text");
        }
        let file = directory.path().join("lifeboat.toml");
        std::fs::write(&file, text).expect("written");
        let estate = Estate::load(&file).expect("loads");
        let http = estate.service.http.clone().expect("[service.http]");
        let (estates, estate) = watch::channel(Arc::new(estate));
        // Nobody hears what is asked for: every order is refused, as by a service that is being stopped.
        let (control, _) = Control::new();
        let state = ServiceState::new(empty());
        let stop = CancellationToken::new();
        let app = App::new(estate, http, state, control, Runtime::silent(), stop).expect("an app");
        Self { router: router(app.clone()), app, tokens, scoped, estates, file, _directory: directory }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).expect("a request");
        let address: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        request.extensions_mut().insert(Peer { address, tls: false });
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        // A stream of events does not end.
        let endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let bytes =
            if endless { Default::default() } else { to_bytes(response.into_body(), 1 << 22).await.expect("a body") };
        Answer { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn as_holder(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.ask(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }

    fn token(&self, role: Role) -> &str {
        &self.tokens.iter().find(|(of, _)| *of == role).expect("a token").1
    }

    /// Signs in as a browser would; the cookie and the token of its forms.
    async fn sign_in(&self, role: Role) -> (String, String) {
        let form = format!("token={}&next=/jobs", self.token(role));
        let signed = self.ask("POST", "/login", &[("content-type", FORM)], &form).await;
        assert_eq!(
            (signed.status, &signed.headers["location"]),
            (StatusCode::SEE_OTHER, &"/jobs".parse().expect("value"))
        );
        let set = signed.headers["set-cookie"].to_str().expect("text").to_owned();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
        let cookie = set.split(';').next().expect("a cookie").to_owned();
        let page = self.ask("GET", "/", &[("cookie", &cookie)], "").await;
        let csrf = page.text.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        (cookie, csrf.expect("a form").to_owned())
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// A path of the table with something in its holes.
fn filled(path: &str) -> String {
    path.replace("{environment}", "production")
        .replace("{sequence}", "1")
        .replace("{approval}", "0000000000")
        .replace("{job}", "0000000000000000")
        .replace("{session}", "99")
        .replace("{file}", "lifeboat.css")
}

#[tokio::test]
async fn every_route_is_open_to_its_role_and_those_above_and_to_nobody_else() {
    let site = Site::new("");
    for route in ROUTES {
        let path = filled(route.path);
        let stranger = site.ask(route.method, &path, &[("content-type", FORM)], "token=x").await;
        let what = format!("{} {}", route.method, route.path);
        match route.needs {
            Needs::Nobody => {
                let open = stranger.status != StatusCode::FORBIDDEN && stranger.problem() != "unauthenticated";
                assert!(open, "{what}: {}", stranger.status);
            }
            Needs::Role(needed) => {
                let to_login =
                    stranger.headers.get("location").is_some_and(|l| l.as_bytes().starts_with(b"/login?next="));
                assert!(
                    to_login || stranger.problem() == "unauthenticated",
                    "{what}: a stranger gets {}",
                    stranger.status
                );
                for (role, token) in &site.tokens {
                    let answer = site.as_holder(token, route.method, &path, "{}").await;
                    let refused = answer.problem() == "forbidden";
                    assert_eq!(refused, *role < needed, "{what} as {role}: {} {}", answer.status, answer.text);
                    assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{what} has no handler");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_token_for_some_environments_sees_nothing_of_the_others() {
    let site = Site::new("");
    for route in ROUTES.iter().filter(|route| route.path.contains("{environment}")) {
        let answer = site.as_holder(&site.scoped, route.method, &filled(route.path), "{}").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{} {}", route.method, route.path);
        let own = filled(route.path).replace("production", "staging");
        let answer = site.as_holder(&site.scoped, route.method, &own, "{}").await;
        assert!(!answer.text.contains("no such environment"), "{own}: {}", answer.text);
    }
    for path in ["/", "/api/v1/estate", "/approvals", "/schedule", "/jobs", "/api/v1/jobs"] {
        let answer = site.as_holder(&site.scoped, "GET", path, "").await;
        assert!(answer.status == StatusCode::OK && !answer.text.contains("production\""), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_soon_not_even_looked_at() {
    let site = Site::new("");
    for wrong in ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer lifeboat_x"] {
        let answer = site.ask("GET", "/api/v1/me", &[("authorization", wrong)], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let mut last = StatusCode::UNAUTHORIZED;
    for _ in 0..20 {
        last = site.ask("GET", "/api/v1/me", &[("authorization", "Bearer guess")], "").await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let right = site.as_holder(site.token(Role::Viewer), "GET", "/api/v1/me", "").await;
    assert_eq!(right.status, StatusCode::OK, "who has the right one is not kept out by that");
}

#[tokio::test]
async fn a_form_counts_only_from_a_page_of_the_same_session() {
    let site = Site::new("");
    let (cookie, csrf) = site.sign_in(Role::Operator).await;
    let (_, foreign) = site.sign_in(Role::Operator).await;
    let post = async |headers: &[(&str, &str)], body: &str| {
        let headers = [&[("cookie", cookie.as_str()), ("content-type", FORM)], headers].concat();
        site.ask("POST", "/environments/production/jobs", &headers, body).await
    };
    for body in ["kind=base", "kind=base&csrf=", "kind=base&csrf=guess", &format!("kind=base&csrf={foreign}")] {
        assert_eq!(post(&[], body).await.problem(), "forbidden", "{body}");
    }
    let right = format!("kind=base&csrf={csrf}");
    let elsewhere = post(&[("origin", "https://evil.example"), ("host", "lifeboat.example")], &right).await;
    assert_eq!(elsewhere.problem(), "forbidden", "even with the right token");
    let through = post(&[("sec-fetch-site", "same-origin")], &right).await;
    assert_eq!(through.problem(), "denied", "the service itself refuses: {}", through.text);
    // A script of the page sends it as a header.
    let json = [("cookie", cookie.as_str()), ("content-type", "application/json"), ("x-csrf-token", csrf.as_str())];
    let path = "/api/v1/environments/production/jobs";
    assert_eq!(site.ask("POST", path, &json, "{\"kind\":\"base\"}").await.problem(), "denied");
    assert_eq!(site.ask("POST", path, &json[..2], "{\"kind\":\"base\"}").await.problem(), "forbidden");
    // Signing out ends it here too.
    let out =
        site.ask("POST", "/logout", &[("cookie", &cookie), ("content-type", FORM)], &format!("csrf={csrf}")).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    let after = site.ask("GET", "/api/v1/me", &[("cookie", &cookie)], "").await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_ends_with_the_token_that_it_began_with() {
    let site = Site::new("");
    let (cookie, _) = site.sign_in(Role::Admin).await;
    assert_eq!(site.ask("GET", "/sessions", &[("cookie", &cookie)], "").await.status, StatusCode::OK);
    let text = std::fs::read_to_string(&site.file).expect("the configuration");
    let demoted = text.replace("name = \"admin\"\nrole = \"admin\"", "name = \"admin\"\nrole = \"viewer\"");
    std::fs::write(&site.file, demoted).expect("written");
    site.estates.send_replace(Arc::new(Estate::load(&site.file).expect("loads")));
    let answer = site.ask("GET", "/sessions", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "a role that was taken away is gone at once");
    let hash = hex::encode(secrets::hash(site.token(Role::Admin)));
    std::fs::write(&site.file, text.replace(&hash, &"0".repeat(64))).expect("written");
    site.estates.send_replace(Arc::new(Estate::load(&site.file).expect("loads")));
    let answer = site.ask("GET", "/api/v1/me", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn every_answer_forbids_what_is_not_ours_and_pages_are_not_kept() {
    let site = Site::new("");
    let viewer = site.token(Role::Viewer);
    for path in ["/", "/login", "/nowhere", "/environments/production", "/api/v1/estate", "/assets/lifeboat.js"] {
        let answer = site.as_holder(viewer, "GET", path, "").await;
        let policy = answer.headers["content-security-policy"].to_str().expect("text");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        let kept = answer.headers["cache-control"] != "no-store";
        assert_eq!(kept, path.starts_with("/assets/"), "{path}");
        for foreign in ["http://", "https://", " style=", " onclick=", "<script>", "javascript:"] {
            let found = answer.text.contains(foreign) && !answer.text.contains("http://www.w3.org");
            assert!(!found || path.starts_with("/assets/"), "{path} contains {foreign}");
        }
    }
}

#[tokio::test]
async fn people_get_a_page_of_a_problem_and_programs_get_json() {
    let site = Site::new("");
    let viewer = format!("Bearer {}", site.token(Role::Viewer));
    let html = ("accept", "text/html,application/xhtml+xml");
    let page = site.ask("GET", "/audit", &[("authorization", &viewer), html], "").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text.contains("<!DOCTYPE html>") && page.text.contains("needs the role auditor"), "{}", page.text);
    let json = site.ask("GET", "/api/v1/audit", &[("authorization", &viewer), html], "").await;
    assert_eq!(json.headers["content-type"], "application/problem+json");
    assert_eq!(json.problem(), "forbidden");
    let hostile = site
        .ask("GET", "/environments/%3Cscript%3Ealert(1)%3C%2Fscript%3E", &[("authorization", &viewer), html], "")
        .await;
    assert!(hostile.status == StatusCode::NOT_FOUND && !hostile.text.contains("<script>alert"), "{}", hostile.text);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_a_reason_and_never_by_a_failure() {
    let site = Site::new("");
    let admin = site.token(Role::Admin);
    let long = "x".repeat(100_000);
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "{\"kind\":\"shell\"}",
        "{\"kind\":\"base\",\"options\":[\"-c\",\"/etc/passwd\"]}",
        &long,
    ];
    for route in ROUTES.iter().filter(|route| route.method == "POST" && route.path.starts_with("/api/")) {
        for body in bodies {
            let answer = site.as_holder(admin, "POST", &filled(route.path), body).await;
            assert!(answer.status.is_client_error(), "{} {body:.40}: {} {}", route.path, answer.status, answer.text);
        }
    }
    let plan = "/api/v1/environments/production/plan";
    for (to, pgdata) in
        [("latest", "relative"), ("latest", "/a/../../etc"), ("yesterday", "/a"), ("latest", "/a\u{0}b")]
    {
        let body = serde_json::json!({ "to": to, "pgdata": pgdata }).to_string();
        let answer = site.as_holder(admin, "POST", plan, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{to} {pgdata}: {}", answer.text);
    }
    let answer = site.as_holder(admin, "POST", plan, "{\"to\":\"latest\",\"pgdata\":\"/a\"}").await;
    assert_eq!(answer.problem(), "denied", "no recovery key: {}", answer.text);
    for path in
        ["/api/v1/environments/production/ledger/99999999999999999999999", "/api/v1/environments/production/ledger/-1"]
    {
        assert_eq!(site.as_holder(admin, "GET", path, "").await.status, StatusCode::NOT_FOUND, "{path}");
    }
    // A mistake of somebody who may ask is no news; that somebody may not ask is.
    assert!(site.app.audit.newest(200).expect("a log").is_empty());
    let viewer = site.token(Role::Viewer);
    let answer = site.as_holder(viewer, "POST", plan, "{\"to\":\"latest\",\"pgdata\":\"/a\"}").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(site.app.audit.newest(200).expect("a log").len(), 1);
}

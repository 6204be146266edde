//! Hostile input on every route of the table: in the holes of its path, behind its question mark, as its body. A route that
//! is added is asked as well.

use super::*;

/// What stands in paths and queries; percent-encoded, as a client has to.
const HOSTILE: [&str; 12] = [
    "..%2f..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff%fe%C0%80",
    "%0d%0aset-cookie:%20a=b",
    "'%20OR%201=1--",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "-1",
    "99999999999999999999999999",
    "%F0%9F%9B%9F",
    "%7B%7B7*7%7D%7D",
    "2027-02-30T25:61:61Z",
    "//evil.example/",
];

/// Names that routes take behind the question mark, and some that none does.
const NAMES: [&str; 11] =
    ["next", "before", "limit", "kind", "to", "pgdata", "code", "state", "error", "timeline", "csrf"];

const BODIES: [&str; 8] = [
    "",
    "{",
    "{\"kind\":{\"a\":[[[[[[[[]]]]]]]]},\"to\":1e999,\"pgdata\":\"\\u0000\"}",
    "{\"kind\":\"base\",\"options\":[\"--config\",\"/etc/passwd\"],\"environment\":\"../staging\"}",
    "kind=%00&to=%ff&pgdata=/a/../b&csrf=&csrf=x&token=%0d%0a",
    "kind=base;rm -rf /&reason=<script>alert(1)</script>",
    "--x\r\ncontent-disposition: form-data; name=\"kind\"\r\n\r\nbase\r\n--x--",
    "\u{feff}\u{202e}\u{0}",
];

/// No failure, nothing of another's, nothing that a browser would run, and nowhere but here.
fn refused_or_served(answer: &Answer, what: &str) {
    let text = &answer.text;
    assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}: {text:.500}");
    let page = answer.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    assert!(!text.contains("root:"), "{what}: {text:.500}");
    assert!(!page || !text.contains("<script>alert"), "{what}: {text:.500}");
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(name != "set-cookie" || value.starts_with("lifeboat"), "{what}: {name}: {value}");
        let here = value.starts_with('/') && !value.starts_with("//") && !value.contains('\\');
        assert!(name != "location" || here, "{what}: {name}: {value}");
    }
}

#[tokio::test]
async fn every_route_bears_hostile_input() {
    let site = Site::new("");
    let bearer = format!("Bearer {}", site.token(Role::Admin));
    let long = "x".repeat(3000);
    let page = ("accept", "text/html");
    for route in ROUTES {
        let mut paths = Vec::new();
        for hole in route.path.split('/').filter(|part| part.starts_with('{')) {
            let hostile = HOSTILE.into_iter().chain([long.as_str()]);
            paths.extend(hostile.map(|value| filled(&route.path.replacen(hole, value, 1))));
        }
        for (n, value) in HOSTILE.into_iter().enumerate() {
            let query: Vec<String> = NAMES.iter().map(|name| format!("{name}={value}")).collect();
            let twice = if n % 2 == 0 { "&&next&=&limit=1&limit=2" } else { "" };
            paths.push(format!("{}?{}{twice}", filled(route.path), query.join("&")));
        }
        for path in &paths {
            let what = format!("{} {path:.200}", route.method);
            let headers = [("authorization", bearer.as_str()), ("content-type", FORM), page];
            refused_or_served(&site.ask(route.method, path, &headers, "").await, &what);
        }
        if route.method == "GET" {
            continue;
        }
        for body in BODIES {
            for kind in [FORM, "application/json", "multipart/form-data; boundary=x", "text/plain; charset=\""] {
                let headers = [("authorization", bearer.as_str()), ("content-type", kind), page];
                let what = format!("{} {} {kind} {body:?}", route.method, route.path);
                refused_or_served(&site.ask(route.method, &filled(route.path), &headers, body).await, &what);
            }
        }
    }
}

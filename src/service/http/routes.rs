//! Every route and who may use it: the one table. A request that matches none of its lines is refused, also where
//! somebody forgot to write the line.

use axum::http::Method;

use crate::config::Role;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Everybody, signed in or not.
    Nobody,
    /// Whoever has this role or a higher one.
    Role(Role),
}

/// A route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
}

const fn open(method: &'static str, path: &'static str) -> Route {
    Route { method, path, needs: Needs::Nobody }
}

const fn route(method: &'static str, path: &'static str, role: Role) -> Route {
    Route { method, path, needs: Needs::Role(role) }
}

/// The table.
pub(crate) const ROUTES: &[Route] = &[
    open("GET", "/healthz"),
    open("GET", "/readyz"),
    open("GET", "/login"),
    open("POST", "/login"),
    open("GET", "/login/oidc"),
    open("GET", "/login/oidc/callback"),
    open("GET", "/assets/{file}"),
    route("GET", "/metrics", Role::Viewer),
    // Pages.
    route("GET", "/", Role::Viewer),
    route("POST", "/logout", Role::Viewer),
    route("GET", "/environments/{environment}", Role::Viewer),
    route("GET", "/environments/{environment}/drills/{sequence}", Role::Viewer),
    route("GET", "/schedule", Role::Viewer),
    route("GET", "/jobs", Role::Viewer),
    route("GET", "/approvals", Role::Viewer),
    route("GET", "/environments/{environment}/ledger", Role::Auditor),
    route("GET", "/environments/{environment}/ledger/{sequence}", Role::Auditor),
    route("GET", "/audit", Role::Auditor),
    route("GET", "/environments/{environment}/restore", Role::Operator),
    route("POST", "/environments/{environment}/approvals", Role::Operator),
    route("POST", "/environments/{environment}/jobs", Role::Operator),
    route("POST", "/jobs/{job}/cancel", Role::Operator),
    route("POST", "/environments/{environment}/approvals/{approval}/approve", Role::Approver),
    route("POST", "/environments/{environment}/approvals/{approval}/deny", Role::Approver),
    route("GET", "/sessions", Role::Admin),
    route("POST", "/sessions/{session}/end", Role::Admin),
    // The API.
    route("GET", "/api/openapi.json", Role::Viewer),
    route("GET", "/api/v1/me", Role::Viewer),
    route("GET", "/api/v1/events", Role::Viewer),
    route("GET", "/api/v1/estate", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/backups", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/windows", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/drills", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/drills/{sequence}", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/approvals", Role::Viewer),
    route("GET", "/api/v1/schedule", Role::Viewer),
    route("GET", "/api/v1/jobs", Role::Viewer),
    route("GET", "/api/v1/environments/{environment}/ledger", Role::Auditor),
    route("GET", "/api/v1/environments/{environment}/ledger/verification", Role::Auditor),
    route("GET", "/api/v1/environments/{environment}/ledger/{sequence}", Role::Auditor),
    route("GET", "/api/v1/audit", Role::Auditor),
    route("POST", "/api/v1/environments/{environment}/plan", Role::Operator),
    route("POST", "/api/v1/environments/{environment}/approvals", Role::Operator),
    route("POST", "/api/v1/environments/{environment}/jobs", Role::Operator),
    route("DELETE", "/api/v1/jobs/{job}", Role::Operator),
    route("POST", "/api/v1/environments/{environment}/approvals/{approval}/approve", Role::Approver),
    route("POST", "/api/v1/environments/{environment}/approvals/{approval}/deny", Role::Approver),
    route("GET", "/api/v1/sessions", Role::Admin),
    route("DELETE", "/api/v1/sessions/{session}", Role::Admin),
];

/// Who may use the route that `path` (as it stands in the table) is; `None` for what is not in it.
pub(crate) fn needs(method: &Method, path: &str) -> Option<Needs> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.path == path && route.method == method.as_str()).map(|route| route.needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_once_and_what_changes_something_needs_an_operator() {
        for (n, route) in ROUTES.iter().enumerate() {
            let again = ROUTES[n + 1..].iter().any(|r| (r.method, r.path) == (route.method, route.path));
            assert!(!again, "{} {} stands there twice", route.method, route.path);
            let signs_in_or_out = ["/login", "/logout"].contains(&route.path);
            let at_least = match route.needs {
                Needs::Role(role) => role >= Role::Operator,
                Needs::Nobody => false,
            };
            assert!(route.method == "GET" || at_least || signs_in_or_out, "{} {}", route.method, route.path);
        }
        assert_eq!(needs(&Method::HEAD, "/healthz"), Some(Needs::Nobody));
        assert_eq!(needs(&Method::PUT, "/healthz"), None);
        assert_eq!(needs(&Method::GET, "/secret"), None);
    }
}

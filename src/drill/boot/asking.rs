//! The questions that a running Odoo is asked over HTTP, as a user would ask them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::access::{Document, Sample, User};
use super::web::{Told, Web};
use crate::drill::asserted::Asserted;
use crate::evidence::drill_record::{Check, CheckResult, Severity};
use crate::postgres::launch::Launch;

/// Offences that are kept as evidence.
const ROWS_KEPT: usize = 5;
/// Where PDF reports need `wkhtmltopdf`.
const WKHTMLTOPDF: [&str; 2] = ["/usr/bin/wkhtmltopdf", "/usr/local/bin/wkhtmltopdf"];

/// The assertion that the drill's user is logged in.
pub(super) const LOGGED_IN: &str = "H2";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Questions<'a> {
    pub(super) database: &'a str,
    pub(super) series: u32,
    /// `database.uuid` of the copy.
    pub(super) uuid: Option<&'a str>,
    pub(super) user: Option<User>,
    pub(super) attachments: Vec<Sample>,
    pub(super) document: Option<Document>,
    /// Whether Odoo can print.
    pub(super) can_print: bool,
}

/// Whether `wkhtmltopdf` is where Odoo runs: on this host, or in its image.
pub(super) fn can_print(launch: &dyn Launch) -> bool {
    WKHTMLTOPDF.iter().any(|program| launch.has(Path::new(program)))
}

/// Result, in words, with evidence.
type Outcome = (CheckResult, String, Vec<String>);

/// Asks everything; a failed question does not keep the next ones from being asked.
pub(super) async fn ask(web: &mut Web, questions: &Questions<'_>) -> Vec<Check> {
    let mut asker = Asker { web, questions, assets: BTreeSet::new(), checks: Vec::new() };
    asker.all().await;
    asker.checks
}

struct Asker<'a, 'w> {
    web: &'w mut Web,
    questions: &'a Questions<'a>,
    /// Assets that the pages link to.
    assets: BTreeSet<String>,
    checks: Vec<Check>,
}

impl Asker<'_, '_> {
    async fn all(&mut self) {
        let began = Instant::now();
        let outcome = self.login_page().await;
        self.note(
            Asserted::hard(
                "H1",
                "The login page is served for this database",
                "The first thing that every user sees; it needs the database, its views and its translations.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.log_in().await;
        let is_in = matches!(outcome, Ok((CheckResult::Passed, ..)));
        self.note(
            Asserted::hard(
                LOGGED_IN,
                "A user can log in",
                "Users, groups, companies and sessions work, in the database that was restored.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.web_client(is_in).await;
        self.note(
            Asserted::hard(
                "H3",
                "The web client is served to that user",
                "The page behind the login; with it Odoo hands out menus, rights and settings.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.assets().await;
        self.note(
            Asserted::hard(
                "H4",
                "Every asset that these pages link to is served",
                "Without its style sheets and scripts Odoo is a white page, although the page itself is there.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.identity(is_in).await;
        self.note(
            Asserted::hard(
                "H5",
                "The running Odoo works on the restored database",
                "An Odoo that finds another database, or makes a new one, would be green on nothing.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.attachments().await;
        self.note(
            Asserted::hard(
                "H6",
                "Sampled attachments are served with the content that was stored",
                "Odoo serves what is missing as an error and what was cut off as if it were whole: only the digest tells.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.html(is_in).await;
        self.note(
            Asserted::hard(
                "H7",
                "A document is shown as a report",
                "An invoice brings together partners, products, taxes, layouts and translations.",
            ),
            outcome,
            began,
        );
        let began = Instant::now();
        let outcome = self.pdf(is_in).await;
        let pdf = Asserted {
            id: "H8",
            title: "The same document is printed as PDF",
            why: "What customers receive; it needs wkhtmltopdf where Odoo runs.",
            severity: Severity::Baseline,
        };
        self.note(pdf, outcome, began);
    }

    fn note(&mut self, asserted: Asserted<'_>, outcome: Told<Outcome>, began: Instant) {
        let (result, detail, rows) =
            outcome.unwrap_or_else(|why| (CheckResult::Failed, why.chars().take(400).collect(), Vec::new()));
        self.checks.push(asserted.check(self.questions.database, result, detail, rows, began));
    }

    async fn login_page(&mut self) -> Told<Outcome> {
        let page = self.web.get("/web/login").await?;
        let text = page.text();
        let problem = match () {
            () if page.path.starts_with("/web/database/") => {
                Some(format!("Odoo does not see the database: it leads to {}", page.path))
            }
            () if page.status != 200 => Some(format!("/web/login: HTTP {}", page.status)),
            () if !text.contains("csrf_token") => Some("/web/login has no form to log in".to_owned()),
            () => None,
        };
        self.assets.extend(links(&text));
        Ok(match problem {
            None => (CheckResult::Passed, format!("{} bytes", page.body.len()), Vec::new()),
            Some(problem) => (CheckResult::Failed, problem, Vec::new()),
        })
    }

    async fn log_in(&mut self) -> Told<Outcome> {
        let Some(user) = &self.questions.user else {
            return Ok((CheckResult::Failed, "the database has no user who could log in".into(), Vec::new()));
        };
        let database = self.questions.database;
        let parameters = json!({ "db": database, "login": user.login, "password": user.password });
        let session = self.web.call("/web/session/authenticate", parameters).await?;
        let is_user = session["uid"].as_i64() == Some(i64::from(user.id));
        let is_here = session["db"].as_str() == Some(database);
        Ok(match (is_user, is_here) {
            (true, true) => {
                let version = session["server_version"].as_str().unwrap_or("?").to_owned();
                (CheckResult::Passed, format!("as user {} of Odoo {version}", user.id), Vec::new())
            }
            (false, _) => (CheckResult::Failed, format!("user {} was not let in", user.id), Vec::new()),
            (_, false) => (CheckResult::Failed, format!("the session is in {}", session["db"]), Vec::new()),
        })
    }

    async fn web_client(&mut self, is_in: bool) -> Told<Outcome> {
        if !is_in {
            return Ok(not_asked());
        }
        let page = self.web.get(if self.questions.series >= 18 { "/odoo" } else { "/web" }).await?;
        let text = page.text();
        self.assets.extend(links(&text));
        Ok(match (page.status, text.contains("session_info")) {
            (200, true) => (CheckResult::Passed, format!("{}: {} bytes", page.path, page.body.len()), Vec::new()),
            (200, false) => (CheckResult::Failed, format!("{} is not the web client", page.path), Vec::new()),
            (status, _) => (CheckResult::Failed, format!("{}: HTTP {status}", page.path), Vec::new()),
        })
    }

    async fn assets(&mut self) -> Told<Outcome> {
        let mut offences = Offences::default();
        let mut bytes = 0;
        for path in &self.assets {
            match self.web.digest(path).await {
                Ok((200, _, length)) if length > 0 => bytes += length,
                Ok((200, ..)) => offences.add(format!("{path}: empty")),
                Ok((status, ..)) => offences.add(format!("{path}: HTTP {status}")),
                Err(why) => offences.add(why),
            }
        }
        if self.assets.is_empty() {
            return Ok((CheckResult::Failed, "the pages link to no assets".into(), Vec::new()));
        }
        Ok(offences.outcome(self.assets.len(), &format!("{bytes} bytes")))
    }

    async fn identity(&mut self, is_in: bool) -> Told<Outcome> {
        let Some(uuid) = self.questions.uuid.filter(|_| is_in) else { return Ok(not_asked()) };
        let parameters = json!({
            "model": "ir.config_parameter", "method": "get_param", "args": ["database.uuid"], "kwargs": {},
        });
        let told = self.web.call("/web/dataset/call_kw", parameters).await?;
        Ok(match told.as_str() == Some(uuid) {
            true => (CheckResult::Passed, format!("database.uuid {uuid}"), Vec::new()),
            false => (CheckResult::Failed, format!("it says {told} instead of {uuid}"), Vec::new()),
        })
    }

    async fn attachments(&mut self) -> Told<Outcome> {
        let samples = &self.questions.attachments;
        if samples.is_empty() {
            return Ok((CheckResult::NotApplicable, "no attachment is in the filestore".into(), Vec::new()));
        }
        let (mut offences, mut bytes) = (Offences::default(), 0);
        for sample in samples {
            let path = format!("/web/content/{}?access_token={}", sample.id, sample.token);
            let problem = match self.web.digest(&path).await {
                Ok((200, sha1, length)) if sha1 == sample.checksum => {
                    bytes += length;
                    continue;
                }
                Ok((200, sha1, length)) => format!("{length} bytes with SHA-1 {sha1} instead of {}", sample.checksum),
                Ok((status, ..)) => format!("HTTP {status}"),
                Err(why) => why,
            };
            offences.add(format!("attachment {} ({}): {problem}", sample.id, sample.kind));
        }
        Ok(offences.outcome(samples.len(), &format!("{bytes} bytes")))
    }

    async fn html(&mut self, is_in: bool) -> Told<Outcome> {
        let Some(document) = &self.questions.document else { return Ok(no_document()) };
        if !is_in {
            return Ok(not_asked());
        }
        let path = document.path("html");
        let page = self.web.get(&path).await?;
        // Only what would otherwise have to be unescaped is compared loosely.
        let name = document.name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        Ok(match (page.status, page.text().contains(&name)) {
            (200, true) => (CheckResult::Passed, format!("{} as {}", document.name, document.report), Vec::new()),
            (200, false) => (CheckResult::Failed, format!("{path} does not show {}", document.name), Vec::new()),
            (status, _) => (CheckResult::Failed, format!("{path}: HTTP {status}"), Vec::new()),
        })
    }

    async fn pdf(&mut self, is_in: bool) -> Told<Outcome> {
        let Some(document) = &self.questions.document else { return Ok(no_document()) };
        if !is_in {
            return Ok(not_asked());
        }
        if !self.questions.can_print {
            return Ok((CheckResult::NotApplicable, "there is no wkhtmltopdf where Odoo runs".into(), Vec::new()));
        }
        let path = document.path("pdf");
        let page = self.web.get(&path).await?;
        Ok(match (page.status, page.body.starts_with(b"%PDF-")) {
            (200, true) => (CheckResult::Passed, format!("{} bytes", page.body.len()), Vec::new()),
            (200, false) => (CheckResult::Failed, format!("{path} is {}", page.content_type), Vec::new()),
            (status, _) => (CheckResult::Failed, format!("{path}: HTTP {status}"), Vec::new()),
        })
    }
}

fn no_document() -> Outcome {
    (CheckResult::NotApplicable, "there is neither a posted invoice nor a confirmed order".into(), Vec::new())
}

/// For a question that makes no sense because nobody is logged in. The failed login fails the drill.
fn not_asked() -> Outcome {
    (CheckResult::NotApplicable, "nobody could log in".into(), Vec::new())
}

#[derive(Debug, Default)]
struct Offences {
    count: usize,
    rows: Vec<String>,
}

impl Offences {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.rows.len() < ROWS_KEPT {
            self.rows.push(what.chars().take(300).collect());
        }
    }

    fn outcome(self, of: usize, sound: &str) -> Outcome {
        match self.count {
            0 => (CheckResult::Passed, format!("{of} of {of}, {sound}"), Vec::new()),
            n => (CheckResult::Failed, format!("{n} of {of} are not served as they should be"), self.rows),
        }
    }
}

/// Bundles of style sheets and scripts that a page links to: `/web/assets/…`, before 15 `/web/content/…assets…`.
fn links(page: &str) -> BTreeSet<String> {
    let values = ["href=\"", "src=\""]
        .into_iter()
        .flat_map(|attribute| page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()));
    let paths = values.map(|value| value.replace("&amp;", "&"));
    paths
        .filter(|path| {
            path.starts_with("/web/assets/") || (path.starts_with("/web/content/") && path.contains("assets"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An installation that is not this host's.
    #[derive(Debug)]
    struct Image(&'static [&'static str]);

    impl Launch for Image {
        fn command(&self, program: &Path) -> std::process::Command {
            std::process::Command::new(program)
        }

        fn has(&self, program: &Path) -> bool {
            self.0.iter().any(|there| Path::new(there) == program)
        }
    }

    #[test]
    fn whether_odoo_can_print_is_told_by_where_it_runs() {
        assert!(can_print(&Image(&["/usr/bin/odoo", "/usr/local/bin/wkhtmltopdf"])));
        assert!(!can_print(&Image(&["/usr/bin/odoo"])));
    }

    #[test]
    fn links_to_bundles_are_found_wherever_they_stand() {
        let page = r#"<link rel="stylesheet" href="/web/assets/4f27e80/web.assets_frontend.min.css"/>
            <script src="/web/assets/1/a.js"></script><script data-src="/web/assets/1/lazy.min.js?x=1&amp;y=2"></script>
            <link href="/web/content/331-ab12/web.assets_common.0.css"/><img src="/web/image/1"/>
            <link href="https://elsewhere.example/web/assets/x.css"/>"#;
        let found: Vec<String> = links(page).into_iter().collect();
        assert_eq!(
            found,
            [
                "/web/assets/1/a.js",
                "/web/assets/1/lazy.min.js?x=1&y=2",
                "/web/assets/4f27e80/web.assets_frontend.min.css",
                "/web/content/331-ab12/web.assets_common.0.css"
            ]
        );
    }
}

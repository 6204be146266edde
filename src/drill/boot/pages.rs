//! Checks of the user's that ask the running Odoo for a page.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::web::{Answer, Web};
use crate::checks::{applies, result};
use crate::config::{Check, HttpProbe, Probe};
use crate::evidence::drill_record::{self, CheckResult};
use crate::units::Span;

/// How much of an answer is shown where it is not what it should be.
const SHOWN: usize = 300;

/// The Odoo that pages are asked of.
#[derive(Debug)]
pub(super) struct Pages<'a> {
    /// A session in its database.
    pub(super) client: &'a Client,
    pub(super) database: &'a str,
    pub(super) series: u32,
    /// Logged in, where `is_in` says so.
    pub(super) web: &'a Web,
    pub(super) is_in: bool,
}

/// Result, in words, with evidence.
type Outcome = (CheckResult, String, Vec<String>);

impl Pages<'_> {
    /// Asks for every page that applies to the database.
    pub(super) async fn ask(&self, checks: &[&Check]) -> Vec<drill_record::Check> {
        let mut results = Vec::new();
        for check in checks {
            if let Probe::Http(probe) = &check.probe {
                let began = Instant::now();
                let (outcome, detail, rows) = self.one(check, probe).await;
                let seconds = began.elapsed().as_secs_f64();
                results.push(result(check, self.database, outcome, check.severity, detail, rows, seconds));
            }
        }
        results
    }

    async fn one(&self, check: &Check, probe: &HttpProbe) -> Outcome {
        match applies(self.client, check, Some(self.series)).await {
            Ok(None) => {}
            Ok(Some(why_not)) => return (CheckResult::NotApplicable, why_not, Vec::new()),
            Err(e) => return (CheckResult::Error, format!("{}: {e}", check.origin), Vec::new()),
        }
        if probe.login && !self.is_in {
            return (CheckResult::Error, "nobody could log in to ask for it".into(), Vec::new());
        }
        let mut web = if probe.login { self.web.window(check.timeout) } else { self.web.anonymous(check.timeout) };
        let path = probe.path.replace("{database}", &encoded(self.database));
        match timeout(check.timeout, web.get_until(&path, probe.status)).await {
            Ok(Ok(answer)) => judge(probe, &answer),
            Ok(Err(why)) => (CheckResult::Failed, why.chars().take(SHOWN).collect(), Vec::new()),
            Err(_) => (CheckResult::Failed, no_answer(&path, check.timeout), Vec::new()),
        }
    }
}

fn no_answer(path: &str, limit: Duration) -> String {
    format!("{path}: no answer within {}, the time limit of the check", Span(limit))
}

/// The results of checks that had no Odoo to ask in `database`: why.
pub(in crate::drill) fn unanswered(checks: &[&Check], database: &str, why: &str) -> Vec<drill_record::Check> {
    let none = |check: &&&Check| matches!(check.probe, Probe::Http(_));
    let error = |check: &&Check| {
        let (outcome, rows) = (CheckResult::Error, Vec::new());
        result(check, database, outcome, check.severity, why.to_owned(), rows, 0.0)
    };
    checks.iter().filter(none).map(error).collect()
}

/// What an answer amounts to.
fn judge(probe: &HttpProbe, answer: &Answer) -> Outcome {
    let mut offences = Vec::new();
    if answer.status != probe.status {
        offences.push(format!("HTTP {} instead of {}", answer.status, probe.status));
    }
    let given = answer.content_type.to_ascii_lowercase();
    if let Some(wanted) = probe.content_type.as_ref().filter(|wanted| !is_of_type(&given, wanted)) {
        offences.push(format!("its type is \"{given}\" instead of \"{wanted}\""));
    }
    if let Some(text) = probe.contains.as_ref().filter(|text| !answer.text().contains(text.as_str())) {
        offences.push(format!("it does not hold \"{}\"", shortened(text)));
    }
    let digest = hex::encode(Sha256::digest(&answer.body));
    if let Some(wanted) = probe.sha256.as_ref().filter(|wanted| **wanted != digest) {
        offences.push(format!("its SHA-256 is {digest} instead of {wanted}"));
    }
    let told = format!("{}: HTTP {}, {} bytes", answer.path, answer.status, answer.body.len());
    match offences.is_empty() {
        true => (CheckResult::Passed, told, Vec::new()),
        false => (CheckResult::Failed, format!("{}: {}", answer.path, offences.join("; ")), beginning(answer)),
    }
}

/// `text/html` is what `text/html; charset=utf-8` is, too.
fn is_of_type(given: &str, wanted: &str) -> bool {
    let essence = given.split(';').next().unwrap_or_default().trim();
    given == wanted || essence == wanted
}

/// The first lines of an answer that can be read.
fn beginning(answer: &Answer) -> Vec<String> {
    let is_text = ["text/", "application/json", "application/xml"].iter().any(|t| answer.content_type.starts_with(t));
    let text = answer.text();
    let lines = text.lines().map(str::trim).filter(|line| is_text && !line.is_empty());
    lines.take(5).map(shortened).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A name as part of a path or query.
fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> HttpProbe {
        HttpProbe {
            path: "/".into(),
            status: 200,
            contains: Some("cart".into()),
            content_type: Some("text/html".into()),
            sha256: Some(hex::encode(Sha256::digest(b"the cart"))),
            login: false,
        }
    }

    fn answer() -> Answer {
        Answer {
            status: 200,
            path: "/shop".into(),
            content_type: "text/html; charset=utf-8".into(),
            body: b"the cart".to_vec(),
        }
    }

    #[test]
    fn everything_that_is_asked_for_must_be_there() {
        let sound = judge(&probe(), &answer());
        assert_eq!((sound.0, sound.1.as_str()), (CheckResult::Passed, "/shop: HTTP 200, 8 bytes"));
        let cases = [
            (Answer { status: 500, ..answer() }, "HTTP 500 instead of 200"),
            (Answer { content_type: "application/pdf".into(), ..answer() }, "its type is \"application/pdf\""),
            (Answer { body: b"the door".to_vec(), ..answer() }, "it does not hold \"cart\"; its SHA-256 is"),
        ];
        for (wrong, told) in cases {
            let (result, detail, _) = judge(&probe(), &wrong);
            assert_eq!(result, CheckResult::Failed);
            assert!(detail.contains(told), "{detail}");
        }
        assert_eq!(judge(&probe(), &Answer { status: 404, ..answer() }).2, ["the cart"]);
    }

    #[test]
    fn parameters_of_a_type_count_where_they_are_given() {
        assert!(is_of_type("text/html; charset=utf-8", "text/html"));
        assert!(is_of_type("text/html; charset=utf-8", "text/html; charset=utf-8"));
        assert!(!is_of_type("text/html; charset=utf-8", "text/html; charset=latin-1"));
        assert!(!is_of_type("text/htmlx", "text/html") && !is_of_type("", "text/html"));
        assert_eq!(encoded("shop v1/ä"), "shop%20v1%2F%C3%A4");
    }
}

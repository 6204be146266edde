//! Running the configured checks against a restored cluster.
//!
//! Each runs in a read-only transaction with a time limit. A check whose tables, columns, modules or Odoo version
//! are not there is "not applicable", which is said, never counted as passed; one that cannot be run is an error,
//! which for a hard check fails the drill. Checks of kind `http` are asked of a running Odoo, in `drill/boot/pages.rs`.

mod command;

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::checks::baseline::CLUSTER;
use crate::checks::{self, Answers, Measure, Within};
use crate::config::{Check, Expectation, Probe, Scope};
use crate::error::Result;
use crate::evidence::drill_record::{self, CheckResult};
use crate::postgres::launch::Launch;
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;

/// What the source said, and when it is comparable.
#[derive(Debug, Clone, Copy)]
pub enum Reference<'a> {
    /// The cluster is in the state that the source was asked in.
    Here(&'a Answers),
    /// The cluster was compared in that state and went on from there.
    Before(&'a Answers),
    /// There is nothing to compare with; why.
    Nowhere(&'a str),
}

/// What checks are held against beside the database.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// What the source said.
    pub reference: Reference<'a>,
    /// The objective for loss.
    pub rpo: Duration,
    /// The moment that the restored data stands for.
    pub now: Option<DateTime<Utc>>,
    /// How programs are started on restored data.
    pub launch: &'a dyn Launch,
    /// The restored attachments, `<database>/…`.
    pub filestore: Option<&'a Path>,
}

impl Circumstances<'_> {
    /// Whether a check was compared at an earlier stop, and has nothing to say here.
    fn is_done(&self, check: &Check) -> bool {
        matches!(self.reference, Reference::Before(_)) && compares_exactly(check)
    }

    fn measure(&self, scope: &str, check: &Check) -> std::result::Result<&checks::Outcome, String> {
        match self.reference {
            Reference::Here(answers) | Reference::Before(answers) => answers.of(scope, check),
            Reference::Nowhere(why) => Err(why.to_owned()),
        }
    }
}

/// Whether the source's answer must come back in exactly the state that it was given in.
pub fn compares_exactly(check: &Check) -> bool {
    check.asks_the_source() && check.expect != Expectation::Fresh
}

/// Runs `checks` on every database that they apply to.
pub async fn run(
    server: &PrivateServer,
    checks: &[&Check],
    circumstances: &Circumstances<'_>,
) -> Result<Vec<drill_record::Check>> {
    let checks: Vec<&Check> = checks.iter().filter(|c| !circumstances.is_done(c)).copied().collect();
    let maintenance = server.sql("template1").await?;
    checks::prepare(&maintenance).await?;
    let mut results = Vec::new();
    let mut odoo_seen = false;
    for name in databases(&maintenance).await? {
        let client = server.sql(&name).await?;
        checks::prepare(&client).await?;
        let version = checks::odoo_version(&client).await?;
        odoo_seen |= version.is_some();
        for check in &checks {
            match (check.database, version) {
                (Scope::Odoo, None) | (Scope::Cluster, _) => {}
                (Scope::Odoo | Scope::Every, _) => {
                    let place = Place { server, client: &client, database: &name, scope: &name, version };
                    results.extend(one(&place, check, circumstances).await?);
                }
            }
        }
    }
    for check in checks.iter().filter(|c| c.database == Scope::Cluster) {
        let place = Place { server, client: &maintenance, database: "template1", scope: CLUSTER, version: None };
        results.extend(one(&place, check, circumstances).await?);
    }
    if !odoo_seen {
        for check in checks.iter().filter(|c| c.database == Scope::Odoo && !matches!(c.probe, Probe::Http(_))) {
            results.push(not_applicable(check, CLUSTER, "no database of the cluster is Odoo's"));
        }
    }
    Ok(results)
}

/// The results of checks that need a running Odoo, where none was started.
pub fn without_odoo(checks: &[&Check], why: &str) -> Vec<drill_record::Check> {
    let pages = checks.iter().filter(|c| matches!(c.probe, Probe::Http(_)));
    pages.map(|check| not_applicable(check, CLUSTER, why)).collect()
}

fn not_applicable(check: &Check, scope: &str, why: &str) -> drill_record::Check {
    let none = Vec::new();
    checks::result(check, scope, CheckResult::NotApplicable, check.severity, why.to_owned(), none, 0.0)
}

/// Where a check runs.
struct Place<'a> {
    server: &'a PrivateServer,
    client: &'a tokio_postgres::Client,
    database: &'a str,
    scope: &'a str,
    version: Option<u32>,
}

async fn one(
    place: &Place<'_>,
    check: &Check,
    circumstances: &Circumstances<'_>,
) -> Result<Option<drill_record::Check>> {
    let began = Instant::now();
    match &check.probe {
        Probe::Http(_) => Ok(None),
        Probe::Sql { .. } => {
            let outcome = checks::ask(place.client, check, place.version, Within::Own, check.timeout).await;
            let source = circumstances.measure(place.scope, check);
            let source = source.as_ref().map(|outcome| *outcome).map_err(String::as_str);
            let measure = Measure { source, rpo: circumstances.rpo, now: circumstances.now };
            Ok(Some(checks::judge(check, place.scope, &outcome, &measure, began.elapsed().as_secs_f64())))
        }
        Probe::Command(probe) => {
            match checks::applies(place.client, check, place.version).await {
                Ok(None) => {}
                Ok(Some(why_not)) => return Ok(Some(not_applicable(check, place.scope, &why_not))),
                Err(e) => {
                    let (error, none) = (CheckResult::Error, Vec::new());
                    let result = checks::result(check, place.scope, error, check.severity, e.to_string(), none, 0.0);
                    return Ok(Some(result));
                }
            }
            let filestore = circumstances.filestore.map(|root| root.join(place.database));
            let target = command::On {
                dsn: place.server.dsn(place.database),
                database: place.database,
                filestore: filestore.as_deref(),
                launch: circumstances.launch,
            };
            let said = command::run(probe, check.timeout, &target).await;
            let seconds = began.elapsed().as_secs_f64();
            let command::Said { result, detail, rows } = said;
            Ok(Some(checks::result(check, place.scope, result, check.severity, detail, rows, seconds)))
        }
    }
}

//! One database: its Odoo is started, asked and stopped, and every step of it becomes a check.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio_postgres::config::Host;

use super::access::{self, Identity};
use super::asking::{LOGGED_IN, Questions, ask, can_print};
use super::log::{self, Told};
use super::pages::{Pages, unanswered};
use super::process::{Odoo, Start, not_started};
use super::settings::Settings;
use super::web::Web;
use crate::drill::asserted::Asserted;
use crate::error::Result;
use crate::evidence::drill_record::{Check, CheckResult, Severity};
use crate::evidence::odoo_record::Boot;
use crate::postgres::server::PrivateServer;

/// Lines of a log that are shown when Odoo did not start.
const LAST_WORDS: usize = 10;

/// How Odoo came up on one database, and what it answered.
#[derive(Debug)]
pub struct Booted {
    /// For the record.
    pub record: Boot,
    /// What was asserted about it.
    pub checks: Vec<Check>,
}

/// Starts Odoo on `database`, which holds Odoo `series` and is proven to be neutralised; asks it and stops it.
///
/// # Errors
/// Where it could not be tried at all. An Odoo that does not start or answers wrongly is a failed check.
pub async fn run(server: &PrivateServer, database: &str, series: u32, settings: &Settings<'_>) -> Result<Booted> {
    let client = server.sql(database).await?;
    access::grant(&client, database).await?;
    let user = access::user(&client).await?;
    let questions = Questions {
        database,
        series,
        uuid: None,
        attachments: access::attachments(&client).await?,
        document: access::document(&client, user.as_ref()).await?,
        user,
        can_print: can_print(settings.around.launch),
    };
    let before = Identity::read(&client).await?;
    let questions = Questions { uuid: before.uuid.as_deref(), ..questions };
    let master_password: String = client
        .query_one("SELECT gen_random_uuid()::text", &[])
        .await
        .map_err(|e| crate::postgres::sql::explain(e, "cannot make a password"))?
        .get(0);
    let config = settings.config(database, series, &socket_dir(server)?, &master_password);
    let began = Instant::now();
    let mut odoo = Odoo::start(settings, database, series, &config)?;
    let start = odoo.ready(settings.odoo.boot_timeout).await?;
    let mut asked = Vec::new();
    if let Start::Loaded(_) = start {
        let mut web = Web::new(settings.around.way.clone(), settings.around.port, settings.odoo.boot_timeout);
        asked = ask(&mut web, &questions).await;
        let is_in = asked.iter().any(|c| c.id == LOGGED_IN && c.result == CheckResult::Passed);
        let pages = Pages { client: &client, database, series, web: &web, is_in };
        asked.extend(pages.ask(settings.checks).await);
    } else {
        asked.extend(unanswered(settings.checks, database, "Odoo did not come up on this database"));
    }
    odoo.stop().await?;
    let text = odoo.text();
    let told = log::read(&text);
    let after = Identity::read(&client).await?;
    let mut checks = vec![started(database, &start, &told, &text, began)];
    if let Start::Loaded(_) = start {
        checks.push(modules(database, &told, &before));
    }
    checks.push(errors(database, &told));
    checks.push(identity(database, &before, &after));
    checks.push(warnings(database, &told));
    checks.extend(asked);
    let record = Boot {
        database: database.to_owned(),
        odoo: told.version,
        seconds: match start {
            Start::Loaded(seconds) => Some(seconds),
            Start::Failed(_) => None,
        },
        modules_installed: u64::try_from(before.installed).unwrap_or(0),
        modules_loaded: told.modules_loaded,
        log: told.count,
        problems: told.problems,
        warnings: told.warnings,
    };
    Ok(Booted { record, checks })
}

fn socket_dir(server: &PrivateServer) -> Result<PathBuf> {
    let dsn = server.dsn("postgres");
    let unix = dsn.get_hosts().iter().find_map(|host| match host {
        Host::Unix(path) => Some(Path::to_owned(path)),
        Host::Tcp(_) => None,
    });
    unix.ok_or_else(|| not_started("the restored server listens on no Unix socket, so Odoo could not reach it"))
}

fn started(database: &str, start: &Start, told: &Told, text: &str, began: Instant) -> Check {
    let asserted = Asserted::hard(
        "B1",
        "Odoo starts on the restored database",
        "Rows that look right are of no use when the application does not come up on them.",
    );
    match start {
        Start::Loaded(seconds) => {
            let version = told.version.as_deref().unwrap_or("?");
            let detail = format!("Odoo {version}: registry loaded after {seconds:.1} s");
            asserted.check(database, CheckResult::Passed, detail, Vec::new(), began)
        }
        Start::Failed(why) => {
            asserted.check(database, CheckResult::Failed, why.as_str(), log::last_lines(text, LAST_WORDS), began)
        }
    }
}

fn modules(database: &str, told: &Told, before: &Identity) -> Check {
    let asserted = Asserted::hard(
        "B2",
        "Odoo loaded every module that is installed",
        "With modules missing Odoo starts all the same, without their fields, menus and rules.",
    );
    let began = Instant::now();
    let (result, detail) = match told.modules_loaded.map(|n| i64::try_from(n).unwrap_or(i64::MAX)) {
        None => (CheckResult::Failed, "its log does not say how many it loaded".to_owned()),
        Some(loaded) if loaded >= before.installed => (CheckResult::Passed, format!("{loaded} modules")),
        Some(loaded) => (CheckResult::Failed, format!("{loaded} of {} installed modules", before.installed)),
    };
    asserted.check(database, result, detail, Vec::new(), began)
}

fn errors(database: &str, told: &Told) -> Check {
    let asserted = Asserted::hard(
        "B3",
        "Odoo's log tells of no missing module, no error and no traceback",
        "Odoo says there, and nowhere else, that something of the copy does not fit together.",
    );
    let began = Instant::now();
    let count = &told.count;
    let detail = format!("{} lines, {} errors, {} tracebacks", count.lines, count.errors, count.tracebacks);
    let result = if told.problems.is_empty() { CheckResult::Passed } else { CheckResult::Failed };
    asserted.check(database, result, detail, told.problems.clone(), began)
}

fn identity(database: &str, before: &Identity, after: &Identity) -> Check {
    let asserted = Asserted::hard(
        "B4",
        "It is the same database before and after, and no other was made",
        "Odoo makes and fills a database that it does not find, and would look healthy on it.",
    );
    let began = Instant::now();
    let rows = after.differences(before);
    let (result, detail) = match rows.len() {
        0 => (CheckResult::Passed, format!("oid {}, {} modules known", after.oid, after.modules)),
        n => (CheckResult::Failed, format!("{n} difference(s)")),
    };
    asserted.check(database, result, detail, rows, began)
}

fn warnings(database: &str, told: &Told) -> Check {
    let asserted = Asserted {
        id: "B5",
        title: "Warnings in Odoo's log",
        why: "Not a failure; compare them with those of production.",
        severity: Severity::Info,
    };
    let detail = format!("{} warning(s)", told.count.warnings);
    asserted.check(database, CheckResult::Info, detail, told.warnings.clone(), Instant::now())
}

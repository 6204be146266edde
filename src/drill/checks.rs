//! Running the configured checks against a restored cluster.
//!
//! Each runs in a read-only transaction with a time limit. A check whose tables, columns or Odoo version are
//! not there is "not applicable", which is said, never counted as passed; one that cannot be run is an
//! error, which for a hard check fails the drill.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::config::{Check, Expectation, Scope, Severity};
use crate::error::Result;
use crate::evidence::drill_record::{self, CheckResult};
use crate::postgres::server::PrivateServer;
use crate::postgres::source::databases;
use crate::postgres::sql::explain;

/// Rows of an offence that are kept as evidence.
const ROWS_KEPT: usize = 5;

/// Runs `checks` on every database that they apply to.
pub async fn run(server: &PrivateServer, checks: &[&Check]) -> Result<Vec<drill_record::Check>> {
    let maintenance = server.sql("template1").await?;
    let mut results = Vec::new();
    let names = databases(&maintenance).await?;
    let mut odoo_seen = false;
    for name in &names {
        let client = server.sql(name).await?;
        let version = odoo_version(&client).await?;
        odoo_seen |= version.is_some();
        for check in checks {
            match (check.database, version) {
                (Scope::Odoo, None) | (Scope::Cluster, _) => {}
                (Scope::Odoo | Scope::Every, _) => results.push(one(&client, name, check, version).await),
            }
        }
    }
    for check in checks.iter().filter(|c| c.database == Scope::Cluster) {
        results.push(one(&maintenance, "cluster", check, None).await);
    }
    if !odoo_seen {
        for check in checks.iter().filter(|c| c.database == Scope::Odoo) {
            results.push(result(
                check,
                "cluster",
                CheckResult::NotApplicable,
                "no database of the cluster is Odoo's",
                vec![],
                0.0,
            ));
        }
    }
    Ok(results)
}

/// Major version of Odoo in a database: that of its `base` module; `None` where it is not Odoo's.
pub async fn odoo_version(client: &Client) -> Result<Option<u32>> {
    let failed = |e| explain(e, "cannot look for Odoo in a restored database");
    let there: bool = client
        .query_one("SELECT to_regclass('public.ir_module_module') IS NOT NULL", &[])
        .await
        .map_err(failed)?
        .get(0);
    if !there {
        return Ok(None);
    }
    let row = client
        .query_opt("SELECT latest_version::text FROM public.ir_module_module WHERE name = 'base'", &[])
        .await
        .map_err(failed)?;
    let version: Option<String> = row.and_then(|r| r.get(0));
    Ok(Some(version.and_then(|v| v.split('.').next()?.parse().ok()).unwrap_or(0)))
}

async fn one(client: &Client, scope: &str, check: &Check, version: Option<u32>) -> drill_record::Check {
    let began = Instant::now();
    let outcome = match applies(client, check, version).await {
        Ok(None) => ask(client, check).await,
        Ok(Some(why_not)) => {
            return result(check, scope, CheckResult::NotApplicable, &why_not, vec![], began.elapsed().as_secs_f64());
        }
        Err(e) => Err(e),
    };
    let seconds = began.elapsed().as_secs_f64();
    match outcome {
        Err(e) => result(check, scope, CheckResult::Error, &e.to_string(), vec![], seconds),
        Ok((count, rows)) => {
            let (verdict, detail) = match (check.expect, count) {
                (Expectation::NoRows, 0) => (CheckResult::Passed, "no offending row".to_owned()),
                (Expectation::NoRows, n) => (CheckResult::Failed, format!("{n} offending row(s)")),
                (Expectation::Rows, n) => (CheckResult::Info, format!("{n} row(s)")),
            };
            result(check, scope, verdict, &detail, rows, seconds)
        }
    }
}

fn result(
    check: &Check,
    scope: &str,
    result: CheckResult,
    detail: &str,
    rows: Vec<String>,
    seconds: f64,
) -> drill_record::Check {
    drill_record::Check {
        id: check.id.clone(),
        title: check.title.clone(),
        why: check.why.clone(),
        severity: match check.severity {
            Severity::Hard => drill_record::Severity::Hard,
            Severity::Baseline => drill_record::Severity::Baseline,
            Severity::Info => drill_record::Severity::Info,
        },
        scope: scope.to_owned(),
        result,
        detail: detail.to_owned(),
        rows,
        seconds,
    }
}

/// Why a check cannot apply to this database, if so.
async fn applies(
    client: &Client,
    check: &Check,
    version: Option<u32>,
) -> std::result::Result<Option<String>, tokio_postgres::Error> {
    if let Some(version) = version.filter(|_| check.database == Scope::Odoo)
        && (check.odoo_min.is_some_and(|min| version < min) || check.odoo_max.is_some_and(|max| version > max))
    {
        return Ok(Some(format!("not written for Odoo {version}")));
    }
    for table in &check.requires_tables {
        let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[table]).await?;
        if !row.get::<_, bool>(0) {
            return Ok(Some(format!("there is no table {table}")));
        }
    }
    for column in &check.requires_columns {
        let (table, name) = column.rsplit_once('.').unwrap_or(("", column));
        let row = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 \
                 AND attnum > 0 AND NOT attisdropped)",
                &[&table, &name],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            return Ok(Some(format!("there is no column {column}")));
        }
    }
    Ok(None)
}

/// Runs the statement, and the statements that it generates; counts rows and keeps the first few.
async fn ask(client: &Client, check: &Check) -> std::result::Result<(usize, Vec<String>), tokio_postgres::Error> {
    let began = Instant::now();
    let mut statements = vec![check.sql.clone()];
    if check.generates_sql {
        let generated = rows(client, &check.sql, check.timeout).await?;
        statements = generated.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect();
    }
    let (mut count, mut kept) = (0, Vec::new());
    for statement in statements {
        let left = check.timeout.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let found = rows(client, &statement, left).await?;
        count += found.len();
        kept.extend(found.iter().take(ROWS_KEPT.saturating_sub(kept.len())).map(row_text));
    }
    if count > kept.len() {
        kept.push(format!("… {} more", count - kept.len()));
    }
    Ok((count, kept))
}

async fn rows(
    client: &Client,
    sql: &str,
    limit: Duration,
) -> std::result::Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", limit.as_millis().max(1));
    client.batch_execute(&begin).await?;
    let answer = client.simple_query(sql).await;
    client.batch_execute("ROLLBACK").await?;
    Ok(answer?
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

pub(super) fn row_text(row: &SimpleQueryRow) -> String {
    let fields = row.columns().iter().enumerate();
    let text: Vec<String> = fields.map(|(i, c)| format!("{}={}", c.name(), row.get(i).unwrap_or("NULL"))).collect();
    text.join(" ").chars().take(300).collect()
}

//! One check, one database: does it apply, and what does it answer?
//!
//! Promises: nothing is written, only one statement is run at a time, and the time limit of the check holds for all
//! of its statements together.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::answer::{Gatherer, Outcome};
use crate::config::{Check, Probe, Scope};

type Asked<T> = std::result::Result<T, tokio_postgres::Error>;

/// Statements that one check may generate: a database with more tables than this is not Odoo's.
const MAX_GENERATED: usize = 100_000;

/// The transaction that a question is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// One of its own, read-only.
    Own,
    /// The session's, which stays usable whatever becomes of the question.
    Session,
}

/// Why a check cannot apply to this database, if so. `version` is that of Odoo, where there is one.
///
/// # Errors
/// When the server does not answer.
pub async fn applies(client: &Client, check: &Check, version: Option<u32>) -> Asked<Option<String>> {
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
    for module in &check.modules {
        let query = "SELECT EXISTS (SELECT FROM public.ir_module_module WHERE name = $1 \
                     AND state IN ('installed', 'to upgrade', 'to remove'))";
        if !client.query_one(query, &[module]).await?.get::<_, bool>(0) {
            return Ok(Some(format!("the module {module} is not installed")));
        }
    }
    Ok(None)
}

/// Asks a check's question of a database, `limit` being the longest that a statement may take beside the check's own
/// limit. Checks without a statement are not asked here.
pub async fn ask(client: &Client, check: &Check, version: Option<u32>, within: Within, limit: Duration) -> Outcome {
    let Probe::Sql { statement, generates } = &check.probe else {
        return Outcome::NotApplicable { reason: "it does not ask the database".into() };
    };
    let limit = limit.min(check.timeout);
    let asked = async {
        if let Some(reason) = bracketed(client, within, limit, applies(client, check, version)).await?? {
            return Ok(Outcome::NotApplicable { reason });
        }
        let began = Instant::now();
        let mut answer = Gatherer::default();
        if *generates {
            let mut generated = Vec::new();
            let mut collect = |row: &SimpleQueryRow| generated.extend(row.get(0).map(str::to_owned));
            run(client, within, limit, statement, &mut collect).await?;
            for statement in generated.iter().take(MAX_GENERATED) {
                let left = limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
                let mut add = |row: &SimpleQueryRow| answer.add(fields(row));
                run(client, within, left, statement, &mut add).await?;
            }
        } else {
            let mut add = |row: &SimpleQueryRow| answer.add(fields(row));
            run(client, within, limit, statement, &mut add).await?;
        }
        Ok(Outcome::Answered(answer.finish()))
    };
    asked.await.unwrap_or_else(|e| Outcome::Failed { reason: reason(check, statement, *generates, &e) })
}

/// The failure in words, with the line of the file that it points to.
fn reason(check: &Check, statement: &str, generates: bool, error: &tokio_postgres::Error) -> String {
    let Some(report) = error.as_db_error() else { return format!("{}: {error}", check.origin) };
    let line = match report.position() {
        Some(ErrorPosition::Original(position)) if !generates => check.origin.line_at(statement, *position as usize),
        _ => check.origin.line,
    };
    let mut text = format!("{}:{line}: {}", check.origin.file.display(), report.message());
    if let Some(more) = report.hint().or(report.detail()) {
        text += &format!(" ({more})");
    }
    text
}

/// What is done with each row.
type Visit<'v> = &'v mut (dyn FnMut(&SimpleQueryRow) + Send);

/// Names and values of a row.
fn fields(row: &SimpleQueryRow) -> impl Iterator<Item = (&str, Option<&str>)> {
    row.columns().iter().enumerate().map(|(i, column)| (column.name(), row.get(i)))
}

/// A row as it is shown to people, not too long.
pub(crate) fn row_text(row: &SimpleQueryRow) -> String {
    let text: Vec<String> = fields(row).map(|(name, value)| format!("{name}={}", value.unwrap_or("NULL"))).collect();
    text.join(" ").chars().take(300).collect()
}

/// Runs one statement and visits its rows as they come.
async fn run(client: &Client, within: Within, limit: Duration, sql: &str, visit: Visit<'_>) -> Asked<()> {
    let work = async {
        // Several statements in one text are refused here; running them as text would not.
        client.prepare(sql).await?;
        let mut rows = pin!(client.simple_query_raw(sql).await?);
        while let Some(message) = rows.try_next().await? {
            if let SimpleQueryMessage::Row(row) = message {
                visit(&row);
            }
        }
        Ok(())
    };
    bracketed(client, within, limit, work).await?
}

/// Does `work` between the beginning and the undoing of a transaction or of a part of one.
async fn bracketed<T>(
    client: &Client,
    within: Within,
    limit: Duration,
    work: impl Future<Output = Asked<T>>,
) -> Asked<Asked<T>> {
    let (begin, end) = match within {
        Within::Own => ("BEGIN READ ONLY", "ROLLBACK"),
        Within::Session => ("SAVEPOINT lifeboat", "ROLLBACK TO SAVEPOINT lifeboat; RELEASE SAVEPOINT lifeboat"),
    };
    client.batch_execute(&format!("{begin}; SET LOCAL statement_timeout = {}", limit.as_millis().max(1))).await?;
    let result = work.await;
    client.batch_execute(end).await?;
    Ok(result)
}

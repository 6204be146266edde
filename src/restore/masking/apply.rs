//! The masks laid on: every sensitive column has a rule, or nothing is done; then one statement, and so one transaction,
//! for each table, and a look whether it holds what the rules make.
//!
//! Triggers do not fire: history tables and the like would keep what is being masked. Foreign keys are kept by `DELETE`
//! alone, which is why that runs with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio_postgres::Client;

use super::columns::{self, Column, Kind, reaches_people, sensitive};
use super::expression::{masked, quote, unmasked};
use crate::config::suggest::nearest;
use crate::config::{MaskingRule, Rule};
use crate::error::{self, ErrorKind, Result};
use crate::postgres::sql::explain;

/// What a database is masked with.
#[derive(Debug)]
pub struct Masking<'a> {
    /// The rules.
    pub rules: &'a [MaskingRule],
    /// What the key is derived from: the recovery identity.
    pub secret: &'a SecretString,
}

/// What was masked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Masked {
    /// The columns.
    pub columns: Vec<MaskedColumn>,
    /// Tables whose rows are gone, and how many there were.
    pub deleted: BTreeMap<String, u64>,
    /// Rows that were written.
    pub rows: u64,
    /// What somebody should know.
    pub notes: Vec<String>,
}

/// A column that a rule was applied to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MaskedColumn {
    /// `table.column`.
    pub column: String,
    /// The rule's name.
    pub rule: &'static str,
}

/// Masks the database behind a session of a superuser; `uuid` is its `database.uuid`.
pub async fn apply(client: &Client, masking: &Masking<'_>, uuid: Option<&str>) -> Result<Masked> {
    let all = columns::read(client).await?;
    let mut done = Masked { notes: unknown(&all, masking.rules), ..Masked::default() };
    refuse_without_rule(client, &all, masking.rules).await?;
    let mut tables: BTreeMap<(&str, &str), Vec<(&Column, &Rule)>> = BTreeMap::new();
    for rule in masking.rules {
        if let Some(column) = all.iter().find(|c| is_for(rule, c)) {
            tables.entry((&column.schema, &column.table)).or_default().push((column, &rule.rule));
        }
    }
    let mut statements = Vec::new();
    for ((schema, table), columns) in &tables {
        statements.push((format!("{}.{}", quote(schema), quote(table)), statement(schema, table, columns)?, columns));
    }
    prepare(client, masking, uuid).await?;
    delete_rows(client, &all, masking.rules, &mut done).await?;
    let cannot = |e, table: &str| explain(e, format!("cannot mask the table {table}"));
    for (table, statement, columns) in &statements {
        let Some(statement) = statement else { continue };
        client.batch_execute("SET session_replication_role = replica").await.map_err(|e| cannot(e, table))?;
        done.rows += client.execute(statement.as_str(), &[]).await.map_err(|e| cannot(e, table))?;
        look_again(client, table, columns).await?;
        let masked = columns.iter().filter(|(_, rule)| **rule != Rule::Keep);
        done.columns.extend(
            masked.map(|(c, rule)| MaskedColumn { column: format!("{}.{}", c.table, c.name), rule: rule.word() }),
        );
    }
    let end = "RESET session_replication_role; RESET lifeboat.masking_key";
    client.batch_execute(end).await.map_err(|e| explain(e, "cannot end masking"))?;
    Ok(done)
}

/// Whether a rule is for this column.
fn is_for(rule: &MaskingRule, column: &Column) -> bool {
    rule.column.as_ref() == Some(&column.name) && rule.table == column.table && rule.schema == column.schema
}

/// Rules for columns that a table does not have: slips of the keyboard, or of another version of Odoo.
fn unknown(all: &[Column], rules: &[MaskingRule]) -> Vec<String> {
    let tables: BTreeSet<(&str, &str)> = all.iter().map(|c| (c.schema.as_str(), c.table.as_str())).collect();
    let missing = rules.iter().filter(|r| tables.contains(&(r.schema.as_str(), r.table.as_str())));
    let missing = missing.filter(|r| r.column.is_some() && !all.iter().any(|c| is_for(r, c)));
    missing
        .map(|rule| {
            let wanted = rule.column.as_deref().unwrap_or_default();
            let of_table =
                all.iter().filter(|c| c.table == rule.table && c.schema == rule.schema).map(|c| c.name.as_str());
            let near = nearest(wanted, of_table).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            format!("{}: the table {} has no column {wanted}{near}", rule.place, rule.table)
        })
        .collect()
}

/// Stops where a column of a sensitive kind holds something and nobody decided what becomes of it.
async fn refuse_without_rule(client: &Client, all: &[Column], rules: &[MaskingRule]) -> Result<()> {
    let people: BTreeSet<(&str, &str)> =
        all.iter().filter(|c| reaches_people(c)).map(|c| (c.schema.as_str(), c.table.as_str())).collect();
    let ruled = |c: &Column| {
        rules.iter().any(|r| is_for(r, c) || r.rule == Rule::DeleteRows && r.table == c.table && r.schema == c.schema)
    };
    let mut open: Vec<(&Column, Kind)> = Vec::new();
    for column in all.iter().filter(|c| !ruled(c)) {
        let reaches = people.contains(&(column.schema.as_str(), column.table.as_str()));
        if let Some(kind) = sensitive(column, reaches)
            && holds_something(client, column).await?
        {
            open.push((column, kind));
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let mut snippet = "[masking]\n".to_owned();
    for (column, kind) in &open {
        let schema = if column.schema == "public" { String::new() } else { format!("{}.", column.schema) };
        let rule = kind.suggestion(column.not_null);
        writeln!(snippet, "\"{schema}{}.{}\" = \"{}\"   # {}", column.table, column.name, rule.word(), kind.word())
            .expect("a string takes everything");
    }
    let names: Vec<String> = open.iter().take(5).map(|(c, _)| format!("{}.{}", c.table, c.name)).collect();
    let more = if open.len() > 5 { ", …" } else { "" };
    Err(error::denied(format!(
        "{} column(s) look like personal data or secrets and have no masking rule: {}{more}",
        open.len(),
        names.join(", ")
    ))
    .meaning("nothing was masked and nothing was copied")
    .hint(format!(
        "decide for each, and put this into a file that `include` names, such as masking/retail.toml (\"keep\" where a \
         column holds nothing of that kind):\n{snippet}"
    )))
}

async fn holds_something(client: &Client, column: &Column) -> Result<bool> {
    let only = if column.partitioned { "" } else { "ONLY " };
    let (schema, table, name) = (quote(&column.schema), quote(&column.table), quote(&column.name));
    let sql =
        format!("SELECT EXISTS (SELECT FROM {only}{schema}.{table} WHERE {name}::text NOT IN ('', 'null', '{{}}'))");
    let row = client
        .query_one(&sql, &[])
        .await
        .map_err(|e| explain(e, format!("cannot look into {}.{}", column.table, column.name)))?;
    Ok(row.get(0))
}

/// One `UPDATE` for all columns of a table; `None` where all of them stay.
fn statement(schema: &str, table: &str, columns: &[(&Column, &Rule)]) -> Result<Option<String>> {
    let (mut sets, mut wheres) = (Vec::new(), Vec::new());
    for (column, rule) in columns {
        if let Some(expression) = masked(column, rule)? {
            sets.push(format!("{} = {expression}", quote(&column.name)));
            wheres.push(format!("{} IS NOT NULL", quote(&column.name)));
        }
    }
    if sets.is_empty() {
        return Ok(None);
    }
    // Masks of absent values are absent: rows that hold nothing need not be written.
    let only = if columns.iter().any(|(c, _)| c.partitioned) { "" } else { "ONLY " };
    let (schema, table) = (quote(schema), quote(table));
    Ok(Some(format!("UPDATE {only}{schema}.{table} SET {} WHERE {}", sets.join(", "), wheres.join(" OR "))))
}

/// Puts key and masks into the session.
async fn prepare(client: &Client, masking: &Masking<'_>, uuid: Option<&str>) -> Result<()> {
    let cannot = |e| explain(e, "cannot prepare masking");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, masking.secret.expose_secret().as_bytes());
    let about = format!("lifeboat masking 1\0{}", uuid.unwrap_or_default());
    let key = hex::encode(aws_lc_rs::hmac::sign(&key, about.as_bytes()).as_ref());
    let quiet = "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = panic;
                 SET statement_timeout = 0; SET lock_timeout = 0; SET row_security = off; SET search_path = pg_catalog";
    client.batch_execute(quiet).await.map_err(cannot)?;
    client.execute("SELECT set_config('lifeboat.masking_key', $1, false)", &[&key]).await.map_err(cannot)?;
    client.batch_execute(include_str!("functions.sql")).await.map_err(cannot)
}

async fn delete_rows(client: &Client, all: &[Column], rules: &[MaskingRule], done: &mut Masked) -> Result<()> {
    for rule in rules.iter().filter(|r| r.rule == Rule::DeleteRows) {
        if !all.iter().any(|c| c.table == rule.table && c.schema == rule.schema) {
            continue;
        }
        let sql = format!("DELETE FROM {}.{}", quote(&rule.schema), quote(&rule.table));
        let rows = client.execute(&sql, &[]).await.map_err(|e| {
            explain(e, format!("cannot delete the rows of {}", rule.table))
                .hint("where another table refers to them, delete its rows too, or mask the columns instead")
        })?;
        done.deleted.insert(rule.table.clone(), rows);
    }
    Ok(())
}

/// No value is left that the rules did not make.
async fn look_again(client: &Client, table: &str, columns: &[(&Column, &Rule)]) -> Result<()> {
    for (column, rule) in columns {
        let Some(condition) = unmasked(column, rule) else { continue };
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        let row = client.query_one(&sql, &[]).await.map_err(|e| explain(e, format!("cannot look at {table} again")))?;
        let left: i64 = row.get(0);
        if left > 0 {
            let what = format!("{left} value(s) of {table}.{} are not masked after masking", column.name);
            return Err(error::Error::new(ErrorKind::CheckFailed, what).meaning("nothing was copied"));
        }
    }
    Ok(())
}

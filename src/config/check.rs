//! Checks: the assertions that a drill makes about restored databases.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::{Located, RawCheck};
use super::read::text;
use super::repository::positive;
use super::source::Source;
use crate::error::Result;

/// One assertion about a restored database.
#[derive(Debug, Clone)]
pub struct Check {
    /// Unique in the estate: letters, digits, `.`, `_` and `-`.
    pub id: String,
    /// The suite that it belongs to.
    pub suite: String,
    /// One line for people.
    pub title: String,
    /// What a failure means for the drill.
    pub severity: Severity,
    /// Where it runs.
    pub database: Scope,
    /// First Odoo major version that it applies to.
    pub odoo_min: Option<u32>,
    /// Last Odoo major version that it applies to.
    pub odoo_max: Option<u32>,
    /// Tables without which it does not apply.
    pub requires_tables: Vec<String>,
    /// Columns, as `table.column`, without which it does not apply.
    pub requires_columns: Vec<String>,
    /// One statement, without a closing semicolon.
    pub sql: String,
    /// Whether each row (its first column) is itself a statement to run, whose rows then count.
    pub generates_sql: bool,
    /// What the statement must return.
    pub expect: Expectation,
    /// Why it matters, for somebody who does not read SQL.
    pub why: String,
    /// Longest run time of the whole check.
    pub timeout: Duration,
}

/// What a failed check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No sound database fails it: the drill fails.
    Hard,
    /// A sound database may show a few rows; a person should look.
    Baseline,
    /// A fact worth having in the report.
    Info,
}

/// Where a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// In each Odoo database.
    #[default]
    Odoo,
    /// In every database that accepts connections.
    Every,
    /// Once, in the database `postgres`.
    Cluster,
}

/// What a check's statement must return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Nothing: every row is a finding.
    NoRows,
    /// Rows to show; none of them is a finding.
    Rows,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Judges one `[[check]]` of `suite`.
pub(super) fn check(source: &Source, suite: &str, raw: RawCheck) -> Result<Check> {
    if !is_name(&raw.id.value) {
        return Err(source
            .error(&raw.id.span, "this is not a check's id")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"));
    }
    let severity = raw.severity.value;
    let expect = match (severity, &raw.expect) {
        (Severity::Hard, Some(Located { value: Expectation::Rows, span })) => {
            return Err(source
                .error(span, format!("the hard check {} expects rows, so it could never fail", raw.id.value))
                .hint("write a statement that returns what is wrong, or severity = \"info\""));
        }
        (_, Some(expect)) => expect.value,
        (Severity::Info, None) => Expectation::Rows,
        (_, None) => Expectation::NoRows,
    };
    if let (Some(min), Some(max)) = (&raw.odoo_min, &raw.odoo_max)
        && min.value > max.value
    {
        return Err(source.error(&max.span, format!("odoo_max {} is below odoo_min {}", max.value, min.value)));
    }
    if let (Some(Scope::Every | Scope::Cluster), Some(version)) =
        (raw.database, raw.odoo_min.as_ref().or(raw.odoo_max.as_ref()))
    {
        return Err(source
            .error(&version.span, "an Odoo version is asked for, but the check does not run in Odoo databases only")
            .hint("remove it, or write database = \"odoo\""));
    }
    for table in &raw.requires_tables {
        if !is_identifier(&table.value) {
            return Err(source.error(&table.span, "this is not the name of a table"));
        }
    }
    for column in &raw.requires_columns {
        let ok = column.value.split_once('.').is_some_and(|(t, c)| is_identifier(t) && is_identifier(c));
        if !ok {
            return Err(source.error(&column.span, "this is not a column").hint("write \"table.column\""));
        }
    }
    let sql = raw.sql.value.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    if sql.is_empty() {
        return Err(source.error(&raw.sql.span, "`sql` holds no statement"));
    }
    Ok(Check {
        suite: suite.to_owned(),
        title: text(source, "title", &raw.title)?,
        severity,
        database: raw.database.unwrap_or_default(),
        odoo_min: raw.odoo_min.map(|l| l.value),
        odoo_max: raw.odoo_max.map(|l| l.value),
        requires_tables: raw.requires_tables.into_iter().map(|l| l.value).collect(),
        requires_columns: raw.requires_columns.into_iter().map(|l| l.value).collect(),
        sql: sql.to_owned(),
        generates_sql: raw.generates_sql,
        expect,
        why: text(source, "why", &raw.why)?,
        timeout: raw.timeout.map_or(Ok(DEFAULT_TIMEOUT), |t| positive(source, "timeout", &t))?,
        id: raw.id.value,
    })
}

/// Whether `name` can be a check's id or a suite's name.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether `name` is an identifier that PostgreSQL takes without quotes.
fn is_identifier(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

//! Checks: the assertions that a drill makes about restored databases.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::Located;
use super::raw_check::{RawCheck, RawCommand, RawHttp};
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
    /// Modules of Odoo without which it does not apply.
    pub modules: Vec<String>,
    /// What is asked.
    pub probe: Probe,
    /// What a statement must return.
    pub expect: Expectation,
    /// Whether the source's answer, where it is known, must come back from a check of severity `baseline`.
    pub compare: bool,
    /// How old the newest row of a `fresh` check may be; `None`: the RPO objective.
    pub max_age: Option<Duration>,
    /// Why it matters, for somebody who does not read SQL.
    pub why: String,
    /// Longest run time of the whole check.
    pub timeout: Duration,
    /// Where it is written.
    pub origin: Origin,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The database.
    Sql {
        /// One statement, without a closing semicolon.
        statement: String,
        /// Whether each row (its first column) is itself a statement to run, whose rows then count.
        generates: bool,
    },
    /// The restored Odoo.
    Http(HttpProbe),
    /// A program, run on the restored copy.
    Command(CommandProbe),
}

/// A page that the restored Odoo must serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Path and query; `{database}` stands for the database's name.
    pub path: String,
    /// The status that it must answer with.
    pub status: u16,
    /// A text that the answer must hold.
    pub contains: Option<String>,
    /// The type of the answer, in lower case.
    pub content_type: Option<String>,
    /// SHA-256 of the answer's content, in lower-case hexadecimal.
    pub sha256: Option<String>,
    /// Whether it is asked as the user that the drill logs in as; else nobody is logged in.
    pub login: bool,
}

/// A program, run on the restored copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandProbe {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The exit code that means success.
    pub exit_code: i32,
    /// A valid regular expression that its standard output must match.
    pub output: Option<String>,
}

/// Where a check is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line on which its statement, page or program begins.
    pub line: usize,
}

impl Origin {
    /// The line that holds the character `position` (from 1) of `statement`, which begins here.
    pub fn line_at(&self, statement: &str, position: usize) -> usize {
        self.line + statement.chars().take(position.saturating_sub(1)).filter(|c| *c == '\n').count()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Check {
    /// The statement, where the check asks the database.
    pub fn statement(&self) -> Option<&str> {
        match &self.probe {
            Probe::Sql { statement, .. } => Some(statement),
            Probe::Http(_) | Probe::Command(_) => None,
        }
    }

    /// Whether the source is asked the same at backup time, for a drill to compare with.
    pub fn asks_the_source(&self) -> bool {
        let compares = match self.expect {
            Expectation::SameAsSource | Expectation::Fresh => true,
            Expectation::NoRows => self.severity == Severity::Baseline && self.compare,
            Expectation::Rows => false,
        };
        compares && self.statement().is_some()
    }
}

/// What a failed check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No sound database fails it: the drill fails.
    Hard,
    /// A sound database may show a few rows; a person should look. Where the source was asked at backup
    /// time, its answer must come back, or the drill fails.
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
    /// The rows that the source returned at backup time, in any order.
    SameAsSource,
    /// Rows whose last column holds a time; the newest must be recent enough.
    Fresh,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Judges one `[[check]]` of `suite`.
pub(super) fn check(source: &Source, suite: &str, raw: RawCheck) -> Result<Check> {
    if !is_name(&raw.id.value) {
        return Err(source
            .error(&raw.id.span, "this is not a check's id")
            .hint("use up to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"));
    }
    let expect = expectation(source, &raw)?;
    applicability(source, &raw)?;
    let (probe, origin) = probe(source, &raw)?;
    Ok(Check {
        suite: suite.to_owned(),
        title: text(source, "title", &raw.title)?,
        severity: raw.severity.value,
        database: raw.database.unwrap_or_default(),
        odoo_min: raw.odoo_min.map(|l| l.value),
        odoo_max: raw.odoo_max.map(|l| l.value),
        requires_tables: values(raw.requires_tables),
        requires_columns: values(raw.requires_columns),
        modules: values(raw.modules),
        probe,
        expect,
        compare: raw.compare.unwrap_or(true),
        max_age: raw.max_age.map(|age| positive(source, "max_age", &age)).transpose()?,
        why: text(source, "why", &raw.why)?,
        timeout: raw.timeout.map_or(Ok(DEFAULT_TIMEOUT), |t| positive(source, "timeout", &t))?,
        origin,
        id: raw.id.value,
    })
}

fn values(list: Vec<Located<String>>) -> Vec<String> {
    list.into_iter().map(|l| l.value).collect()
}

fn expectation(source: &Source, raw: &RawCheck) -> Result<Expectation> {
    let severity = raw.severity.value;
    if let (None, Some(expect)) = (&raw.sql, &raw.expect) {
        return Err(source
            .error(&expect.span, "`expect` is about the rows of `sql`, and this check has none")
            .hint("remove it; `http` and `command` say themselves what they expect"));
    }
    let expect = match (severity, &raw.expect) {
        (Severity::Hard, Some(Located { value: Expectation::Rows, span })) => {
            return Err(source
                .error(span, format!("the hard check {} expects rows, so it could never fail", raw.id.value))
                .hint("write a statement that returns what is wrong, or severity = \"info\""));
        }
        (Severity::Info, Some(Located { value: Expectation::SameAsSource | Expectation::Fresh, span })) => {
            return Err(source
                .error(span, format!("the check {} is compared, but severity = \"info\" never fails", raw.id.value))
                .hint("write severity = \"hard\", or \"baseline\" for a warning"));
        }
        (_, Some(expect)) => expect.value,
        (Severity::Info, None) => Expectation::Rows,
        (_, None) => Expectation::NoRows,
    };
    match &raw.max_age {
        Some(age) if expect != Expectation::Fresh => {
            Err(source.error(&age.span, "`max_age` is given, but the check does not expect \"fresh\" rows"))
        }
        _ => Ok(expect),
    }
}

fn applicability(source: &Source, raw: &RawCheck) -> Result<()> {
    if let (Some(min), Some(max)) = (&raw.odoo_min, &raw.odoo_max)
        && min.value > max.value
    {
        return Err(source.error(&max.span, format!("odoo_max {} is below odoo_min {}", max.value, min.value)));
    }
    if let Some(Scope::Every | Scope::Cluster) = raw.database {
        if let Some(version) = raw.odoo_min.as_ref().or(raw.odoo_max.as_ref()) {
            return Err(source
                .error(&version.span, "an Odoo version is asked for, but the check does not run in Odoo databases only")
                .hint("remove it, or write database = \"odoo\""));
        }
        if let Some(module) = raw.modules.first() {
            return Err(source
                .error(&module.span, "modules are asked for, but the check does not run in Odoo databases only")
                .hint("remove them, or write database = \"odoo\""));
        }
    }
    if let (Some(page), Some(Scope::Every | Scope::Cluster)) = (&raw.http, raw.database) {
        return Err(source
            .error(
                &page.span,
                "a page is asked of the Odoo of each database, but the check does not run in Odoo databases",
            )
            .hint("remove `database`, or write database = \"odoo\""));
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
    match raw.modules.iter().find(|module| !is_identifier(&module.value)) {
        Some(module) => Err(source.error(&module.span, "this is not the technical name of a module")),
        None => Ok(()),
    }
}

fn probe(source: &Source, raw: &RawCheck) -> Result<(Probe, Origin)> {
    let origin = |line| Origin { file: source.shown.clone(), line };
    match (&raw.sql, &raw.http, &raw.command) {
        (Some(sql), None, None) => {
            let statement = sql.value.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
            if statement.is_empty() {
                return Err(source.error(&sql.span, "`sql` holds no statement"));
            }
            let probe = Probe::Sql { statement: statement.to_owned(), generates: raw.generates_sql };
            Ok((probe, origin(source.line_of(statement, &sql.span))))
        }
        (None, Some(page), None) => {
            Ok((Probe::Http(http(source, &page.value)?), origin(source.line_of("", &page.span))))
        }
        (None, None, Some(program)) => {
            Ok((Probe::Command(command(source, &program.value)?), origin(source.line_of("", &program.span))))
        }
        (None, None, None) => Err(source
            .error(&raw.id.span, format!("the check {} asks nothing", raw.id.value))
            .hint("give it `sql`, `http` or `command`")),
        _ => Err(source
            .error(&raw.id.span, format!("the check {} asks more than one thing", raw.id.value))
            .hint("give it one of `sql`, `http` and `command`; make the others checks of their own")),
    }
}

fn http(source: &Source, raw: &RawHttp) -> Result<HttpProbe> {
    let path = text(source, "path", &raw.path)?;
    if !path.starts_with('/') || path.contains(char::is_whitespace) {
        return Err(source.error(&raw.path.span, "this is not a path").hint("write for example \"/web/login\""));
    }
    let status = raw.status.as_ref().map_or(200, |s| s.value);
    if let Some(written) = raw.status.as_ref().filter(|s| !(100..600).contains(&s.value)) {
        return Err(source.error(&written.span, format!("{status} is not an HTTP status")));
    }
    if let Some(written) = raw.sha256.as_ref().filter(|s| !is_sha256(&s.value)) {
        return Err(source.error(&written.span, "this is not a SHA-256").hint("write its 64 hexadecimal digits"));
    }
    let lower = |t: String| t.to_ascii_lowercase();
    let contains = raw.contains.as_ref().map(|t| text(source, "contains", t)).transpose()?;
    let content_type = raw.content_type.as_ref().map(|t| text(source, "content_type", t)).transpose()?.map(lower);
    let sha256 = raw.sha256.as_ref().map(|t| t.value.to_ascii_lowercase());
    Ok(HttpProbe { path, status, contains, content_type, sha256, login: raw.login })
}

fn command(source: &Source, raw: &RawCommand) -> Result<CommandProbe> {
    let Some((program, arguments)) = raw.run.value.split_first() else {
        return Err(source.error(&raw.run.span, "no program is named"));
    };
    if !Path::new(&program.value).is_absolute() {
        return Err(source
            .error(&program.span, "the program is not an absolute path")
            .hint("a drill runs it with a bare environment: write for example \"/usr/local/bin/check-shop\""));
    }
    if let Some(pattern) = &raw.output
        && let Err(e) = regex::Regex::new(&pattern.value)
    {
        let reason = e.to_string().lines().last().unwrap_or_default().trim().to_owned();
        return Err(source.error(&pattern.span, format!("this is not a regular expression: {reason}")));
    }
    Ok(CommandProbe {
        program: PathBuf::from(&program.value),
        arguments: arguments.iter().map(|a| a.value.clone()).collect(),
        exit_code: raw.exit_code.unwrap_or(0),
        output: raw.output.as_ref().map(|l| l.value.clone()),
    })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
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

//! `[[check]]` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Expectation, Scope, Severity};
use super::raw::Located;
use crate::units::Span;

/// One assertion about a restored database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Check")]
pub(super) struct RawCheck {
    /// Short name, unique in the estate; appears in reports and evidence.
    pub(super) id: Located<String>,
    /// One line for people.
    pub(super) title: Located<String>,
    /// `hard` fails the drill. `baseline` warns; where the source was asked at backup time, the answer must equal
    /// the source's, or the drill fails. `info` is shown.
    pub(super) severity: Located<Severity>,
    /// Where it runs: each Odoo database (`odoo`, default), `every` database, or once per `cluster`.
    pub(super) database: Option<Scope>,
    /// First Odoo major version that it applies to.
    pub(super) odoo_min: Option<Located<u32>>,
    /// Last Odoo major version that it applies to.
    pub(super) odoo_max: Option<Located<u32>>,
    /// Tables without which the check does not apply.
    #[serde(default)]
    pub(super) requires_tables: Vec<Located<String>>,
    /// Columns (`table.column`) without which the check does not apply.
    #[serde(default)]
    pub(super) requires_columns: Vec<Located<String>>,
    /// Modules of Odoo without which the check does not apply.
    #[serde(default)]
    pub(super) modules: Vec<Located<String>>,
    /// The statement. Exactly one of `sql`, `http` and `command` is given.
    pub(super) sql: Option<Located<String>>,
    /// A page that the restored Odoo must serve.
    pub(super) http: Option<Located<RawHttp>>,
    /// A program that is run on the restored copy.
    pub(super) command: Option<Located<RawCommand>>,
    /// Whether each row that `sql` returns is itself a statement to run; default false.
    #[serde(default)]
    pub(super) generates_sql: bool,
    /// What `sql` must return: `no_rows` (default for `hard` and `baseline`), `rows` (default for `info`),
    /// `same_as_source` (the rows that the source returned at backup time) or `fresh` (the last column of a row holds
    /// a time that is recent enough).
    pub(super) expect: Option<Located<Expectation>>,
    /// With `severity = "baseline"`: whether the source is asked at backup time and its answer must come back; default true.
    pub(super) compare: Option<bool>,
    /// With `expect = "fresh"`: how old the newest row may be at the restore target; absent: the RPO objective.
    pub(super) max_age: Option<Located<Span>>,
    /// Why it matters, for somebody who does not read SQL.
    pub(super) why: Located<String>,
    /// Longest run time; default `5m`.
    pub(super) timeout: Option<Located<Span>>,
}

/// A page that the restored Odoo must serve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Http")]
pub(super) struct RawHttp {
    /// Path and query, beginning with `/`; `{database}` stands for the database's name.
    pub(super) path: Located<String>,
    /// The status that it must answer with; default 200.
    pub(super) status: Option<Located<u16>>,
    /// A text that the answer must hold.
    pub(super) contains: Option<Located<String>>,
    /// The type of the answer, as `text/html`; parameters such as the character set count only where they are given.
    pub(super) content_type: Option<Located<String>>,
    /// SHA-256 of the answer's content, in hexadecimal.
    pub(super) sha256: Option<Located<String>>,
    /// Whether the user asks that the drill logs in as, an administrator of the copy; default false: nobody is logged in.
    #[serde(default)]
    pub(super) login: bool,
}

/// A program that is run on the restored copy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CheckCommand")]
pub(super) struct RawCommand {
    /// Absolute path of the program, and its arguments.
    pub(super) run: Located<Vec<Located<String>>>,
    /// The exit code that means success; default 0.
    pub(super) exit_code: Option<i32>,
    /// A regular expression that its standard output must match.
    pub(super) output: Option<Located<String>>,
}

//! Asserts that a database is neutralised: each assertion becomes a hard check of the drill.

use std::time::Instant;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::statements::{Schema, assertions, steps};
use crate::checks::row_text;
use crate::drill::asserted::Asserted;
use crate::error::Result;
use crate::evidence::drill_record::{Check, CheckResult};
use crate::evidence::odoo_record::Neutralised;
use crate::postgres::sql::explain;

/// Offending rows that are kept as evidence.
const ROWS_KEPT: usize = 5;

/// Identity and secret of a database, as Odoo keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uuid: Option<String>,
    pub(super) secret: Option<String>,
}

impl Identity {
    pub(super) async fn read(client: &Client) -> Result<Self> {
        let sql = "SELECT key::text, value::text FROM public.ir_config_parameter
                    WHERE key IN ('database.uuid', 'database.secret')";
        let rows = client.query(sql, &[]).await.map_err(|e| explain(e, "cannot read the database's identity"))?;
        let mut identity = Self::default();
        for row in rows {
            match row.get::<_, String>(0).as_str() {
                "database.uuid" => identity.uuid = row.get(1),
                _ => identity.secret = row.get(1),
            }
        }
        Ok(identity)
    }
}

/// Every assertion about one database. `client` is a session in it that never wrote.
pub(super) async fn verify(
    client: &Client,
    base_url: &str,
    record: &Neutralised,
    before: &Identity,
    imported: u64,
) -> Result<Vec<Check>> {
    let failed = |e| explain(e, format!("cannot verify that {} is neutralised", record.database));
    let set = "SELECT set_config('lifeboat.base_url', $1, false), set_config('search_path', 'public', false),
                      set_config('default_transaction_read_only', 'on', false)";
    client.execute(set, &[&base_url]).await.map_err(failed)?;
    let mut checks = vec![sources(record, imported)];
    let schema = Schema::read(client).await?;
    for assertion in assertions().assertion {
        let statements: Vec<String> =
            assertion.none.iter().filter(|s| schema.applies(s)).map(|s| s.sql.clone()).collect();
        let asserted = Asserted::hard(&assertion.id, &assertion.title, &assertion.why);
        checks.push(ask(client, &record.database, &asserted, &statements).await);
    }
    let credentials: Vec<String> =
        schema.columns(&steps().clear).iter().map(super::statements::Column::offences).collect();
    let asserted = Asserted::hard(
        "N3",
        "No credential of an outside account is left",
        "Whoever reads the copy, or code that runs in it, could use them.",
    );
    checks.push(ask(client, &record.database, &asserted, &credentials).await);
    checks.push(identity(&record.database, before, &Identity::read(client).await?));
    Ok(checks)
}

/// Runs the statements, of which none may give a row.
async fn ask(client: &Client, database: &str, asserted: &Asserted<'_>, statements: &[String]) -> Check {
    let began = Instant::now();
    if statements.is_empty() {
        let detail = "nothing of the kind is installed".to_owned();
        return asserted.check(database, CheckResult::NotApplicable, detail, Vec::new(), began);
    }
    let (mut count, mut rows) = (0, Vec::new());
    for statement in statements {
        match client.simple_query(statement).await {
            Ok(answer) => {
                let found = answer.iter().filter_map(|m| match m {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                for row in found {
                    count += 1;
                    if rows.len() < ROWS_KEPT {
                        rows.push(row_text(row));
                    }
                }
            }
            Err(e) => {
                let detail = explain(e, "cannot ask").to_string();
                return asserted.check(database, CheckResult::Error, detail, rows, began);
            }
        }
    }
    let (result, detail) = match count {
        0 => (CheckResult::Passed, format!("{} place(s) looked at", statements.len())),
        n => (CheckResult::Failed, format!("{n} offending row(s)")),
    };
    asserted.check(database, result, detail, rows, began)
}

/// N1: nothing was left out because its code is not here.
fn sources(record: &Neutralised, imported: u64) -> Check {
    let began = Instant::now();
    let asserted = Asserted::hard(
        "N1",
        "Every installed module had its say in neutralising",
        "A module whose code is not found is left out without a word, and its connections stay live.",
    );
    let refused: Vec<String> =
        record.unneutralised.iter().filter(|m| !record.allowed.contains(m)).map(|m| format!("module={m}")).collect();
    let mut detail = format!(
        "{} modules are installed, {} have a script of their own, {} were not found",
        record.modules,
        record.scripts.len(),
        record.unneutralised.len()
    );
    if imported > 0 {
        detail += &format!(", {imported} were imported as data and have no code");
    }
    if !record.allowed.is_empty() {
        detail += &format!("; allowed by the configuration: {}", record.allowed.join(", "));
    }
    let result = if refused.is_empty() { CheckResult::Passed } else { CheckResult::Failed };
    asserted.check(&record.database, result, detail, refused, began)
}

/// N7: the copy is not taken for the original.
fn identity(database: &str, before: &Identity, after: &Identity) -> Check {
    let began = Instant::now();
    let asserted = Asserted::hard(
        "N7",
        "The copy has an identity and a secret of its own",
        "With the original's, its sessions and signed links are valid on both, and outside services take it for the original.",
    );
    let mut rows = Vec::new();
    for (name, before, after) in
        [("database.uuid", &before.uuid, &after.uuid), ("database.secret", &before.secret, &after.secret)]
    {
        match after {
            None => rows.push(format!("{name} is missing")),
            Some(_) if before == after => rows.push(format!("{name} is that of the original")),
            Some(value) if value.len() < 32 => rows.push(format!("{name} is too short")),
            Some(_) => {}
        }
    }
    let (result, detail) = match rows.len() {
        0 => (CheckResult::Passed, "both are new".to_owned()),
        n => (CheckResult::Failed, format!("{n} of 2 are not new")),
    };
    asserted.check(database, result, detail, rows, began)
}

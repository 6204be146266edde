//! The data files beside this code, and what of them applies to a database: only statements whose tables and
//! columns are there are run, because no two Odoo databases have the same modules.

use std::collections::BTreeSet;

use serde::Deserialize;
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::sql::explain;

/// What Lifeboat does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Steps {
    /// `table.column`s that hold credentials.
    pub(super) clear: Vec<String>,
    pub(super) step: Vec<Statement>,
}

/// What must hold afterwards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assertions {
    pub(super) assertion: Vec<Assertion>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assertion {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) why: String,
    pub(super) none: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
    pub(super) sql: String,
}

pub(super) fn steps() -> Steps {
    toml::from_str(include_str!("steps.toml")).expect("the program's own file parses: a test says so")
}

pub(super) fn assertions() -> Assertions {
    toml::from_str(include_str!("assertions.toml")).expect("the program's own file parses: a test says so")
}

/// A column that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) table: String,
    pub(super) name: String,
    nullable: bool,
}

impl Column {
    /// The statement that takes the credential away.
    pub(super) fn clear(&self) -> String {
        let empty = if self.nullable { "NULL" } else { "''" };
        format!("UPDATE public.{} SET {} = {empty} WHERE {}", self.table, self.name, self.filled())
    }

    /// The statement that shows rows where it is still there, without showing it.
    pub(super) fn offences(&self) -> String {
        let (table, name) = (&self.table, &self.name);
        format!("SELECT '{table}.{name}' AS credential, id FROM public.{table} WHERE {}", self.filled())
    }

    fn filled(&self) -> String {
        format!("coalesce({}::text, '') NOT IN ('', '\\x')", self.name)
    }
}

/// Tables and columns of one database.
#[derive(Debug)]
pub(in crate::drill) struct Schema(BTreeSet<String>, BTreeSet<String>);

impl Schema {
    /// Reads which plain tables there are: a view would run its owner's functions.
    pub(in crate::drill) async fn read(client: &Client) -> Result<Self> {
        let sql = "SELECT c.relname::text, a.attname::text, a.attnotnull
                     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')";
        let rows = client.query(sql, &[]).await.map_err(|e| explain(e, "cannot read which tables there are"))?;
        let (mut known, mut not_null) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            let name = format!("{table}.{column}");
            if row.get(2) {
                not_null.insert(name.clone());
            }
            known.insert(name);
            known.insert(table);
        }
        Ok(Self(known, not_null))
    }

    /// Whether a table or `table.column` is there.
    pub(in crate::drill) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    pub(super) fn applies(&self, statement: &Statement) -> bool {
        statement.needs.iter().all(|n| self.has(n)) && !statement.lacks.iter().any(|n| self.has(n))
    }

    /// Those of the listed columns that are there.
    pub(super) fn columns(&self, listed: &[String]) -> Vec<Column> {
        let there = listed.iter().filter(|name| self.has(name));
        let split = there.filter_map(|full| full.split_once('.').map(|(table, name)| (full, table, name)));
        split
            .map(|(full, table, name)| Column {
                table: table.to_owned(),
                name: name.to_owned(),
                nullable: !self.1.contains(full),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_parse_and_ids_do_not_repeat() {
        let (steps, assertions) = (steps(), assertions());
        assert!(steps.step.len() > 25 && steps.step.iter().all(|s| !s.id.is_empty() && !s.needs.is_empty()));
        let ids: BTreeSet<&str> = assertions.assertion.iter().map(|a| a.id.as_str()).collect();
        assert_eq!(ids.len(), assertions.assertion.len());
        for taken in ["N1", "N3", "N7"] {
            assert!(!ids.contains(taken), "{taken} belongs to the code");
        }
        for column in &steps.clear {
            assert!(column.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.')), "{column}");
        }
    }
}

//! Everything that a database consists of, as a list of lines that can be compared: what is in one and not in the
//! other, or differs, is a difference. So a load that a program calls successful has to prove it.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::sql::explain;

/// What is there: kind and name, and what is said of it.
pub(super) type Objects = BTreeMap<(String, String), String>;

/// How many tables are asked about in one statement.
const TABLES_AT_ONCE: usize = 64;

/// A summary for records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Tables.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Indexes.
    pub indexes: u64,
    /// Constraints.
    pub constraints: u64,
    /// Sequences.
    pub sequences: u64,
    /// Everything that was compared.
    pub objects: u64,
}

/// Lists everything in the database behind a session.
pub(super) async fn list(client: &Client) -> Result<Objects> {
    let cannot = |e| explain(e, "cannot list what the database consists of");
    client
        .batch_execute("SET search_path = pg_catalog; SET row_security = off; SET statement_timeout = 0")
        .await
        .map_err(cannot)?;
    let rows = client.query(include_str!("objects.sql"), &[]).await.map_err(cannot)?;
    let mut objects = Objects::new();
    let (mut tables, mut sequences) = (Vec::new(), Vec::new());
    for row in rows {
        let (kind, name, detail): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        match kind.as_str() {
            "table" => tables.push(name.clone()),
            "sequence" => sequences.push(name.clone()),
            _ => {}
        }
        objects.insert((kind, name), detail);
    }
    let literal = |name: &String| format!("'{}'", name.replace('\'', "''"));
    let count = |name: &String| format!("SELECT {}, count(*)::text FROM ONLY {name}", literal(name));
    asked(client, "rows", &tables, count, &mut objects).await?;
    let value = |name: &String| format!("SELECT {}, last_value || ' ' || is_called FROM {name}", literal(name));
    asked(client, "value of sequence", &sequences, value, &mut objects).await?;
    Ok(objects)
}

async fn asked(
    client: &Client,
    kind: &str,
    names: &[String],
    question: impl Fn(&String) -> String,
    objects: &mut Objects,
) -> Result<()> {
    for some in names.chunks(TABLES_AT_ONCE) {
        let sql: Vec<String> = some.iter().map(&question).collect();
        let rows = client
            .query(&sql.join(" UNION ALL "), &[])
            .await
            .map_err(|e| explain(e, format!("cannot ask for the {kind}")))?;
        for row in rows {
            objects.insert((kind.to_owned(), row.get(0)), row.get(1));
        }
    }
    Ok(())
}

/// Kinds whose text other major versions of PostgreSQL print in another way: then only their existence is compared.
const PRINTED: [&str; 2] = ["view", "rule"];

/// What differs, in words; `same_major` says whether both servers print alike.
pub(super) fn differences(wanted: &Objects, found: &Objects, same_major: bool) -> Vec<String> {
    let mut differences = Vec::new();
    for ((kind, name), detail) in wanted {
        match found.get(&(kind.clone(), name.clone())) {
            None => differences.push(format!("{kind} {name} is missing")),
            Some(_) if !same_major && PRINTED.contains(&kind.as_str()) => {}
            Some(other) if other != detail => {
                differences.push(format!("{kind} {name} is ({other}) instead of ({detail})"));
            }
            Some(_) => {}
        }
    }
    let more = found.keys().filter(|key| !wanted.contains_key(*key));
    differences.extend(more.map(|(kind, name)| format!("{kind} {name} is there, but was not in the original")));
    differences
}

/// Counts a list.
pub(super) fn counted(objects: &Objects) -> Counted {
    let of = |kind: &str| objects.keys().filter(|(k, _)| k == kind).count() as u64;
    Counted {
        tables: of("table"),
        rows: objects.iter().filter(|((k, _), _)| k == "rows").filter_map(|(_, n)| n.parse::<u64>().ok()).sum(),
        indexes: of("index"),
        constraints: of("constraint"),
        sequences: of("sequence"),
        objects: objects.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_differ_is_a_difference() {
        let objects = |list: &[(&str, &str, &str)]| -> Objects {
            list.iter().map(|(k, n, d)| (((*k).to_owned(), (*n).to_owned()), (*d).to_owned())).collect()
        };
        let wanted = objects(&[("table", "a", ""), ("rows", "a", "5"), ("view", "v", "x"), ("index", "i", "d")]);
        assert_eq!(differences(&wanted, &wanted, true), Vec::<String>::new());
        let found = objects(&[("table", "a", ""), ("rows", "a", "4"), ("view", "v", "y"), ("table", "b", "")]);
        let told = differences(&wanted, &found, true);
        assert_eq!(
            told,
            [
                "index i is missing",
                "rows a is (4) instead of (5)",
                "view v is (y) instead of (x)",
                "table b is there, but was not in the original"
            ]
        );
        assert!(!differences(&wanted, &found, false).iter().any(|d| d.starts_with("view")));
    }
}

//! Damage that must be found in databases of every series, and damage that an index hides.

use std::path::Path;

use crate::common::{Cluster, ODOO_TABLES, Scratch, fixture_of, skip};

use super::{ALL, LONG, odoo, outcomes};

#[test]
fn damage_to_databases_of_older_series_is_found_too() {
    let fixtures: Vec<_> = [16, 17, 18].into_iter().filter_map(|series| Some((series, fixture_of(series)?))).collect();
    if fixtures.is_empty() {
        skip!("no databases of Odoo 16 to 18 (LIFEBOAT_TEST_FIXTURES, LIFEBOAT_TEST_ODOO)")
    }
    for (series, fixture) in &fixtures {
        let site = odoo(fixture, &ALL);
        let reports = site.estate.scratch.join("reports").display().to_string();
        let told = site.estate.spawn(&["drill", "selftest", "--report", &reports]).wait(LONG).json();
        let found = outcomes(&told["drill"]);
        println!("Odoo {series}: {found:?}");
        for (id, outcome, by) in &found {
            match id.as_str() {
                "mail-server-revived" => assert_eq!(outcome, "skipped"),
                _ => assert!(outcome == "found" && !by.is_empty(), "Odoo {series}: {id}: {outcome}\n{told}"),
            }
        }
        assert_eq!(found.len(), 13, "Odoo {series}: {found:?}");
        site.assert_nothing_left();
    }
}

#[test]
fn rows_are_counted_where_they_lie_and_not_in_an_index() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    cluster.psql("postgres", ODOO_TABLES);
    cluster.psql(
        "postgres",
        "CREATE TABLE wide (id serial PRIMARY KEY, x text); INSERT INTO wide (x) SELECT repeat('x', 400) FROM generate_series(1, 50000)",
    );
    cluster.psql("postgres", "VACUUM (FREEZE, ANALYZE) wide");
    let file = cluster.data_dir().join(cluster.psql("postgres", "SELECT pg_relation_filepath('wide')"));
    // The last tenth of the table is gone; its index, and the map that says that nobody need look, are whole.
    cluster.stop();
    let table = std::fs::OpenOptions::new().write(true).open(&file).expect("the table's file");
    let pages = table.metadata().expect("a file").len() / 8192;
    table.set_len(pages * 9 / 10 * 8192).expect("cut off");
    drop(table);
    cluster.start();
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM wide"), "50000", "the index is not asked any more");

    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/odoo-fingerprint.toml").display().to_string();
    let dsn = cluster.dsn();
    let arguments = ["--format", "json", "drill", "check", &suite, "--dsn", &dsn, "--database", "postgres"];
    let told = crate::common::Lifeboat::new("/nowhere.toml").run(&arguments).json();
    let rows = super::check(&told, "X1").to_string();
    assert!(rows.contains("table_name=wide rows=45") || rows.contains("table_name=wide rows=44"), "{rows}");
}

//! The shop in a real PostgreSQL, judged by the HARD checks that a drill uses.

use std::path::Path;

use chrono::{DateTime, Utc};
use sha1::{Digest, Sha1};

use super::common::{Cluster, Scratch};
use super::{Scale, load, sell_once, sold};

fn noon() -> DateTime<Utc> {
    "2026-08-14T12:00:00Z".parse().expect("a time")
}

/// Statements of `odoo-checks.sql` that must give no row; those that make statements of their own are run too.
const HARD: &[(&str, &str)] = &[
    (
        "A1",
        "SELECT l.move_id FROM account_move_line l JOIN account_move m ON m.id = l.move_id JOIN res_company c ON c.id = m.company_id
           JOIN res_currency cur ON cur.id = c.currency_id GROUP BY l.move_id, cur.decimal_places
         HAVING ROUND(SUM(l.balance)::numeric, cur.decimal_places) <> 0",
    ),
    ("A2", "SELECT id FROM account_move_line WHERE ABS(balance - (debit - credit)) > 0.000001"),
    ("A3", "SELECT id FROM account_move WHERE state = 'posted' AND (name IS NULL OR name IN ('/', '', 'False'))"),
    ("A5", "SELECT l.id FROM account_move_line l JOIN account_move m ON m.id = l.move_id WHERE l.parent_state IS DISTINCT FROM m.state"),
    (
        "A6",
        "SELECT l.id FROM account_move_line l JOIN account_account a ON a.id = l.account_id
           LEFT JOIN (SELECT debit_move_id AS id, SUM(amount) AS amt FROM account_partial_reconcile GROUP BY 1) d ON d.id = l.id
           LEFT JOIN (SELECT credit_move_id AS id, SUM(amount) AS amt FROM account_partial_reconcile GROUP BY 1) k ON k.id = l.id
          WHERE a.reconcile AND ABS(l.amount_residual - (l.balance - COALESCE(d.amt, 0) + COALESCE(k.amt, 0))) > 0.01",
    ),
    (
        "S1",
        "WITH ml AS (SELECT product_id, location_dest_id AS location_id, quantity_product_uom AS q FROM stock_move_line WHERE state = 'done'
                     UNION ALL SELECT product_id, location_id, -quantity_product_uom FROM stock_move_line WHERE state = 'done'),
              f AS (SELECT product_id, location_id, SUM(q) AS q FROM ml GROUP BY 1, 2),
              q AS (SELECT product_id, location_id, SUM(quantity) AS q FROM stock_quant GROUP BY 1, 2)
         SELECT * FROM f FULL JOIN q USING (product_id, location_id)
           JOIN stock_location l ON l.id = COALESCE(f.location_id, q.location_id) AND l.usage IN ('internal', 'transit', 'customer')
          WHERE ABS(COALESCE(q.q, 0) - COALESCE(f.q, 0)) > 0.0001",
    ),
    ("S2", "SELECT q.id FROM stock_quant q JOIN stock_location l ON l.id = q.location_id WHERE l.usage = 'internal' AND q.quantity < 0"),
    (
        "P1",
        "SELECT o.id FROM pos_order o LEFT JOIN (SELECT pos_order_id, SUM(amount) AS amt FROM pos_payment GROUP BY 1) p ON p.pos_order_id = o.id
          WHERE ABS(o.amount_paid - COALESCE(p.amt, 0)) > 0.005",
    ),
    (
        "P3",
        "SELECT o.id FROM pos_order o LEFT JOIN pos_order_line l ON l.order_id = o.id GROUP BY o.id
         HAVING ABS(o.amount_total - COALESCE(SUM(l.price_subtotal_incl), 0)) > 0.01",
    ),
    ("O1", "SELECT id FROM sale_order WHERE ABS(amount_total - (amount_untaxed + amount_tax)) > 0.005"),
    (
        "G1",
        "SELECT format('SELECT %L FROM (SELECT MAX(%I) AS top FROM %I) m, %s s WHERE m.top > s.last_value', c.relname, a.attname, c.relname,
                       pg_get_serial_sequence(c.relname, a.attname)) AS run
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
          WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND pg_get_serial_sequence(c.relname, a.attname) IS NOT NULL",
    ),
    (
        "G2",
        "SELECT format('SELECT %L FROM %s c LEFT JOIN %s p ON p.%I = c.%I WHERE c.%I IS NOT NULL AND p.%I IS NULL', con.conname,
                       con.conrelid::regclass, con.confrelid::regclass, pa.attname, ca.attname, ca.attname, pa.attname) AS run
           FROM pg_constraint con JOIN pg_attribute ca ON ca.attrelid = con.conrelid AND ca.attnum = con.conkey[1]
           JOIN pg_attribute pa ON pa.attrelid = con.confrelid AND pa.attnum = con.confkey[1] WHERE con.contype = 'f'",
    ),
    ("G3", "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid OR NOT indisready"),
    (
        "G4",
        "SELECT id FROM ir_sequence WHERE implementation = 'standard'
            AND to_regclass(format('ir_sequence_%s', lpad(id::text, GREATEST(3, length(id::text)), '0'))) IS NULL",
    ),
    ("F3", "SELECT id FROM ir_attachment WHERE store_fname IS NOT NULL AND checksum IS DISTINCT FROM split_part(store_fname, '/', 2)"),
];

/// Names of the checks that are not clean.
fn failing(cluster: &Cluster) -> Vec<&'static str> {
    let dirty = |(name, sql): &(&'static str, &str)| {
        let mut found = cluster.psql("shop", sql);
        if matches!(*name, "G1" | "G2") {
            assert!(found.lines().count() > 30, "{name} makes statements");
            found = cluster.psql("shop", &found.replace('\n', ";\n"));
        }
        (!found.is_empty()).then_some(*name)
    };
    HARD.iter().filter_map(dirty).collect()
}

/// Every file that the database refers to is there, with the content that its name and row say.
fn assert_files(cluster: &Cluster, filestore: &Path) -> usize {
    let rows =
        cluster.psql("shop", "SELECT DISTINCT store_fname, file_size FROM ir_attachment WHERE store_fname IS NOT NULL");
    for row in rows.lines() {
        let (name, size) = row.split_once('|').expect("two columns");
        let content = std::fs::read(filestore.join(name)).expect("a file");
        assert_eq!(content.len().to_string(), size);
        assert_eq!(format!("{}/{}", &name[..2], hex::encode(Sha1::digest(&content))), name);
    }
    rows.lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_is_clean_when_loaded_and_after_live_sales() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    let filestore = scratch.join("filestore/shop");
    let client = cluster.connect("shop").await;

    let summary = load(&client, &filestore, &Scale { orders: 400, ..Scale::standard(noon()) }).await.expect("loads");
    assert_eq!(summary.orders, 400);
    assert_eq!(failing(&cluster), Vec::<&str>::new());
    assert_eq!(assert_files(&cluster, &filestore) as u64, summary.files);
    assert_eq!(sold(&client).await.expect("counts"), Vec::<u64>::new());

    for n in 1..=60 {
        let sale = sell_once(&client, &filestore, n).await.expect("sells");
        assert_eq!(sale.attachment.is_some(), n % 20 == 0);
        assert!(!sale.order.is_empty());
    }
    assert_eq!(failing(&cluster), Vec::<&str>::new());
    assert_eq!(assert_files(&cluster, &filestore) as u64, summary.files + 3);
    assert_eq!(sold(&client).await.expect("counts"), (1..=60).collect::<Vec<u64>>());

    // A number sells once; the refusal leaves the connection usable and the books as they were.
    assert!(sell_once(&client, &filestore, 60).await.is_err());
    sell_once(&client, &filestore, 61).await.expect("sells");
    assert_eq!(failing(&cluster), Vec::<&str>::new());

    // The checks can fail: damage turns them red.
    cluster.psql("shop", "UPDATE pos_payment SET amount = amount + 1 WHERE id = 5; UPDATE stock_quant SET quantity = quantity + 1 WHERE id = 9");
    assert_eq!(failing(&cluster), ["S1", "P1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_scale_draws_the_same_shop() {
    let mut drawn = Vec::new();
    for seed in [1, 1, 2] {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start();
        cluster.psql("postgres", "CREATE DATABASE shop");
        let client = cluster.connect("shop").await;
        let scale = Scale { seed, now: noon(), orders: 100 };
        load(&client, &scratch.join("filestore"), &scale).await.expect("loads");
        let digest = |table: &str| {
            cluster.psql("shop", &format!("SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM {table} t"))
        };
        drawn.push(["account_move_line", "pos_order", "stock_quant", "ir_attachment", "mail_message"].map(digest));
    }
    assert_eq!(drawn[0], drawn[1]);
    assert!(drawn[0].iter().zip(&drawn[2]).all(|(one, other)| one != other));
}

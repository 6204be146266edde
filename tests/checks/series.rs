//! The library of checks on every series of Odoo: on schemas with the columns that each series has, every statement
//! runs, and applies where it should. (On a real Odoo 19 the self-test runs them.)

use std::path::Path;

use serde_json::Value;

use crate::common::{Cluster, Estate, Scratch};

/// Tables and columns that Odoo 14 to 18 have in common, as their models declare them.
const COMMON: &str = "
CREATE TABLE ir_module_module (id serial PRIMARY KEY, name varchar, state varchar, latest_version varchar);
CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key varchar, value text);
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, type varchar, res_model varchar, res_id int, res_field varchar,
  store_fname varchar, db_datas bytea, file_size int, checksum varchar(40), create_date timestamp, write_date timestamp);
CREATE TABLE ir_cron (id serial PRIMARY KEY, cron_name varchar, active bool, interval_number int, interval_type varchar,
  nextcall timestamp, lastcall timestamp);
CREATE TABLE ir_sequence (id serial PRIMARY KEY, name varchar, code varchar, implementation varchar);
CREATE TABLE mail_message (id serial PRIMARY KEY, create_date timestamp);
CREATE TABLE res_currency (id serial PRIMARY KEY, decimal_places int);
CREATE TABLE res_company (id serial PRIMARY KEY, currency_id int);
CREATE TABLE res_partner (id serial PRIMARY KEY, active bool);
CREATE TABLE res_users (id serial PRIMARY KEY, active bool);
CREATE TABLE res_users_log (id serial PRIMARY KEY, create_date timestamp);
CREATE TABLE account_account (id serial PRIMARY KEY, reconcile bool);
CREATE TABLE account_move (id serial PRIMARY KEY, name varchar, state varchar, journal_id int, company_id int, date date,
  sequence_prefix varchar, sequence_number int, amount_total_signed numeric, write_date timestamp);
CREATE TABLE account_move_line (id serial PRIMARY KEY, move_id int, company_id int, account_id int, debit numeric, credit numeric,
  balance numeric, amount_residual numeric, parent_state varchar);
CREATE TABLE account_partial_reconcile (id serial PRIMARY KEY, debit_move_id int, credit_move_id int, amount numeric);
CREATE TABLE account_cash_rounding (id serial PRIMARY KEY, rounding double precision);
CREATE TABLE stock_location (id serial PRIMARY KEY, usage varchar);
CREATE TABLE stock_move (id serial PRIMARY KEY, write_date timestamp);
CREATE TABLE stock_quant (id serial PRIMARY KEY, company_id int, product_id int, location_id int, quantity double precision,
  reserved_quantity double precision);
CREATE TABLE stock_move_line (id serial PRIMARY KEY, product_id int, location_id int, location_dest_id int, product_uom_id int, state varchar);
CREATE TABLE stock_valuation_layer (id serial PRIMARY KEY, company_id int, product_id int, quantity numeric, value numeric);
CREATE TABLE uom_uom (id serial PRIMARY KEY, factor numeric);
CREATE TABLE product_template (id serial PRIMARY KEY, uom_id int, type varchar);
CREATE TABLE product_product (id serial PRIMARY KEY, product_tmpl_id int);
CREATE TABLE sale_order (id serial PRIMARY KEY, name varchar, company_id int, state varchar, date_order timestamp,
  amount_untaxed numeric, amount_tax numeric, amount_total numeric, write_date timestamp);
CREATE TABLE sale_order_line (id serial PRIMARY KEY, order_id int, display_type varchar, price_subtotal numeric);
CREATE TABLE pos_config (id serial PRIMARY KEY, cash_rounding bool, rounding_method int);
CREATE TABLE pos_session (id serial PRIMARY KEY, name varchar, config_id int, state varchar);
CREATE TABLE pos_order (id serial PRIMARY KEY, name varchar, session_id int, state varchar, date_order timestamp,
  amount_total numeric, amount_paid numeric, write_date timestamp);
CREATE TABLE pos_order_line (id serial PRIMARY KEY, order_id int, price_subtotal_incl numeric);
CREATE TABLE pos_payment (id serial PRIMARY KEY, pos_order_id int, amount numeric);
INSERT INTO product_template (uom_id, type) VALUES (1, 'product');
INSERT INTO product_product (product_tmpl_id) VALUES (1);
INSERT INTO uom_uom (factor) VALUES (1), (0.5);
INSERT INTO stock_location (usage) VALUES ('internal'), ('supplier');
INSERT INTO stock_quant (company_id, product_id, location_id, quantity, reserved_quantity) VALUES (1, 1, 1, 6, 0);
INSERT INTO stock_move_line (product_id, location_id, location_dest_id, product_uom_id, state) VALUES (1, 2, 1, 2, 'done');";

/// What each series adds: how much was moved, and which products are stored.
const SERIES: [(u32, &str); 4] = [
    (14, "ALTER TABLE stock_move_line ADD qty_done numeric DEFAULT 3"),
    (16, "ALTER TABLE stock_move_line ADD qty_done numeric DEFAULT 3; ALTER TABLE product_template ADD detailed_type varchar DEFAULT 'product'"),
    (17, "ALTER TABLE stock_move_line ADD quantity numeric DEFAULT 3, ADD quantity_product_uom double precision DEFAULT 6;
          ALTER TABLE product_template ADD detailed_type varchar DEFAULT 'product'"),
    (18, "ALTER TABLE stock_move_line ADD quantity numeric DEFAULT 3, ADD quantity_product_uom double precision DEFAULT 6;
          ALTER TABLE product_template ADD is_storable bool DEFAULT true"),
];

/// The check of stock that belongs to a series.
fn stock(series: u32) -> &'static str {
    match series {
        14..=16 => "S1-16",
        17 => "S1-17",
        _ => "S1",
    }
}

#[test]
fn the_library_runs_on_every_series() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests");
    for (series, more) in SERIES {
        let database = format!("odoo{series}");
        cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        cluster.psql(&database, COMMON);
        cluster.psql(&database, more);
        let module = format!(
            "INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '{series}.0.1.3')"
        );
        cluster.psql(&database, &module);
        for suite in ["odoo-hard", "odoo-baseline", "odoo-fingerprint", "odoo-fresh", "odoo-facts"] {
            let file = folder.join(format!("{suite}.toml")).display().to_string();
            let told = estate.run(&["drill", "check", &file, "--database", &database]).ok().json();
            let checks: Vec<&Value> =
                told["checks"].as_array().expect("checks").iter().filter(|c| c["scope"] == database.as_str()).collect();
            assert!(!checks.is_empty(), "{suite} asks {database} nothing");
            for check in checks {
                let id = check["id"].as_str().expect("an id");
                assert_ne!(check["result"], "error", "{database}: {check}");
                // What does not apply is meant for another series.
                let stock_of_another = id.starts_with("S1") && id != stock(series);
                let too_new = id == "P1" && series < 16;
                let absent = check["result"] == "not_applicable" && id != "M7";
                assert_eq!(absent, stock_of_another || too_new, "{database}: {check}");
            }
        }
        let stocked = |quantity: u32| {
            cluster.psql(&database, &format!("UPDATE stock_quant SET quantity = {quantity}"));
            let file = folder.join("odoo-baseline.toml").display().to_string();
            let told = estate.run(&["drill", "check", &file, "--database", &database]).ok().json();
            let checks = told["checks"].as_array().expect("checks").clone();
            checks.into_iter().find(|c| c["id"] == stock(series)).expect("the check")["result"].clone()
        };
        // Three of a unit of two are six.
        assert_eq!((stocked(6), stocked(5)), ("passed".into(), "failed".into()), "{database}");
    }
}

//! Neutralising real databases: the fixture Odoo 19, and small schemas of other versions.

use super::{AddonsPaths, Neutralisation, Settings, run};
use crate::drill::testing::Copy;
use crate::drill::testing::common::{RealOdoo, Scratch, load_fixture, skip};
use crate::error::ErrorKind;
use crate::evidence::drill_record::{Check, CheckResult};

const BASE_URL: &str = "http://127.0.0.1:8169";

impl Copy {
    async fn neutralise(&self, allow: &[&str]) -> crate::error::Result<Vec<Neutralisation>> {
        let allow: Vec<String> = allow.iter().map(|m| (*m).to_owned()).collect();
        let addons = AddonsPaths::from(vec![self.addons.clone()]);
        run(&self.server, &Settings { addons: &addons, allow: &allow, base_url: BASE_URL }).await
    }

    async fn verdicts(&self, database: &str, done: &Neutralisation) -> Vec<Check> {
        let before = super::verify::Identity { uuid: done.record.uuid_before.clone(), secret: None };
        let client = self.server.sql(database).await.expect("a session");
        super::verify::verify(&client, BASE_URL, &done.record, &before, 0).await.expect("verified")
    }
}

fn result(checks: &[Check], id: &str) -> CheckResult {
    checks.iter().find(|c| c.id == id).unwrap_or_else(|| panic!("no {id}")).result
}

fn red(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|c| c.fails_the_drill()).map(|c| c.id.as_str()).collect()
}

/// What every Odoo has, as small as it can be; without `more` that of Odoo 14.
const SMALL: &str = "
CREATE TABLE ir_module_module (id serial, name text, state text, latest_version text);
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '14.0.1.3'), ('gone', 'uninstalled', '1');
CREATE TABLE ir_config_parameter (id serial, key text UNIQUE, value text);
INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', '62242238-e6a9-11f1-a45e-02fc00000001'),
  ('database.secret', '05d09aaf-e3bd-4158-81de-967b2ea523b4'), ('database.enterprise_code', 'M123'), ('web.base.url', 'https://shop.example.com');
CREATE TABLE ir_mail_server (id serial, name text NOT NULL, smtp_host text NOT NULL, smtp_port int NOT NULL,
  smtp_encryption text NOT NULL, smtp_user text, smtp_pass text, active bool);
INSERT INTO ir_mail_server (name, smtp_host, smtp_port, smtp_encryption, smtp_user, smtp_pass, active) VALUES ('out', 'smtp.example.com', 587, 'starttls', 'shop', 'hunter2', true);
CREATE TABLE ir_cron (id serial, active bool, cron_name text); INSERT INTO ir_cron (active) VALUES (true), (true);
CREATE TABLE fetchmail_server (id serial, name text, server text, active bool, password text NOT NULL);
INSERT INTO fetchmail_server (name, server, active, password) VALUES ('in', 'imap.example.com', true, 'hunter2');
CREATE TABLE payment_acquirer (id serial, provider text, state text); INSERT INTO payment_acquirer (provider, state) VALUES ('stripe', 'enabled');
CREATE TABLE mail_mail (id serial, state text); INSERT INTO mail_mail (state) VALUES ('outgoing'), ('sent');
CREATE TABLE queue_job (id serial, state text); INSERT INTO queue_job (state) VALUES ('pending');
";

async fn small() -> Copy {
    let copy = Copy::new(Scratch::new(), |cluster| {
        cluster.psql("postgres", "CREATE DATABASE shop");
        cluster.psql("shop", SMALL);
    })
    .await;
    copy.module("base", None);
    copy
}

#[tokio::test]
async fn odoo_14_has_no_scripts_and_is_neutralised_all_the_same() {
    let copy = small().await;
    let done = copy.neutralise(&[]).await.expect("neutralised");
    let [shop] = done.as_slice() else { panic!("{done:?}") };
    assert!(shop.is_proven(), "{:?}", shop.checks);
    assert_eq!((shop.record.odoo, shop.record.modules, shop.record.scripts.len()), (14, 1, 0));
    for id in ["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N10", "N14", "N15"] {
        assert_eq!(result(&shop.checks, id), CheckResult::Passed, "{id}");
    }
    assert_eq!(result(&shop.checks, "N9"), CheckResult::NotApplicable, "14 has no webhooks");
    let facts = "SELECT concat_ws(' ', (SELECT string_agg(smtp_host || coalesce(smtp_pass, ''), ',') FROM ir_mail_server WHERE active),
                        (SELECT password FROM fetchmail_server), (SELECT string_agg(state, ',' ORDER BY id) FROM mail_mail),
                        (SELECT count(*) FROM ir_cron WHERE active))";
    assert_eq!(copy.ask("shop", facts).await, "invalid  cancel,sent 0");
    let hosts: Vec<&str> = shop.record.silenced.iter().map(|s| s.host.as_str()).collect();
    assert_eq!(hosts, ["imap.example.com", "smtp.example.com"]);
    assert_ne!(shop.record.uuid_after, shop.record.uuid_before);

    // Twice is once: the dummy server is not inserted again.
    let again = copy.neutralise(&[]).await.expect("neutralised");
    assert!(again[0].is_proven());
    assert_eq!(copy.ask("shop", "SELECT count(*)::text FROM ir_mail_server").await, "2");
}

#[tokio::test]
async fn each_assertion_turns_red_when_one_thing_is_undone() {
    let copy = small().await;
    let more = "CREATE TABLE ir_act_server (id serial, state text, webhook_url text);
        CREATE TABLE res_users_apikeys (id serial, user_id int, name text); CREATE TABLE auth_oauth_provider (id serial, name text, enabled bool);
        CREATE TABLE delivery_carrier (id serial, prod_environment bool, active bool, delivery_type text);
        CREATE TABLE iap_account (id serial, account_token varchar(43)); CREATE TABLE website (id serial, domain text);
        CREATE TABLE sms_sms (id serial, state text); CREATE TABLE snailmail_letter (id serial, state text)";
    copy.psql("shop", more).await;
    let shop = copy.neutralise(&[]).await.expect("neutralised").remove(0);
    assert!(shop.is_proven(), "{:?}", shop.checks);
    let undo = [
        ("N2", "UPDATE ir_mail_server SET active = true"),
        ("N2", "UPDATE ir_mail_server SET active = false"),
        ("N3", "UPDATE ir_mail_server SET smtp_pass = 'hunter2' WHERE smtp_host <> 'invalid'"),
        ("N4", "UPDATE ir_cron SET active = true WHERE id = 1"),
        ("N5", "UPDATE fetchmail_server SET active = true"),
        ("N6", "UPDATE payment_acquirer SET state = 'enabled'"),
        (
            "N7",
            "UPDATE ir_config_parameter SET value = '62242238-e6a9-11f1-a45e-02fc00000001' WHERE key = 'database.uuid'",
        ),
        ("N7", "DELETE FROM ir_config_parameter WHERE key = 'database.secret'"),
        ("N8", "UPDATE mail_mail SET state = 'outgoing' WHERE id = 1"),
        ("N8", "UPDATE queue_job SET state = 'enqueued'"),
        ("N8", "INSERT INTO sms_sms (state) VALUES ('outgoing')"),
        ("N8", "INSERT INTO snailmail_letter (state) VALUES ('pending')"),
        ("N9", "INSERT INTO ir_act_server (state, webhook_url) VALUES ('webhook', 'https://hooks.example.com/1')"),
        ("N10", "UPDATE ir_config_parameter SET value = 'https://shop.example.com' WHERE key = 'web.base.url'"),
        ("N10", "INSERT INTO website (domain) VALUES ('https://shop.example.com')"),
        ("N11", "INSERT INTO res_users_apikeys (name) VALUES ('integration')"),
        ("N12", "INSERT INTO auth_oauth_provider (enabled) VALUES (true)"),
        ("N13", "INSERT INTO delivery_carrier (prod_environment) VALUES (true)"),
        ("N14", "INSERT INTO iap_account (account_token) VALUES ('abc')"),
        ("N14", "INSERT INTO ir_config_parameter (key, value) VALUES ('database.enterprise_code', 'M1')"),
        ("N15", "DELETE FROM ir_config_parameter WHERE key = 'database.is_neutralized'"),
    ];
    for (id, sql) in undo {
        // What is undone is undone in a copy: the database itself stays neutralised for the next one.
        copy.psql("template1", "CREATE DATABASE undone TEMPLATE shop").await;
        copy.psql("undone", sql).await;
        let checks = copy.verdicts("undone", &shop).await;
        assert_eq!(red(&checks), [id], "{sql}");
        assert!(!Neutralisation { checks, ..shop.clone() }.is_proven());
        copy.psql("template1", "DROP DATABASE undone WITH (FORCE)").await;
    }
}

#[tokio::test]
async fn a_module_without_source_fails_unless_it_is_allowed_by_name() {
    let copy = small().await;
    copy.psql(
        "shop",
        "INSERT INTO ir_module_module (name, state) VALUES ('shop_export', 'to upgrade'), ('../../etc', 'installed')",
    )
    .await;
    let shop = copy.neutralise(&[]).await.expect("neutralised").remove(0);
    assert_eq!(red(&shop.checks), ["N1"]);
    let n1 = shop.checks.iter().find(|c| c.id == "N1").expect("N1");
    assert_eq!(n1.rows, ["module=../../etc", "module=shop_export"]);
    assert!(!shop.is_proven());
    let shop = copy.neutralise(&["shop_export", "../../etc"]).await.expect("neutralised").remove(0);
    assert!(shop.is_proven(), "{:?}", shop.checks);
    assert!(shop.checks[0].detail.contains("allowed by the configuration"), "{}", shop.checks[0].detail);
}

#[tokio::test]
async fn a_script_that_fails_stops_everything_and_changes_nothing() {
    let copy = small().await;
    copy.psql(
        "shop",
        "INSERT INTO ir_module_module (name, state) VALUES ('a_first', 'installed'), ('broken', 'installed')",
    )
    .await;
    copy.module("a_first", Some("UPDATE ir_cron SET active = false; -- 100 % of them\n"));
    copy.module("broken", Some("UPDATE no_such_table SET active = false"));
    let error = copy.neutralise(&[]).await.expect_err("broken");
    assert!(error.message().contains("broken") && error.message().contains("no_such_table"), "{error}");
    assert!(error.what_it_means().is_some_and(|m| m.contains("no Odoo was started")));
    assert_eq!(copy.ask("shop", "SELECT count(*)::text FROM ir_cron WHERE active").await, "2");

    // Allowed by name: the rest is done, and said.
    let shop = copy.neutralise(&["broken"]).await.expect("neutralised").remove(0);
    assert!(shop.is_proven());
    assert_eq!(shop.record.allowed, ["broken"]);
    assert_eq!(shop.record.scripts.iter().map(|s| s.module.as_str()).collect::<Vec<_>>(), ["a_first"]);

    // A script that commits would let half of it stand.
    copy.module("broken", Some("COMMIT; BEGIN; SELECT 1"));
    let error = copy.neutralise(&[]).await.expect_err("ends the transaction");
    assert_eq!(error.kind(), ErrorKind::CheckFailed, "{error}");
}

#[tokio::test]
async fn each_fixture_is_neutralised_with_its_own_scripts() {
    if RealOdoo::all().is_empty() {
        skip!("no Odoo with a database (LIFEBOAT_TEST_ODOO)")
    }
    for real in RealOdoo::all() {
        neutralised_with_its_own_scripts(&real).await;
    }
}

async fn neutralised_with_its_own_scripts(real: &RealOdoo) {
    let scratch = Scratch::new();
    let data_dir = scratch.join("odoo");
    let copy = Copy::new(scratch, |cluster| {
        load_fixture(&real.fixture, cluster, "retail", &data_dir);
        cluster.psql(
            "retail",
            "UPDATE ir_mail_server SET active = true; UPDATE payment_provider SET state = 'enabled' WHERE id = 1",
        );
    })
    .await;
    let addons = AddonsPaths::from(real.addons());
    let settings = Settings { addons: &addons, allow: &[], base_url: BASE_URL };
    let retail = run(&copy.server, &settings).await.expect("neutralised").remove(0);
    assert!(retail.is_proven(), "{:#?}", retail.checks.iter().filter(|c| c.fails_the_drill()).collect::<Vec<_>>());
    assert_eq!(retail.record.odoo, real.series);
    let modules = retail.record.modules;
    assert!(modules >= 75, "{modules}");
    let scripts: Vec<&str> = retail.record.scripts.iter().map(|s| s.module.as_str()).collect();
    for module in ["base", "mail", "payment", "web", "iap"] {
        assert!(scripts.contains(&module), "{scripts:?}");
    }
    assert_eq!(retail.record.unneutralised, [] as [&str; 0]);
    let applicable = retail.checks.iter().filter(|c| c.result == CheckResult::Passed).count();
    assert!(applicable >= 12, "{applicable}");

    // The same without the source: every module is named.
    let blind = AddonsPaths::from(vec![copy.addons.clone()]);
    let settings = Settings { addons: &blind, allow: &[], base_url: BASE_URL };
    let retail = run(&copy.server, &settings).await.expect("neutralised").remove(0);
    assert_eq!(red(&retail.checks), ["N1"]);
    assert_eq!(u64::try_from(retail.record.unneutralised.len()).expect("few"), modules);
}

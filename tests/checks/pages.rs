//! Checks that ask the restored Odoo for pages, with a stand-in for Odoo: it is started behind the seal, on a
//! database that was neutralised, and answers over HTTP as Odoo does.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Site, check};
use crate::common::{Cluster, Estate, Scratch, skip};

/// As much of an Odoo as a drill needs.
const ODOO: &str = "
CREATE TABLE ir_module_module (id serial, name text, state text, latest_version text);
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '19.0.1.3');
CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key text UNIQUE, value text);
INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', '62242238-e6a9-11f1-a45e-02fc00000001'),
    ('database.secret', '0d6d3f4e-0000-4000-8000-000000000001');
CREATE TABLE res_users (id serial, login text, password text, active bool);
INSERT INTO res_users VALUES (2, 'admin', 'secret', true);
CREATE TABLE res_groups_users_rel (gid int, uid int);
CREATE TABLE ir_model_data (id serial, module text, name text, model text, res_id int);
CREATE TABLE ir_attachment (id serial, name text, type text, res_model text, res_id int, res_field text, store_fname text,
    url text, db_datas bytea, file_size int, checksum text, mimetype text, access_token text,
    create_date timestamp, write_date timestamp);
CREATE TABLE ir_mail_server (id serial, name text, smtp_host text, smtp_port int, smtp_encryption text,
    smtp_authentication text, active bool);
INSERT INTO ir_mail_server (name, smtp_host, smtp_port, active) VALUES ('out', 'mail.shop.example', 25, true);
";

const PAGES: &str = r#"
[[check]]
id = "P1"
title = "The shop is open"
severity = "hard"
http = { path = "/shop?db={database}", contains = "<p>db=shop</p>", content_type = "text/html" }
why = "Customers."

[[check]]
id = "P2"
title = "Nobody sees orders without logging in"
severity = "hard"
http = { path = "/my/orders", status = 303 }
why = "They are private."

[[check]]
id = "P3"
title = "Whoever logs in sees orders"
severity = "hard"
http = { path = "/my/orders", login = true, contains = "Your orders" }
why = "Customers."

[[check]]
id = "P4"
title = "The price is known"
severity = "hard"
http = { path = "/shop/price.json", content_type = "application/json", sha256 = "DIGEST" }
why = "It is what everybody asks for."

[[check]]
id = "P5"
title = "The blog is served"
severity = "hard"
modules = ["website_blog"]
http = { path = "/blog" }
why = "It is not installed."
"#;

/// SHA-256 of `{"price": 7}`.
const DIGEST: &str = "93cb6a90714d92208d91ba9c0731eabd108b67a9d95dc57bd2a03938f1efa8f9";

impl Site {
    /// A shop with its Odoo, backed up.
    fn shop(checks: &str) -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start();
        cluster.psql("postgres", "CREATE DATABASE shop");
        cluster.psql("shop", ODOO);
        let (drills, code, data_dir) = (scratch.server_dir("drills"), scratch.join("code"), scratch.join("data"));
        fs::create_dir_all(code.join("odoo/addons/base")).expect("a directory");
        fs::create_dir_all(data_dir.join("filestore/shop")).expect("a directory");
        fs::write(code.join("odoo/addons/base/__manifest__.py"), "{'name': 'Base'}").expect("a manifest");
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odoo_stand_in.py");
        fs::copy(stand_in, code.join("odoo-bin")).expect("the stand-in");
        let tables = format!(
            "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"shop\"]\n[environment.drill]\nwork_dir = \"{}\"\n\
             [environment.drill.odoo]\ncommand = [\"/usr/bin/python3\", \"{}\"]\nboot_timeout = \"60s\"\n{checks}",
            data_dir.display(),
            drills.display(),
            code.join("odoo-bin").display(),
        );
        let estate = Estate::builder(&scratch, &cluster).tables(&tables).init();
        super::patient(&estate);
        let site = Self { cluster, estate };
        let receiver = site.estate.receive(&site.cluster);
        site.estate.run(&["backup", "filestore"]).ok();
        site.estate.run(&["backup", "base"]).ok();
        site.cluster.psql("shop", "UPDATE res_users SET login = login; SELECT pg_switch_wal()");
        site.estate.caught_up(&site.cluster);
        receiver.kill9();
        site
    }
}

/// Whether Odoo is started here: it is behind a seal only.
fn is_sealed(record: &Value) -> bool {
    !record["findings"].to_string().contains("not sealed")
}

#[test]
fn pages_are_asked_of_the_odoo_that_a_drill_starts() {
    let site = Site::shop(&PAGES.replace("DIGEST", DIGEST));
    let record = site.drill(&[]).json()["drill"].clone();
    if !is_sealed(&record) {
        skip!("the sandbox is not sealed here, and Odoo is started behind a seal only")
    }
    assert_eq!(record["verdict"], "passed", "{record}");
    for id in ["P1", "P2", "P3", "P4"] {
        let found = check(&record, id);
        assert_eq!((&found["result"], &found["scope"]), (&"passed".into(), &"shop".into()), "{found}");
    }
    let blog = check(&record, "P5");
    assert_eq!(blog["result"], "not_applicable");
    assert!(blog["detail"].to_string().contains("website_blog"), "{blog}");

    // What is served otherwise is red, with what was served instead.
    site.estate.reconfigure("contains = \"Your orders\"", "contains = \"Your refunds\"");
    site.estate.reconfigure("/shop/price.json", "/shop/cost.json");
    let record = site.drill(&[]).expect_code(8).json()["drill"].clone();
    assert_eq!((&record["verdict"], &check(&record, "P3")["result"]), (&"failed".into(), &"failed".into()));
    let cost = check(&record, "P4");
    assert!(cost["detail"].to_string().contains("HTTP 404 instead of 200"), "{cost}");
    assert!(cost["rows"].to_string().contains("No such page"), "{cost}");

    // A page that never comes is waited for as long as the check says.
    site.estate.reconfigure("why = \"It is what everybody", "timeout = \"1s\"\nwhy = \"It is what everybody");
    site.estate.reconfigure("/shop/cost.json", "/shop/hangs");
    let record = site.drill(&[]).expect_code(8).json()["drill"].clone();
    assert!(check(&record, "P4")["detail"].to_string().contains("no answer within 1 s"), "{record}");
    site.assert_nothing_left();
}

#[test]
fn without_an_odoo_pages_are_said_to_be_unasked_and_an_odoo_that_does_not_come_up_is_red() {
    let site = Site::shop(&PAGES.replace("DIGEST", DIGEST));
    let file = site.estate.scratch.write("own.toml", PAGES.replace("DIGEST", DIGEST)).display().to_string();
    let told = site.estate.run(&["drill", "check", &file]).ok().json();
    let first = check(&told, "P1");
    assert_eq!(first["result"], "not_applicable");
    assert!(first["detail"].to_string().contains("runs in drills only"), "{first}");

    let code = site.estate.scratch.join("code/odoo-bin");
    fs::write(&code, "raise SystemExit('no module named odoo')").expect("a file");
    let told = site.drill(&[]).expect_code(8).json();
    let record = told["drill"].clone();
    if is_sealed(&record) {
        assert!(told["error"]["meaning"].to_string().contains("Odoo did not start on it"), "{}", told["error"]);
        assert_eq!(check(&record, "B1")["result"], "failed");
        let first = check(&record, "P1");
        assert_eq!(first["result"], "error", "{first}");
        assert!(first["detail"].to_string().contains("did not come up"), "{first}");
        // A module whose code is not there: the database is not proven to be harmless, and no Odoo sees it.
        fs::remove_dir_all(site.estate.scratch.join("code/odoo/addons/base")).expect("removed");
        let told = site.drill(&[]).expect_code(8).json();
        assert!(told["error"]["meaning"].to_string().contains("would not give back"), "{}", told["error"]);
        let record = told["drill"].clone();
        assert_eq!((&check(&record, "N1")["result"], &record["boots"]), (&"failed".into(), &serde_json::json!([])));
        assert!(check(&record, "P1")["detail"].to_string().contains("not proven to be neutralised"), "{record}");
    }

    let config = site.estate.scratch.join("lifeboat.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    let (from, to) = (text.find("[environment.drill.odoo]").expect("there"), text.find("\n[[check]]").expect("there"));
    fs::write(&config, text[..from].to_owned() + &text[to..]).expect("written");
    let record = site.drill(&[]).ok().json()["drill"].clone();
    assert_eq!(check(&record, "P1")["result"], "not_applicable");
    assert!(record["findings"].to_string().contains("does not say which one"), "{record}");
}

/// A self-test neutralises a copy and brings a mail server back to life in it.
#[test]
fn a_mail_server_that_comes_back_to_life_is_found() {
    let site = Site::shop("");
    let reports = site.estate.scratch.join("reports").display().to_string();
    let told = site.estate.spawn(&["drill", "selftest", "--report", &reports]).wait(super::LONG).json();
    let cases = super::outcomes(&told["drill"]);
    let (_, outcome, by) = cases.iter().find(|c| c.0 == "mail-server-revived").expect("the case");
    assert_eq!((outcome.as_str(), by.as_slice()), ("found", &["N2".to_owned()][..]), "{told}");
}

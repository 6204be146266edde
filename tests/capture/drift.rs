//! Drift of a real environment: recorded, told with severities, on the host that only backs up, and without a secret.

use std::fs;

use lifeboat::evidence::Body;
use lifeboat::repository::catalogue::Catalogue;
use serde_json::Value;

use super::estate::{Estate, files_below};
use crate::common::blocking;

/// Differences as `file: setting` with their severity.
fn told(output: &Value) -> Vec<(String, String)> {
    let files = output["drift"]["files"].as_array().expect("a list");
    let of = |file: &Value| -> Vec<(String, String)> {
        let name = file["file"].as_str().expect("text").to_owned();
        let all = file["differences"].as_array().expect("a list");
        let one = |d: &Value| {
            (
                format!("{name}: {}", d["setting"].as_str().unwrap_or("")),
                d["severity"].as_str().expect("text").to_owned(),
            )
        };
        all.iter().map(one).collect()
    };
    files.iter().flat_map(of).collect()
}

#[test]
fn drift_is_told_and_recorded_where_contents_cannot_be_read_and_no_secret_is_shown() {
    let estate = Estate::new();
    let conf = |password: &str, workers: &str| {
        let text = format!("[options]\nadmin_passwd = {password}\nworkers = {workers}\n");
        estate.scratch.write("etc/odoo.conf", text)
    };
    let odoo_conf = conf("hunter2-first", "4");
    let listed = format!("databases = [\"shop\"]\nconfig_file = \"{}\"", odoo_conf.display());
    let rules = "[[drift]]\nfile = \"odoo/odoo.conf\"\nsetting = \"workers\"\nseverity = \"ignored\"\n\
                 [[drift]]\nfile = \"odoo/shop/modules.json\"\nseverity = \"critical\"\nwhy = \"the change board decides\"\n";
    estate.configure(&estate.cluster.dsn(), &listed, rules);
    estate.cluster.psql("shop", "INSERT INTO ir_config_parameter VALUES ('shop.token', 'hunter2-token')");
    let nothing = estate.lifeboat.run(&["drift", "-e", "production"]).expect_code(2);
    assert!(nothing.stderr.contains("no configuration export"), "{}", nothing.stderr);
    let first = estate.run("backup configuration").ok().json();
    assert_eq!(first["drift"], Value::Null);
    let first = first["configuration_export"]["id"].as_str().expect("an id").to_owned();

    let unchanged = estate.run("backup configuration").ok().json();
    assert_eq!(told(&unchanged), []);
    estate.lifeboat.run(&["drift", "-e", "production"]).ok();

    conf("hunter2-second", "8");
    let hba = estate.cluster.data_dir().join("pg_hba.conf");
    let text = fs::read_to_string(&hba).expect("readable") + "host all all 192.0.2.0/24 scram-sha-256\n";
    fs::write(&hba, text).expect("written");
    estate.cluster.psql("shop", "UPDATE ir_module_module SET latest_version = '19.0.1.1'");
    estate.cluster.psql("shop", "UPDATE ir_config_parameter SET value = 'hunter2-other' WHERE key = 'shop.token'");
    estate.cluster.psql("postgres", "CREATE ROLE till LOGIN PASSWORD 'hunter2-role'");
    let changed = estate.run("backup configuration").ok().json();
    let expected = [
        ("odoo/shop/modules.json: sale.latest_version", "critical"),
        ("postgresql/globals.sql: role till.attributes", "critical"),
        ("postgresql/globals.sql: role till", "notice"),
        ("postgresql/pg_hba.conf: ", "critical"),
        ("odoo/odoo.conf: admin_passwd", "notice"),
        ("odoo/shop/parameters.json: shop.token", "notice"),
    ];
    assert_eq!(told(&changed), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(changed["drift"]["ignored"], 1);

    // The host has the index key and no recovery key.
    let shown = estate.lifeboat.run(&["drift", "-e", "production"]).expect_code(8);
    for words in [
        "CRITICAL postgresql/pg_hba.conf",
        "+host all all 192.0.2.0/24 scram-sha-256",
        "sale.latest_version: 19.0.1.0 → 19.0.1.1 – the change board decides",
        "admin_passwd: <secret ",
        "3 critical, 3 to note, 0 expected, 1 ignored",
    ] {
        assert!(shown.stdout.contains(words), "{words} in\n{}", shown.stdout);
    }
    assert!(shown.stderr.contains("3 critical differences in the configuration of production"), "{}", shown.stderr);
    assert!(!(shown.stdout + &shown.stderr).contains("hunter2"));
    let since =
        estate.lifeboat.run(&["drift", "-e", "production", "--since", &first, "--format", "json"]).expect_code(8);
    assert_eq!(told(&since.json()), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let refused = estate.lifeboat.run(&["drift", "-e", "production", "--since", "2026-11-22 20:35:00"]).expect_code(2);
    assert!(refused.stderr.contains("has no time zone"), "{}", refused.stderr);
    let older = estate.lifeboat.run(&["drift", "-e", "production", "--since", "2020-01-01T00:00:00Z"]).expect_code(2);
    assert!(older.stderr.contains("no configuration export from before"), "{}", older.stderr);

    // The ledger is not encrypted: it has names and no values.
    let ledger = estate.scratch.join("repository/production/ledger");
    blocking(async {
        let repository = estate.repository(None).await;
        let catalogue = Catalogue::load(&repository, "production").await.expect("catalogue");
        let drift = |body: &Body| match body {
            Body::Drift(drift) => Some(drift.clone()),
            _ => None,
        };
        let drifts: Vec<_> = catalogue.entries.iter().filter_map(|e| drift(&e.statement.predicate.body)).collect();
        assert_eq!(drifts.len(), 1, "an unchanged export records none");
        assert_eq!((drifts[0].critical, drifts[0].notices, drifts[0].ignored), (3, 3, 1));
        assert!(drifts[0].alert().expect("critical").contains("and 2 more"));
    });
    for entry in files_below(&ledger) {
        let text = fs::read_to_string(ledger.join(&entry)).expect("text");
        let payload = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["payload"].as_str().map(str::to_owned));
        use base64::Engine as _;
        let payload = payload.map(|p| base64::engine::general_purpose::STANDARD.decode(p).expect("base64"));
        let payload = payload.map(|p| String::from_utf8(p).expect("text")).unwrap_or(text);
        assert!(
            !payload.contains("192.0.2") && !payload.contains("hunter2") && !payload.contains("<secret"),
            "{entry}"
        );
    }
    for object in files_below(&estate.scratch.join("repository")) {
        let bytes = fs::read(estate.scratch.join("repository").join(&object)).expect("an object");
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "a secret in {object}");
    }
    estate.lifeboat.run(&["verify", "-e", "production"]).ok();
}

#[test]
fn two_environments_are_compared_where_they_should_be_alike() {
    let estate = Estate::new();
    let odoo_conf = estate.scratch.write("etc/odoo.conf", "[options]\ndb_password = hunter2\ndb_name = shop\n");
    let staging_conf = estate.scratch.write("etc/staging.conf", "[options]\ndb_password = hunter2\ndb_name = test\n");
    estate.create("test");
    estate.cluster.psql("test", "UPDATE ir_module_module SET latest_version = '19.0.0.9'");
    let staging = format!(
        "[[environment]]\nname = \"staging\"\npurpose = \"staging\"\nowner = \"test\"\n[environment.objectives]\nrpo = \"1h\"\nrto = \"1h\"\n\
         [environment.postgres]\ndsn = \"{}\"\nslot = \"staging\"\n[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"test\"]\nconfig_file = \"{}\"\n\
         [environment.configuration]\nprocess_environment = false\n",
        estate.cluster.dsn(),
        estate.data_dir.display(),
        staging_conf.display()
    );
    let listed = format!("databases = [\"shop\"]\nconfig_file = \"{}\"", odoo_conf.display());
    estate.configure(&estate.cluster.dsn(), &listed, &staging);
    estate.run("backup configuration").ok();
    let missing = estate.lifeboat.run(&["drift", "-e", "production", "--against", "staging"]).expect_code(2);
    assert!(missing.stderr.contains("staging has no configuration export"), "{}", missing.stderr);
    estate.lifeboat.run(&["backup", "configuration", "-e", "staging"]).ok();
    let output = estate.lifeboat.run(&["drift", "-e", "production", "--against", "staging", "--format", "json"]);
    let found = told(&output.expect_code(8).json());
    let expected = [
        ("odoo/odoo.conf: secret", "critical"),
        ("odoo/odoo.conf: db_name", "expected"),
        ("odoo/shop/modules.json: sale.latest_version", "critical"),
    ];
    assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let text = estate.lifeboat.run(&["drift", "-e", "production", "--against", "staging"]).expect_code(8);
    assert!(text.stdout.contains("db_password: the same secret in both – both use the same secret"), "{}", text.stdout);
    assert!(!text.stdout.contains("hunter2"));
}

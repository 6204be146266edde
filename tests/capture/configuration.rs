//! Configuration exports, and all backups in one command.

use std::fs;

use lifeboat::repository::catalogue::Catalogue;
use serde_json::Value;

use super::estate::{Estate, files_below};
use crate::common::blocking;

#[test]
fn configuration_is_exported_compared_and_laid_out_again() {
    let estate = Estate::new();
    let odoo_conf = estate.scratch.write("etc/odoo.conf", "[options]\nadmin_passwd = very secret\n");
    let traefik = estate.scratch.write("etc/traefik.yml", "entryPoints: {}\n");
    let listed = format!("databases = [\"shop\"]\nconfig_file = \"{}\"", odoo_conf.display());
    let extra = format!("files = [\"{}/etc/*.yml\"]", estate.scratch.path().display());
    estate.configure(&estate.cluster.dsn(), &listed, &extra);
    let first = estate.run("backup configuration").ok().json();
    assert_eq!(
        (&first["compared_with"], &first["configuration_export"]["changed"]),
        (&Value::Null, &serde_json::json!([]))
    );

    let unchanged = estate.run("backup configuration").ok().json();
    assert_eq!(unchanged["changes"], serde_json::json!([]));
    assert_eq!(unchanged["configuration_export"]["digest"], first["configuration_export"]["digest"]);

    let conf = estate.cluster.data_dir().join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("readable") + "work_mem = 9MB\n";
    fs::write(&conf, text).expect("written");
    fs::remove_file(&traefik).expect("removed");
    std::os::unix::fs::symlink(&traefik, &traefik).expect("a loop, unreadable for everybody");
    let output = estate.run("backup configuration").expect_code(11).json();
    let changed = output["configuration_export"]["changed"].to_string();
    assert!(changed.contains("postgresql/postgresql.conf") && changed.contains("traefik.yml"), "{changed}");
    assert!(output["error"]["message"].as_str().expect("text").contains("traefik.yml"), "{output:#}");

    let directory = estate.scratch.join("configuration");
    blocking(async {
        let repository = estate.repository(Some(&estate.recovery)).await;
        let catalogue = Catalogue::load(&repository, "production").await.expect("catalogue");
        let newest = catalogue.exports().next_back().expect("three");
        let restore = lifeboat::configuration::store::restore(&repository, "production", newest, &directory);
        assert_eq!(restore.await.expect("restored") as u64, newest.files);
    });
    let there = files_below(&directory);
    for name in
        ["postgresql/postgresql.conf", "postgresql/pg_hba.conf", "postgresql/globals.sql", "odoo/shop/modules.json"]
    {
        assert!(there.contains(name), "{name} in {there:?}");
    }
    assert!(
        fs::read_to_string(directory.join("postgresql/globals.sql")).expect("text").contains("CREATE ROLE postgres")
    );
    assert!(fs::read_to_string(directory.join("odoo/shop/modules.json")).expect("text").contains("sale"));
    assert!(fs::read_to_string(directory.join("postgresql/postgresql.conf")).expect("text").contains("work_mem = 9MB"));
    let odoo = there.iter().find(|n| n.ends_with("odoo.conf")).expect("odoo.conf");
    assert!(fs::read_to_string(directory.join(odoo)).expect("text").contains("very secret"));
    assert!(fs::read_to_string(directory.join("ORIGINS.txt")).expect("text").contains("MISSING"));
}

#[test]
fn all_goes_on_after_a_failure_and_the_worst_decides() {
    let estate = Estate::new();
    estate.attach(b"content");
    let good = estate.run("backup all").ok().json();
    assert!(good["base"]["base_backup"]["id"].is_string());
    assert_eq!(good["filestore"]["filestore_captures"][0]["filestore_capture"]["complete"], true);
    assert!(good["configuration"]["configuration_export"]["id"].is_string());
    let order: Vec<u64> = [&good["base"], &good["filestore"]["filestore_captures"][0], &good["configuration"]]
        .map(|part| part["ledger"]["sequence"].as_u64().expect("a number"))
        .into();
    assert!(order.is_sorted(), "{order:?}");

    fs::remove_dir_all(estate.filestore()).expect("removed");
    let extra = "files = [\"/nonexistent/lifeboat\"]";
    estate.configure(&estate.cluster.dsn(), "databases = [\"shop\"]", extra);
    let output = estate.run("backup all").expect_code(4).json();
    assert!(output["base"]["base_backup"]["id"].is_string());
    assert_eq!(output["filestore"]["failed"][0]["database"], "shop");
    assert!(output["configuration"]["configuration_export"]["id"].is_string());
    let message = output["error"]["message"].as_str().expect("text");
    assert!(message.contains("holds no files") && message.contains("/nonexistent/lifeboat"), "{message}");
}

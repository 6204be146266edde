//! Exports of real servers: full privileges, few privileges, a real Odoo database.

use std::path::Path;

use serde_json::Value;
use tokio_postgres::{Client, Config};

use super::test_server::{TestServer, connect};
use super::{ChangeKind, Export, OdooInstance, Request, collect, diff};
use crate::runtime::Runtime;

async fn export(client: &Client, dsn: &Config, bin: &Path, odoo: &[OdooInstance]) -> Export {
    let open = dsn.clone();
    let connect = move |database: String| {
        let mut dsn = open.clone();
        dsn.dbname(database);
        connect(dsn)
    };
    let request = Request {
        client,
        connect: &connect,
        dsn,
        program_environment: &[],
        bin_dir: bin,
        odoo,
        extra: &[],
        process_environment: false,
    };
    collect(&Runtime::silent(), request).await.expect("collects")
}

fn text<'a>(export: &'a Export, name: &str) -> &'a str {
    let names: Vec<&str> = export.files.iter().map(|f| f.name.as_str()).collect();
    let file = export.files.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name} in {names:?}"));
    std::str::from_utf8(&file.content).expect("UTF-8")
}

fn json(export: &Export, name: &str) -> Value {
    serde_json::from_str(text(export, name)).expect("JSON")
}

fn names(export: &Export) -> Vec<&str> {
    export.files.iter().map(|f| f.name.as_str()).collect()
}

#[tokio::test]
async fn a_superuser_exports_everything_of_a_debian_style_cluster() {
    let Some(server) = TestServer::start() else { return };
    let client = server.client("postgres").await;
    let setup = "CREATE ROLE odoo LOGIN CREATEDB PASSWORD 'x'; ALTER ROLE odoo SET work_mem = '64MB';
                 ALTER DATABASE template1 CONNECTION LIMIT 7;
                 SELECT pg_create_physical_replication_slot('kept')";
    client.batch_execute(setup).await.expect("setup");
    client.batch_execute("CREATE DATABASE \"odd/../name\" OWNER odoo").await.expect("setup");
    let dsn = server.dsn("postgres", "postgres");
    let now = export(&client, &dsn, server.bin(), &[]).await;
    assert_eq!(now.unreadable, []);
    assert!(!now.is_partial());
    let expected = [
        "postgresql/conf.d/10-odoo.conf",
        "postgresql/conf.d/20-empty.conf",
        "postgresql/databases.json",
        "postgresql/extensions.json",
        "postgresql/globals.sql",
        "postgresql/pg_hba.conf",
        "postgresql/pg_ident.conf",
        "postgresql/postgresql.auto.conf",
        "postgresql/postgresql.conf",
        "postgresql/server.json",
        "postgresql/settings.json",
    ];
    assert_eq!(names(&now), expected);
    assert_eq!(text(&now, "postgresql/conf.d/10-odoo.conf"), "work_mem = 8MB\n");
    let conf = now.files.iter().find(|f| f.name == "postgresql/postgresql.conf").expect("there");
    assert_eq!(conf.content, std::fs::read(server.etc().join("postgresql.conf")).expect("read"));
    assert!(conf.mode.is_some(), "the server runs here, so the mode is known");
    let globals = text(&now, "postgresql/globals.sql");
    assert!(globals.contains("SCRAM-SHA-256$") && globals.contains("ALTER ROLE odoo SET work_mem TO '64MB'"));
    let databases = json(&now, "postgresql/databases.json");
    let odd = databases.as_array().expect("array").iter().find(|d| d["name"] == "odd/../name").expect("listed");
    assert_eq!((&odd["owner"], &odd["is_odoo"], &odd["encoding"]), (&"odoo".into(), &false.into(), &"UTF8".into()));
    assert!(databases.as_array().expect("array").iter().any(|d| d["connection_limit"] == 7));
    let about = json(&now, "postgresql/server.json");
    assert_eq!(about["settings"]["block_size"], "8192");
    assert_eq!(about["replication_slots"][0]["name"], "kept");
    assert!(about["system_identifier"].is_string());
    assert_eq!(json(&now, "postgresql/extensions.json")["postgres"][0]["name"], "plpgsql");
    let settings = json(&now, "postgresql/settings.json");
    let work_mem = settings.as_array().expect("array").iter().find(|s| s["name"] == "work_mem").expect("listed");
    assert_eq!((&work_mem["setting"], &work_mem["unit"]), (&"8192".into(), &"kB".into()));

    // Nothing changed: no drift. Then one setting does.
    let digests = now.digests();
    assert_eq!(diff(&digests, &export(&client, &dsn, server.bin(), &[]).await), []);
    client.batch_execute("ALTER SYSTEM SET maintenance_work_mem = '99MB'").await.expect("alters");
    std::fs::remove_file(server.etc().join("conf.d/20-empty.conf")).expect("remove");
    let later = export(&client, &dsn, Path::new("/nowhere"), &[]).await;
    let changes: Vec<_> = diff(&digests, &later).into_iter().map(|c| (c.name, c.kind)).collect();
    let expected = [
        ("postgresql/conf.d/20-empty.conf", ChangeKind::Removed),
        ("postgresql/globals.sql", ChangeKind::Unreadable),
        ("postgresql/postgresql.auto.conf", ChangeKind::Changed),
    ];
    assert_eq!(changes, expected.map(|(n, k)| (n.to_owned(), k)));
    assert_eq!(later.unreadable.len(), 1, "{:?}", later.unreadable);
    assert!(later.unreadable[0].reason.contains("cannot run it"), "{:?}", later.unreadable);
}

#[tokio::test]
async fn a_role_with_few_privileges_gets_what_it_may_and_hears_what_is_missing() {
    let Some(server) = TestServer::start() else { return };
    let admin = server.client("postgres").await;
    let password = "p:a\\s s'\"wörd=,%&";
    let quoted = password.replace('\'', "''");
    let setup = format!(
        "CREATE ROLE by_password; CREATE ROLE \"o'dd\" LOGIN PASSWORD '{quoted}' IN ROLE by_password;
         REVOKE CONNECT ON DATABASE template1 FROM PUBLIC"
    );
    admin.batch_execute(&setup).await.expect("setup");
    let mut dsn = server.dsn("o'dd", "postgres");
    assert!(connect(dsn.clone()).await.is_err(), "the server must ask for the password");
    dsn.password(password);
    let client = connect(dsn.clone()).await.expect("connects");

    let plain = export(&client, &dsn, server.bin(), &[]).await;
    let gaps: Vec<&str> = plain.unreadable.iter().map(|u| u.name.as_str()).collect();
    let expected = [
        "postgresql/extensions.json", // template1
        "postgresql/globals.sql",     // passwords
        "postgresql/pg_hba.conf",
        "postgresql/pg_ident.conf",
        "postgresql/postgresql.auto.conf",
        "postgresql/postgresql.conf",
        "postgresql/settings.json",
    ];
    assert_eq!(gaps, expected, "{:#?}", plain.unreadable);
    let globals = text(&plain, "postgresql/globals.sql");
    assert!(globals.contains("CREATE ROLE by_password") && !globals.contains("SCRAM"), "{globals}");

    // With the paths known, this host's disk helps, because the server runs on it.
    admin.batch_execute("GRANT pg_read_all_settings TO \"o'dd\"").await.expect("grant");
    let more = export(&client, &dsn, server.bin(), &[]).await;
    let gaps: Vec<&str> = more.unreadable.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(gaps, ["postgresql/extensions.json", "postgresql/globals.sql"], "{:#?}", more.unreadable);
    assert!(names(&more).contains(&"postgresql/conf.d/20-empty.conf"));
    let hba = more.files.iter().find(|f| f.name == "postgresql/pg_hba.conf").expect("there");
    assert_eq!(hba.content, std::fs::read(server.etc().join("pg_hba.conf")).expect("read"));
}

#[tokio::test]
async fn a_real_odoo_database_tells_its_configuration_without_secrets() {
    let Some(server) = TestServer::start() else { return };
    if !server.load_fixture() {
        return;
    }
    let odoo_admin = server.client("retail").await;
    let setup = "INSERT INTO ir_mail_server (name, active, smtp_host, smtp_user, smtp_pass, smtp_encryption, smtp_authentication, sequence)
                 VALUES ('out', true, 'mail.example.org', 'shop', 'hunter2', 'none', 'login', 1);
                 INSERT INTO ir_config_parameter (key, value) VALUES ('shop.api_key', 'hunter2'), ('shop.colour', 'green');
                 CREATE SCHEMA trap; CREATE FUNCTION trap.jsonb_agg(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT 1/0; SELECT $1'";
    odoo_admin.batch_execute(setup).await.expect("setup");
    let etc = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir_all(etc.path().join("addons/shop")).expect("dir");
    std::fs::write(etc.path().join("addons/shop/__manifest__.py"), "{'version': '19.0.1.0'}").expect("write");
    let conf = format!("[options]\naddons_path = {}/addons\n", etc.path().display());
    std::fs::write(etc.path().join("odoo.conf"), &conf).expect("write");
    let instance = OdooInstance { config_file: Some(etc.path().join("odoo.conf")), ..OdooInstance::default() };
    let client = server.client("postgres").await;
    let dsn = server.dsn("postgres", "postgres");
    let found = export(&client, &dsn, server.bin(), std::slice::from_ref(&instance)).await;
    assert_eq!(found.unreadable, []);
    assert_eq!(text(&found, "odoo/odoo.conf"), conf);
    assert_eq!(json(&found, "addons/revisions.json")["addons"][0]["modules"]["shop"], "19.0.1.0");
    let modules = json(&found, "odoo/retail/modules.json");
    let installed = modules.as_array().expect("array").iter().filter(|m| m["state"] == "installed").count();
    assert_eq!(installed, 75);
    let parameters = json(&found, "odoo/retail/parameters.json");
    let parameter = |key: &str| parameters.as_array().expect("array").iter().find(|p| p["key"] == key).expect("there");
    assert_eq!(parameter("shop.colour")["value"], "green");
    assert_eq!(parameter("shop.api_key")["value"], Value::Null);
    let digest = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
    assert_eq!(parameter("shop.api_key")["sha256"], digest);
    assert_eq!(parameter("database.secret")["masked"], true);
    assert_eq!(json(&found, "odoo/retail/mail_servers.json")[0]["smtp_host"], "mail.example.org");
    assert_eq!(json(&found, "odoo/retail/attachments.json")["location"], "file");
    assert!(json(&found, "odoo/retail/crons.json")["crons"].as_array().is_some_and(|c| c.len() > 5));
    assert!(json(&found, "odoo/retail/companies.json")[0]["name"].is_string());
    for file in &found.files {
        assert!(!String::from_utf8_lossy(&file.content).contains("hunter2"), "{} holds a secret", file.name);
    }
    assert!(text(&found, "postgresql/databases.json").contains("\"is_odoo\": true"));

    // A cron that ran is no drift; a setting that changed is.
    odoo_admin.batch_execute("UPDATE ir_cron SET nextcall = nextcall + interval '1 day'").await.expect("update");
    let again = export(&client, &dsn, server.bin(), std::slice::from_ref(&instance)).await;
    assert_eq!(diff(&found.digests(), &again), []);

    // Databases named wrongly, and a database whose modules table is a trap, are told.
    let bait = "CREATE TABLE public.ir_config_parameter (key text, value text);
                CREATE VIEW public.ir_module_module AS SELECT 1/0 AS name";
    client.batch_execute(bait).await.expect("bait");
    let databases = Some(vec!["postgres".to_owned(), "typo".to_owned()]);
    let wrong = OdooInstance { databases, ..OdooInstance::default() };
    let told = export(&client, &dsn, server.bin(), &[wrong]).await;
    let gaps: Vec<&str> = told.unreadable.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(gaps, ["odoo/postgres/modules.json", "odoo/typo/modules.json"]);
    assert!(!names(&told).iter().any(|n| n.starts_with("odoo/retail")));
}

/// Every major version that the catalogues differ in; the installations are named by the caller:
/// `LIFEBOAT_TEST_BINS=/a/bin:/b/bin`.
#[tokio::test]
async fn every_major_version_named_by_the_environment_can_be_exported() {
    let Ok(list) = std::env::var("LIFEBOAT_TEST_BINS") else {
        eprintln!("skipped: LIFEBOAT_TEST_BINS names no other PostgreSQL");
        return;
    };
    for bin in list.split(':').map(Path::new) {
        let server = TestServer::start_with(bin);
        let client = server.client("postgres").await;
        let found = export(&client, &server.dsn("postgres", "postgres"), bin, &[]).await;
        let gaps: Vec<&str> = found.unreadable.iter().map(|u| u.name.as_str()).collect();
        assert!(gaps.is_empty() || gaps == ["postgresql/globals.sql"], "{}: {:#?}", bin.display(), found.unreadable);
        let databases = json(&found, "postgresql/databases.json");
        eprintln!("{}: {}", text(&found, "postgresql/server.json"), databases[0]);
        assert_eq!(databases[0]["name"], "postgres");
    }
}

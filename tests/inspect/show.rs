//! What `show` and `evidence` tell, and what they need for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Estate, Harm, Harmed, finding};
use crate::common::{Lifeboat, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn show_answers_first_and_works_with_any_key_and_without_postgresql_or_store() {
    let mut estate = Estate::new();
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.starts_with("production: nothing can be restored – there is no base backup"), "{shown}");
    assert!(shown.contains("lifeboat backup all -e production"), "{shown}");
    estate.cluster.psql("postgres", "CREATE TABLE t (v text)");
    estate.run(&["backup", "base", "-e", "production"]).ok();
    estate.receive();

    let mut receiver = estate.lifeboat.spawn(&["wal", "receive", "-e", "production"]);
    let slot = |state: &str| {
        let count = format!("SELECT count(*) FROM pg_replication_slots WHERE active = {state}");
        estate.cluster.psql("postgres", &count) == "1"
    };
    wait_until("the receiver streams", PATIENCE, || {
        assert!(receiver.is_running(), "{}", receiver.stderr());
        slot("true")
    });
    let shown = estate.run(&["show", "-e", "production"]).ok().stdout;
    for phrase in [
        "production: can be restored from 20",
        "every second of it",
        "nothing is known to be broken\n",
        "restore -e production --to latest --pgdata",
        "watermark: none – a part was never backed up",
        "would be lost now: ",
        "base backups\n",
        "timeline 1: 0000000100000000000000",
        "last drill: never",
        "PostgreSQL: running, at 0/",
        "slot lifeboat: WAL is being received; reserved, PostgreSQL keeps",
    ] {
        assert!(shown.contains(phrase), "no \"{phrase}\" in\n{shown}");
    }
    receiver.signal(nix::sys::signal::Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    wait_until("PostgreSQL notices that the receiver went", PATIENCE, || slot("false"));
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("- nobody receives WAL") && shown.contains("slot lifeboat: NOBODY RECEIVES WAL"), "{shown}");

    let only_index_key = estate.with("host.toml", "", &estate.cluster.dsn(), None, "state");
    let only_identity = estate.with("clean.toml", "", &estate.cluster.dsn(), Some("recovery.key"), "no-state");
    let unmounted = estate.with("unmounted.toml", "", &estate.cluster.dsn(), Some("absent.key"), "state");
    for lifeboat in [only_index_key, only_identity, unmounted] {
        let shown = lifeboat.run(&["show"]).ok().stdout;
        assert!(shown.contains("can be restored from"), "{shown}");
    }

    // The store is away: what PostgreSQL holds back is told all the same, and nothing is claimed of the rest.
    for _ in 0..3 {
        estate.switch();
    }
    let hidden = estate.scratch.join("hidden");
    fs::rename(estate.repository(), &hidden).expect("moved away");
    let away = estate.run(&["show"]).expect_code(5).stdout;
    assert!(away.contains("what can be restored is not known") && !away.contains("last drill"), "{away}");
    assert!(away.contains("PostgreSQL keeps 3.0 MiB for it"), "{away}");
    let doctor = estate.run(&["doctor"]).expect_code(5).stdout;
    assert!(doctor.contains("FAIL     store: ") && doctor.contains("PostgreSQL keeps 3.0 MiB"), "{doctor}");
    fs::rename(&hidden, estate.repository()).expect("moved back");

    estate.cluster.stop();
    let shown = estate.run(&["show"]).ok().stdout;
    assert!(shown.contains("can be restored from"), "{shown}");
    assert!(shown.contains("PostgreSQL: not reachable, so its slot and its WAL are not known"), "{shown}");
}

#[test]
fn an_auditor_needs_a_copy_and_nothing_else() {
    let estate = Estate::filled();
    let copy = estate.scratch.join("copy");
    for object in walkdir::WalkDir::new(estate.repository()).into_iter().filter_map(Result::ok) {
        let to = copy.join(object.path().strip_prefix(estate.repository()).expect("below"));
        if object.file_type().is_dir() {
            fs::create_dir_all(to).expect("a folder");
        } else if !object.path().to_string_lossy().contains("/data/") {
            fs::copy(object.path(), to).expect("copied");
        }
    }
    let auditor = Lifeboat::new(estate.scratch.join("there-is-no-configuration.toml"));
    let copy = copy.display().to_string();
    let arguments = ["evidence", "verify", "-e", "production", "--repository", &copy];
    let proven = auditor.run(&arguments).ok();
    assert!(proven.stdout.starts_with("proven: every one of the"), "{}", proven.stdout);
    assert!(proven.stdout.contains("signed by "), "{}", proven.stdout);

    let rows = auditor.run(&["evidence", "show", "-e", "production", "--repository", &copy]).ok().stdout;
    assert!(rows.contains("base backup") && rows.contains("restorable from"), "{rows}");
    let show = ["evidence", "show", "-e", "production", "--repository", &copy, "--format", "json"];
    let entries = auditor.run(&show).ok().json();
    let mut entries = entries["entries"].as_array().expect("entries").iter();
    let base = entries.find(|e| e["kind"] == "base_backup").expect("a base backup")["sequence"].to_string();
    let show = ["evidence", "show", "-e", "production", "--repository", &copy, "--sequence", &base];
    let entry = auditor.run(&show).ok().json();
    assert_eq!(entry["statement"]["predicate"]["body"]["kind"], "base_backup", "{entry:#}");
    auditor.run(&["evidence", "verify", "-e", "staging", "--repository", &copy]).expect_code(5);
    auditor.run(&["evidence", "verify", "-e", "production", "--repository", "/nowhere"]).expect_code(5);

    // Who was handed a key relies on that key alone.
    let descriptor = fs::read(Path::new(&copy).join("lifeboat.json")).expect("there");
    let descriptor: serde_json::Value = serde_json::from_slice(&descriptor).expect("JSON");
    let key = |signer: usize| descriptor["signers"][signer]["key"].as_str().expect("a key").to_owned();
    auditor.run(&[&arguments[..], &["--key", &key(0)]].concat()).ok();
    auditor.run(&[&arguments[..], &["--key", &key(1)]].concat()).expect_code(6);
    auditor.run(&[&arguments[..], &["--key", "nonsense"]].concat()).expect_code(2);

    let entry = Path::new(&copy).join("production/ledger/00000000000000000001.json");
    let _harmed = Harmed::new(Harm::Flip, &entry, &entry);
    let refuted = auditor.run(&arguments).expect_code(6);
    assert!(refuted.stdout.starts_with("NOT PROVEN:") && refuted.stdout.contains("entry 1:"), "{}", refuted.stdout);
}

/// A small Odoo: the tables that a capture looks at.
const ODOO: &str = "
    CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, type varchar DEFAULT 'binary', res_model varchar,
        res_id int, res_field varchar, store_fname varchar, url varchar, db_datas bytea, file_size int, checksum varchar,
        create_date timestamp DEFAULT (now() AT TIME ZONE 'UTC'), write_date timestamp DEFAULT (now() AT TIME ZONE 'UTC'));
    CREATE TABLE ir_config_parameter (key varchar, value text);
    CREATE TABLE ir_module_module (id serial, name varchar, state varchar, latest_version varchar, author varchar,
        license varchar);
    CREATE TABLE ir_cron (id serial, cron_name varchar, active boolean, nextcall timestamp);
    INSERT INTO ir_config_parameter VALUES ('database.uuid', '11111111-2222-3333-4444-555555555555')";

#[test]
fn filestores_and_configuration_are_shown_verified_and_limit_the_watermark() {
    let mut estate = Estate::new();
    estate.cluster.psql("postgres", "CREATE DATABASE shop");
    estate.cluster.psql("shop", ODOO);
    let data_dir = estate.scratch.server_dir("odoo");
    let attach = |content: &str| {
        use sha1::Digest;
        let digits = hex::encode(sha1::Sha1::digest(content.as_bytes()));
        let file = data_dir.join("filestore/shop").join(&digits[..2]).join(&digits);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, content).expect("written");
        let row = "INSERT INTO ir_attachment (name, res_model, res_id, store_fname, file_size) VALUES";
        let values = format!("('x', 'sale.order', 42, '{}/{digits}', {})", &digits[..2], content.len());
        estate.cluster.psql("shop", &format!("{row} {values}"));
    };
    let environment = format!(
        "dsn = \"{}\"\n[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"shop\"]\n[environment.configuration]\nprocess_environment = false",
        estate.cluster.dsn(),
        data_dir.display()
    );
    let lifeboat = estate.with("lifeboat.toml", "", &environment, Some("recovery.key"), "state");
    attach("one");
    lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    estate.receive();
    let limits = |lifeboat: &Lifeboat| -> Vec<String> {
        let shown = lifeboat.run(&["--format", "json", "show"]).ok().json();
        let parts = shown["environments"][0]["watermark"]["components"].as_array().expect("parts").clone();
        let limiting = parts.iter().filter(|p| p["limits"] == true);
        limiting.map(|p| p["part"].as_str().expect("a part").to_owned()).collect()
    };
    assert_eq!(limits(&lifeboat), ["filestore", "configuration"]);
    lifeboat.run(&["backup", "filestore", "-e", "production"]).ok();
    assert_eq!(limits(&lifeboat), ["configuration"]);
    lifeboat.run(&["backup", "configuration", "-e", "production"]).ok();
    attach("two");
    lifeboat.run(&["backup", "filestore", "-e", "production"]).ok();
    estate.lifeboat = lifeboat;
    estate.receive();
    assert_eq!(limits(&estate.lifeboat), ["configuration"], "it is the oldest");
    let shown = estate.run(&["show"]).ok().stdout;
    for phrase in ["filestore of shop", "limits it", "filestore captures\n", "complete\n", "configuration export "] {
        assert!(shown.contains(phrase), "no \"{phrase}\" in\n{shown}");
    }
    let doctor = estate.run(&["--format", "json", "doctor"]).ok();
    assert!(finding(&doctor, "filestore").starts_with("ok: "));
    assert!(finding(&doctor, "databases").starts_with("ok: shop"));

    estate.deep().ok();
    let mut blamed = std::collections::BTreeSet::new();
    for object in [estate.objects("production/meta"), estate.objects("production/data")].concat() {
        let _harmed = Harmed::new(Harm::Delete, &object, &object);
        let report = estate.run(&["--format", "json", "verify", "-e", "production"]).expect_code(6).json();
        let problems = report["verify"]["problems"].as_array().expect("problems");
        assert_eq!(problems.len(), 1, "{report:#}");
        assert!(object.ends_with(problems[0]["object"].as_str().expect("a name")), "{report:#}");
        let affects = problems[0]["affects"].as_array().expect("a list");
        assert!(!affects.is_empty(), "{report:#}");
        blamed.extend(
            affects.iter().map(|a| a.as_str().expect("words").split(' ').take(2).collect::<Vec<_>>().join(" ")),
        );
    }
    let blamed: Vec<&str> = blamed.iter().map(String::as_str).collect();
    assert_eq!(blamed, ["base backup", "configuration export", "filestore capture"]);
    estate.deep().ok();
}

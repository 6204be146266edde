//! A drill with the real Odoo 19, and a module in it that mails and calls webhooks: behind the seal it is started,
//! answers, and reaches nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Cluster, Estate, Scratch, fixture_odoo, load_fixture, skip};

/// The module is installed, a schedule runs it, mail goes out through a server with a password, and mails wait.
const NOISE: &str = "
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('lifeboat_noise', 'installed', '19.0.1.0');
UPDATE ir_act_server SET code = 'env[\"lifeboat.noise\"].from_cron()'
 WHERE id = (SELECT ir_actions_server_id FROM ir_cron WHERE active ORDER BY id LIMIT 1);
UPDATE ir_cron SET nextcall = now() AT TIME ZONE 'UTC' - interval '1 day';
INSERT INTO ir_mail_server (name, smtp_host, smtp_port, smtp_encryption, smtp_authentication, smtp_user, smtp_pass, active)
VALUES ('out', 'smtp.noise.lifeboat.example', 587, 'none', 'login', 'shop', 'hunter2', true);
";

fn odoo() -> Option<PathBuf> {
    std::env::var_os("LIFEBOAT_TEST_ODOO").map(PathBuf::from).filter(|root| root.join("19/odoo-bin").exists())
}

#[test]
fn a_drill_starts_the_real_odoo_and_nothing_of_it_leaves_the_sandbox() {
    let (Some(fixture), Some(odoo)) = (fixture_odoo(), odoo()) else {
        skip!("no fixtures or no Odoo (LIFEBOAT_TEST_FIXTURES, LIFEBOAT_TEST_ODOO)")
    };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let data_dir = scratch.join("odoo");
    load_fixture(&fixture, &cluster, "retail", &data_dir);
    cluster.psql("retail", NOISE);
    let uuid = "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'";
    let source_uuid = cluster.psql("retail", uuid);
    let drills = scratch.server_dir("drills");
    // Where the drill's Odoo can read it.
    let modules = scratch.join("modules");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odoo_modules"), &modules);
    let tables = format!(
        "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"retail\"]\n[environment.drill]\nwork_dir = \"{}\"\n\
         [environment.drill.odoo]\ncommand = [\"{}\", \"{}\"]\naddons_path = [\"{}\"]\nboot_timeout = \"5m\"\n",
        data_dir.display(),
        drills.display(),
        odoo.join("venv19/bin/python").display(),
        odoo.join("19/odoo-bin").display(),
        modules.display(),
    );
    let estate = Estate::builder(&scratch, &cluster).tables(&tables).init();
    let receiver = estate.receive(&cluster);
    estate.run(&["backup", "all"]).ok();
    estate.caught_up(&cluster);
    receiver.kill9();

    let mut slow = estate.clone();
    slow.lifeboat = slow.lifeboat.timeout(Duration::from_secs(600));
    let reports = scratch.join("reports").display().to_string();
    let done = slow.run(&["drill", "run", "--report", &reports]);
    let json = done.json();
    let record = &json["drill"];
    let findings = record["findings"].to_string();
    if findings.contains("not sealed") {
        skip!("the sandbox is not sealed here, and Odoo is started behind a seal only")
    }
    assert_eq!(record["verdict"], "passed", "{record}");
    let result = |id: &str| {
        let checks = record["checks"].as_array().expect("checks");
        let found = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id} in {record}"));
        found["result"].as_str().expect("a result").to_owned()
    };
    for id in ["N1", "N2", "N3", "N4", "N7", "N8", "N10", "N15"] {
        assert_eq!(result(id), "passed", "{id}");
    }
    for id in ["B1", "B2", "B3", "B4", "H1", "H2", "H3", "H4", "H5", "H6", "H7"] {
        assert_eq!(result(id), "passed", "{id}");
    }
    let neutralised = &record["neutralised"][0];
    assert_eq!(neutralised["uuid_before"], source_uuid.as_str());
    assert_ne!(neutralised["uuid_after"], source_uuid.as_str());
    assert_eq!(record["boots"][0]["modules_loaded"], 76);

    // Every attempt is known by name or address, port, and what was wanted; none came from a schedule.
    let egress = &record["egress"];
    let destinations = egress["destinations"].as_array().expect("destinations");
    let asked = |protocol: &str, place: &str, port: u64| {
        destinations
            .iter()
            .any(|d| d["protocol"] == protocol && d["port"] == port && (d["name"] == place || d["address"] == place))
    };
    assert!(asked("smtp", "smtp.noise.lifeboat.example", 587), "{egress}");
    assert!(asked("smtp", "192.0.2.25", 587), "{egress}");
    assert!(asked("http", "hooks.noise.lifeboat.example", 80), "{egress}");
    assert!(asked("http", "192.0.2.80", 8080), "{egress}");
    assert!(asked("http", "2001:db8::80", 80), "{egress}");
    assert!(asked("tcp", "198.51.100.7", 5432), "{egress}");
    let text = egress.to_string();
    assert!(text.contains("mail from shop@noise.lifeboat.example to customer@noise.lifeboat.example: Your order"));
    assert!(text.contains("POST http://hooks.noise.lifeboat.example/register_hook"), "{text}");
    assert!(!text.contains("/cron"), "a schedule ran: {text}");
    assert!(text.contains("odoo-bin"), "the process is not known: {text}");
    assert!(findings.contains("mail is neutralised, but smtp to smtp.noise.lifeboat.example"), "{findings}");

    let html = fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
    for told in ["What the copy tried to reach", "hooks.noise.lifeboat.example", "Odoo on the restored data"] {
        assert!(html.contains(told), "{told}");
    }
    // The source was not touched.
    assert_eq!(cluster.psql("retail", uuid), source_uuid);
    assert_eq!(cluster.psql("retail", "SELECT count(*) > 0 FROM ir_cron WHERE active"), "t");
    estate.run(&["evidence", "verify"]).ok();
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.expect("readable");
        let target = to.join(entry.path().strip_prefix(from).expect("below"));
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).expect("a directory");
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

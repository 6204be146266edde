//! Starting things on restored databases: scripts that behave as a broken Odoo would, and the real Odoo of each series.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Booted, Settings, Surroundings, Way, run};
use crate::config::{self, DrillOdoo, checks_of};
use crate::drill::neutralise::{self, AddonsPaths};
use crate::drill::testing::Copy;
use crate::drill::testing::common::{RealOdoo, Scratch, free_port, load_fixture, skip};
use crate::evidence::drill_record::{Check, CheckResult};
use crate::postgres::launch::OnHost;

const SMALL: &str = "
CREATE TABLE ir_module_module (id serial, name text, state text, latest_version text);
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '19.0.1.3');
CREATE TABLE ir_config_parameter (id serial, key text UNIQUE, value text);
INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', '62242238-e6a9-11f1-a45e-02fc00000001');
CREATE TABLE res_users (id serial, login text, password text, active bool);
CREATE TABLE res_groups_users_rel (gid int, uid int);
CREATE TABLE ir_model_data (id serial, module text, name text, model text, res_id int);
CREATE SCHEMA more; CREATE VIEW more.v AS SELECT 1 AS one; CREATE SEQUENCE s;
";

struct Trial {
    copy: Copy,
    odoo: DrillOdoo,
    addons: AddonsPaths,
    checks: Vec<config::Check>,
    series: u32,
}

impl Trial {
    async fn small(script: &str) -> Self {
        let copy = Copy::new(Scratch::new(), |cluster| {
            cluster.psql("postgres", "CREATE DATABASE shop");
            cluster.psql("shop", SMALL);
        })
        .await;
        let program = copy.scratch.write("odoo-bin", format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("own file");
        let odoo = DrillOdoo {
            command: vec![program.display().to_string()],
            addons_path: Vec::new(),
            arguments: Vec::new(),
            boot_timeout: Duration::from_secs(2),
            read_only_paths: Vec::new(),
        };
        Self { copy, odoo, addons: AddonsPaths::from(vec!["/usr".into()]), checks: Vec::new(), series: 19 }
    }

    /// The stand-in for Odoo, with checks in a file of the user's.
    async fn answering(checks: &str) -> Self {
        let mut trial = Self::small("").await;
        trial.copy.psql("shop", "INSERT INTO res_users VALUES (2, 'admin', 'secret', true)").await;
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odoo_stand_in.py");
        let program = trial.copy.scratch.write("odoo.py", std::fs::read(stand_in).expect("the stand-in"));
        trial.odoo.command = vec!["/usr/bin/python3".into(), program.display().to_string()];
        trial.odoo.boot_timeout = Duration::from_secs(60);
        trial.checks = checks_of(&trial.copy.scratch.write("checks.toml", checks)).expect("checks");
        trial
    }

    async fn run(&self, database: &str) -> Booted {
        let port = free_port();
        let around = Surroundings {
            launch: &OnHost { account: self.copy.account.clone() },
            account: self.copy.account.as_ref(),
            filestore: &self.copy.scratch.join("odoo/filestore"),
            home: &self.copy.scratch.join("home"),
            port,
            way: Way::Loopback(port),
        };
        let checks: Vec<&config::Check> = self.checks.iter().collect();
        let settings = Settings { odoo: &self.odoo, addons: &self.addons, around: &around, checks: &checks };
        run(&self.copy.server, database, self.series, &settings).await.expect("tried")
    }
}

fn check<'a>(booted: &'a Booted, id: &str) -> &'a Check {
    booted.checks.iter().find(|c| c.id == id).unwrap_or_else(|| panic!("no {id} in {:?}", booted.checks))
}

#[tokio::test]
async fn an_odoo_that_hangs_is_ended_and_its_last_words_are_kept() {
    let trial = Trial::small("echo 'waiting for a lock that nobody gives'; echo $$ > pid; exec sleep 1000").await;
    let booted = trial.run("shop").await;
    let b1 = check(&booted, "B1");
    assert_eq!(b1.result, CheckResult::Failed);
    assert!(b1.detail.contains("within 2 s"), "{}", b1.detail);
    assert_eq!(b1.rows, ["waiting for a lock that nobody gives"]);
    let pid = std::fs::read_to_string(trial.copy.scratch.join("home/data/pid")).expect("it ran");
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it still runs");
    assert_eq!(booted.record.seconds, None);
}

#[tokio::test]
async fn an_odoo_that_ends_or_gives_up_is_not_waited_for() {
    let line = "2026-11-23 03:19:24,157 1 CRITICAL shop odoo.service.server: Failed to initialize database `shop`.";
    let mut trial = Trial::small(&format!("echo '{line}'; exec sleep 1000")).await;
    trial.odoo.boot_timeout = Duration::from_secs(600);
    let booted = trial.run("shop").await;
    assert!(check(&booted, "B1").detail.contains("Failed to initialize database"), "{:?}", booted.checks);
    assert_eq!(check(&booted, "B3").result, CheckResult::Failed);

    let mut trial = Trial::small("echo 'no module named odoo' >&2; exit 3").await;
    trial.odoo.boot_timeout = Duration::from_secs(600);
    let booted = trial.run("shop").await;
    assert!(check(&booted, "B1").detail.contains("exit status: 3"), "{}", check(&booted, "B1").detail);
    assert_eq!(check(&booted, "B1").rows, ["no module named odoo"]);
}

#[tokio::test]
async fn what_odoo_gets_is_a_role_that_owns_its_database_and_makes_no_other() {
    // It says that it is up, but answers nothing, and does to the database what Odoo must not do.
    let up = "2026-11-23 03:19:24,157 1 INFO shop odoo.registry: Registry loaded in 1.0s";
    let socket = "socket=$(sed -n 's/^db_host = //p' ../shop.conf)";
    let sql = "psql -h $socket -U lifeboat_odoo -v ON_ERROR_STOP=0 -d shop -c";
    let script = format!(
        "{socket}; export PATH=/usr/lib/postgresql/15/bin:$PATH
         {sql} 'ALTER TABLE ir_module_module ADD x int' > altered 2>&1; {sql} 'CREATE DATABASE stray' > created 2>&1
         {sql} \"UPDATE ir_config_parameter SET value = 'another'\" > updated 2>&1; {sql} 'SELECT one FROM more.v' > view 2>&1
         {sql} 'CREATE SEQUENCE t' > sequence 2>&1
         echo '{up}'; exec sleep 1000"
    );
    let mut trial = Trial::small(&script).await;
    trial.odoo.boot_timeout = Duration::from_secs(20);
    let booted = trial.run("shop").await;
    let told = |name: &str| std::fs::read_to_string(trial.copy.scratch.join("home/data").join(name)).expect("a file");
    assert!(told("altered").contains("ALTER TABLE"), "{}", told("altered"));
    assert!(told("view").contains("1 row") && told("sequence").contains("CREATE SEQUENCE"), "{}", told("view"));
    assert!(told("created").contains("permission denied"), "{}", told("created"));
    assert!(told("updated").contains("UPDATE 1"));
    let b4 = check(&booted, "B4");
    assert_eq!((b4.result, b4.rows.len()), (CheckResult::Failed, 1), "{b4:?}");
    assert!(b4.rows[0].contains("database.uuid"));
    // Nothing answers: that is said of each question, and nothing hangs.
    assert_eq!(check(&booted, "B1").result, CheckResult::Passed);
    assert_eq!(check(&booted, "B2").result, CheckResult::Failed, "no line tells how many modules");
    assert_eq!(check(&booted, "H1").result, CheckResult::Failed);
    assert_eq!(check(&booted, "H4").result, CheckResult::Failed);
}

/// A page that the Odoo must serve, asked as its user or as nobody.
fn page(id: &str, http: &str) -> String {
    format!(
        "[[check]]\nid = \"{id}\"\ntitle = \"t\"\nseverity = \"hard\"\nwhy = \"w\"\ntimeout = \"2s\"\nhttp = {{ {http} }}\n"
    )
}

#[tokio::test]
async fn pages_are_asked_as_their_checks_say() {
    let pages = [
        ("whoever", "path = \"/shop?{database}\", contains = \"<p>shop</p>\"", CheckResult::Passed),
        ("nobody", "path = \"/my/orders\", contains = \"csrf_token\"", CheckResult::Passed),
        ("led-away", "path = \"/my/orders\", status = 303", CheckResult::Passed),
        ("user", "path = \"/my/orders\", login = true, contains = \"Your orders\"", CheckResult::Passed),
        ("type", "path = \"/shop/price.json\", content_type = \"Application/JSON\"", CheckResult::Passed),
        ("other-type", "path = \"/shop/price.json\", content_type = \"text/html\"", CheckResult::Failed),
        ("lost", "path = \"/lost\"", CheckResult::Failed),
        ("known-to-be-lost", "path = \"/lost\", status = 404", CheckResult::Passed),
        ("hangs", "path = \"/shop/hangs\"", CheckResult::Failed),
    ];
    let file: String = pages.iter().map(|(id, http, _)| page(id, http)).collect();
    let trial = Trial::answering(&file).await;
    let booted = trial.run("shop").await;
    for id in ["B1", "B2", "B3", "B4", "H1", "H2", "H3", "H4", "H5"] {
        assert_eq!(check(&booted, id).result, CheckResult::Passed, "{:?}", check(&booted, id));
    }
    for (id, _, wanted) in &pages {
        assert_eq!(check(&booted, id).result, *wanted, "{:?}", check(&booted, id));
    }
    assert!(check(&booted, "hangs").detail.contains("no answer within 2 s"), "{}", check(&booted, "hangs").detail);

    // Nobody can log in: what only a user sees is not asked, and that is an error.
    trial.copy.psql("shop", "UPDATE res_users SET active = false").await;
    let booted = trial.run("shop").await;
    assert_eq!(check(&booted, "user").result, CheckResult::Error);
    assert_eq!(check(&booted, "whoever").result, CheckResult::Passed);
}

/// A fixture on a private server, its filestore, and the Odoo that fits it.
async fn fixture(real: &RealOdoo) -> Trial {
    let scratch = Scratch::new();
    let data_dir = scratch.join("odoo");
    let copy = Copy::new(scratch, |cluster| load_fixture(&real.fixture, cluster, "retail", &data_dir)).await;
    let odoo = DrillOdoo {
        command: real.command().to_vec(),
        addons_path: vec![copy.addons.clone()],
        arguments: Vec::new(),
        boot_timeout: Duration::from_secs(300),
        read_only_paths: Vec::new(),
    };
    let addons = AddonsPaths::from([real.addons(), vec![copy.addons.clone()]].concat());
    Trial { copy, odoo, addons, checks: Vec::new(), series: real.series }
}

#[tokio::test]
async fn the_real_odoo_starts_on_its_fixture_and_answers() {
    if RealOdoo::all().is_empty() {
        skip!("no Odoo with a database (LIFEBOAT_TEST_ODOO)")
    }
    for real in RealOdoo::all() {
        starts_and_answers(&real).await;
    }
}

async fn starts_and_answers(real: &RealOdoo) {
    let trial = fixture(real).await;
    let settings = neutralise::Settings { addons: &trial.addons, allow: &[], base_url: "http://127.0.0.1:8169" };
    let neutral = neutralise::run(&trial.copy.server, &settings).await.expect("neutralised");
    assert!(neutral[0].is_proven());

    // One file is lost and one is cut off: only asking for the content finds the second.
    let files = trial.copy.scratch.join("odoo/filestore/retail");
    let sound = trial.run("retail").await;
    let failed = |booted: &Booted| -> Vec<String> {
        booted
            .checks
            .iter()
            .filter(|c| c.result == CheckResult::Failed)
            .map(|c| format!("{}: {} {:?}", c.id, c.detail, c.rows))
            .collect()
    };
    assert_eq!(failed(&sound), [] as [String; 0]);
    for id in ["B1", "B2", "B3", "B4", "H1", "H2", "H3", "H4", "H5", "H6", "H7"] {
        assert_eq!(check(&sound, id).result, CheckResult::Passed, "{id}");
    }
    assert_eq!(sound.record.modules_loaded, Some(sound.record.modules_installed));
    assert!(sound.record.modules_installed >= 75, "{:?}", sound.record);
    assert!(sound.record.odoo.as_deref().is_some_and(|v| v.starts_with(&format!("{}.0", real.series))));

    let largest = "SELECT store_fname::text FROM ir_attachment WHERE store_fname IS NOT NULL AND res_model IS DISTINCT FROM 'ir.ui.view' ORDER BY file_size DESC, id LIMIT 1";
    let victim = files.join(trial.copy.ask("retail", largest).await);
    let content = std::fs::read(&victim).expect("a file");
    std::fs::write(&victim, &content[..content.len() / 2]).expect("cut off");
    let cut = trial.run("retail").await;
    assert_eq!(check(&cut, "H6").result, CheckResult::Failed, "{:?}", cut.checks);
    assert!(check(&cut, "H6").rows[0].contains("instead of"), "{:?}", check(&cut, "H6").rows);
    assert_eq!(failed(&cut).len(), 1, "{:?}", failed(&cut));
    std::fs::write(&victim, &content).expect("whole again");

    // A module that is installed and not there: Odoo starts, and only its log tells.
    let gone =
        "INSERT INTO ir_module_module (name, state, latest_version) VALUES ('x_shop', 'installed', 'SERIES.0.1.0')";
    trial.copy.psql("retail", &gone.replace("SERIES", &real.series.to_string())).await;
    let lacking = trial.run("retail").await;
    for id in ["B2", "B3"] {
        assert_eq!(check(&lacking, id).result, CheckResult::Failed, "{id}");
    }
    assert_eq!(check(&lacking, "B1").result, CheckResult::Passed);
    assert!(lacking.record.problems.iter().any(|p| p.contains("x_shop")), "{:?}", lacking.record.problems);
}

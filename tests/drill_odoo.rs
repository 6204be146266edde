//! Drills with the real Odoo, of each series that this machine has, from its source and from an image; and a module in
//! it that mails and calls webhooks: behind the seal it is started, answers, and reaches nobody.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Cluster, Engine, Estate, RealOdoo, Scratch, load_fixture, skip};

/// The module is installed, a schedule runs it, mail goes out through a server with a password, and mails wait.
const NOISE: &str = "
INSERT INTO ir_module_module (name, state, latest_version) VALUES ('lifeboat_noise', 'installed', 'SERIES.0.1.0');
UPDATE ir_act_server SET code = 'env[\"lifeboat.noise\"].from_cron()'
 WHERE id = (SELECT ir_actions_server_id FROM ir_cron WHERE active ORDER BY id LIMIT 1);
UPDATE ir_cron SET nextcall = now() AT TIME ZONE 'UTC' - interval '1 day';
";
/// Since then modules bring what neutralises them, and mail servers say how to log in.
const FIRST_WITH_SCRIPTS: u32 = 16;
const UUID: &str = "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'";
const INSTALLED: &str = "SELECT count(*) FROM ir_module_module WHERE state = 'installed'";
/// Assertions about neutralising, starting and asking that apply to every series.
const HOLD: [&str; 20] = [
    "N1", "N2", "N3", "N4", "N7", "N8", "N10", "N15", "B1", "B2", "B3", "B4", "H1", "H2", "H3", "H4", "H5", "H6", "H7",
    "F4",
];

/// An estate with an Odoo that makes noise, all of it in the repository.
struct Shop {
    scratch: Scratch,
    cluster: Cluster,
    estate: Estate,
}

/// Which Odoo a drill starts, and where.
enum Means<'a> {
    /// This machine's, in the local sandbox.
    Source,
    /// That of an image, in containers.
    Image(&'a Engine, String),
}

impl Shop {
    fn open(odoo: &RealOdoo, scratch: Scratch, cluster: Cluster, means: &Means<'_>) -> Self {
        let data_dir = scratch.join("odoo");
        load_fixture(&odoo.fixture, &cluster, "retail", &data_dir);
        cluster.psql("retail", &NOISE.replace("SERIES", &odoo.series.to_string()));
        let (column, value) =
            if odoo.series >= FIRST_WITH_SCRIPTS { (", smtp_authentication", ", 'login'") } else { ("", "") };
        cluster.psql(
            "retail",
            &format!(
                "INSERT INTO ir_mail_server (name, smtp_host, smtp_port, smtp_encryption, smtp_user, smtp_pass, active{column})
                 VALUES ('out', 'smtp.noise.lifeboat.example', 587, 'none', 'shop', 'hunter2', true{value})"
            ),
        );
        let drills = scratch.server_dir("drills");
        // Where the drill's Odoo can read it.
        let modules = scratch.join("modules");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odoo_modules"), &modules);
        let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/odoo-hard.toml");
        fs::create_dir_all(scratch.join("restore-tests")).expect("a directory");
        fs::copy(suite, scratch.join("restore-tests/odoo-hard.toml")).expect("the suite");
        let (sandbox, command, read) = match means {
            Means::Source => (String::new(), odoo.command().to_vec(), String::new()),
            Means::Image(engine, image) => (
                format!("{}odoo = \"{image}\"\nbin_dir = \"{}\"\n", engine.tables(), cluster.bin_dir().display()),
                vec!["/usr/bin/odoo".to_owned()],
                format!("read_only_paths = [\"{}\"]\n", modules.display()),
            ),
        };
        let tables = format!(
            "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"retail\"]\n[environment.drill]\nwork_dir = \"{}\"\n\
             {sandbox}[environment.drill.odoo]\ncommand = {command:?}\naddons_path = [\"{}\"]\nboot_timeout = \"8m\"\n{read}",
            data_dir.display(),
            drills.display(),
            modules.display(),
        );
        let estate = Estate::builder(&scratch, &cluster).include("restore-tests/*.toml").tables(&tables).init();
        let receiver = estate.receive(&cluster);
        estate.run(&["backup", "all"]).ok();
        estate.caught_up(&cluster);
        receiver.kill9();
        Self { scratch, cluster, estate }
    }

    /// The record of a drill that must pass, and its report.
    fn drill(&self) -> (Value, String) {
        let mut slow = self.estate.clone();
        slow.lifeboat = slow.lifeboat.timeout(Duration::from_secs(900));
        let reports = self.scratch.join("reports").display().to_string();
        let json = slow.run(&["drill", "run", "--report", &reports]).json();
        let html = fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
        (json["drill"].clone(), html)
    }
}

/// What must be told of a drill with this Odoo, whatever it was started from.
fn holds(shop: &Shop, series: u32, record: &Value, html: &str, program: &str) {
    let findings = record["findings"].to_string();
    assert_eq!(record["verdict"], "passed", "{record}");
    let checks = record["checks"].as_array().expect("checks");
    for id in HOLD {
        let found = checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id} in {record}"));
        assert_eq!(found["result"], "passed", "{found}");
    }
    let hard: Vec<&Value> = checks.iter().filter(|c| c["severity"] == "hard" && c["result"] == "passed").collect();
    assert!(hard.len() >= 30, "only {} hard checks apply", hard.len());
    let source_uuid = shop.cluster.psql("retail", UUID);
    let neutralised = &record["neutralised"][0];
    assert_eq!(neutralised["uuid_before"], source_uuid.as_str());
    assert_ne!(neutralised["uuid_after"], source_uuid.as_str());
    let scripts = neutralised["scripts"].to_string();
    let with_scripts: &[&str] =
        if series >= FIRST_WITH_SCRIPTS { &["base", "mail", "payment", "web", "iap"] } else { &[] };
    for module in with_scripts {
        assert!(scripts.contains(&format!("/{module}/data/neutralize.sql")), "{scripts}");
    }
    let boot = &record["boots"][0];
    assert_eq!(boot["modules_loaded"].to_string(), shop.cluster.psql("retail", INSTALLED), "{boot}");
    println!(
        "Odoo {} with {} modules: registry after {} s, RTO {} s",
        boot["odoo"], boot["modules_loaded"], boot["seconds"], record["rto"]["measured_seconds"]
    );

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
    assert!(text.contains(program), "the process is not known: {text}");
    assert!(findings.contains("mail is neutralised, but smtp to smtp.noise.lifeboat.example"), "{findings}");
    for told in ["What the copy tried to reach", "hooks.noise.lifeboat.example", "Odoo on the restored data"] {
        assert!(html.contains(told), "{told}");
    }

    // The source was not touched.
    assert_eq!(shop.cluster.psql("retail", UUID), source_uuid);
    assert_eq!(shop.cluster.psql("retail", "SELECT count(*) > 0 FROM ir_cron WHERE active"), "t");
    shop.estate.run(&["evidence", "verify"]).ok();
}

fn from_source(series: u32) {
    let Some(odoo) = RealOdoo::find(series) else { skip!("no Odoo {series} with a database (LIFEBOAT_TEST_ODOO)") };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let shop = Shop::open(&odoo, scratch, cluster, &Means::Source);
    let (record, html) = shop.drill();
    if record["findings"].to_string().contains("not sealed") {
        skip!("the sandbox is not sealed here, and Odoo is started behind a seal only")
    }
    holds(&shop, series, &record, &html, "odoo-bin");
}

fn from_an_image(series: u32) {
    let Some(odoo) = RealOdoo::find(series) else { skip!("no Odoo {series} with a database (LIFEBOAT_TEST_ODOO)") };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let made = Engine::shared(cluster.bin_dir()).and_then(|engine| Ok((odoo.image(&engine)?, engine)));
    let (image, engine) = match made {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let shop = Shop::open(&odoo, scratch, cluster, &Means::Image(&engine, image.clone()));
    let (record, html) = shop.drill();
    holds(&shop, series, &record, &html, "/usr/bin/odoo");
    assert_eq!(record["sandbox"]["images"][1]["reference"], image, "{}", record["sandbox"]);
    // Its own modules were found in the image, by the layout of Debian's package.
    let scripts = record["neutralised"][0]["scripts"].to_string();
    assert!(scripts.contains("/usr/lib/python3/dist-packages/odoo/addons/base/data/neutralize.sql"), "{scripts}");
    // The image cannot print, whatever this machine can.
    let checks = record["checks"].as_array().expect("checks");
    let printed = checks.iter().find(|check| check["id"] == "H8").expect("H8");
    assert_eq!(printed["result"], "not_applicable", "{printed}");
    assert_eq!(engine.left_of(shop.scratch.path()), [] as [String; 0]);
}

#[test]
fn odoo_14_from_its_source_reaches_nobody() {
    from_source(14);
}

#[test]
fn odoo_16_from_its_source_reaches_nobody() {
    from_source(16);
}

#[test]
fn odoo_17_from_its_source_reaches_nobody() {
    from_source(17);
}

#[test]
fn odoo_18_from_its_source_reaches_nobody() {
    from_source(18);
}

#[test]
fn odoo_19_from_its_source_reaches_nobody() {
    from_source(19);
}

#[test]
fn odoo_16_from_an_image_reaches_nobody() {
    from_an_image(16);
}

#[test]
fn odoo_18_from_an_image_reaches_nobody() {
    from_an_image(18);
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

//! Drills in containers of a real engine: what they run is what was pinned, and nothing of them is left, in the
//! engine either.

use std::path::Path;
use std::sync::Arc;

use crate::common::{Engine, skip};
use crate::drill::Site;

use super::kills::{kill_when, killed_in_every_stage};
use super::limits::{fails_for, greedy, with};

/// What an engine has of a site.
fn left(engine: &Engine, site: &Site) -> Vec<String> {
    engine.left_of(site.estate.scratch.path())
}

/// An engine with the PostgreSQL of a site, which drills in it.
fn site() -> Result<(Arc<Engine>, Site), String> {
    let site = Site::new(|cluster| cluster);
    let engine = Engine::shared(site.bin_dir())?;
    contain(&site, &engine);
    site.back_up();
    Ok((engine, site))
}

fn contain(site: &Site, engine: &Engine) {
    let keys = engine.tables();
    let bin_dir = format!("bin_dir = \"{}\"\n", site.bin_dir().display());
    let (sandbox, table) = keys.split_once('\n').expect("two parts");
    with(site, sandbox);
    site.estate.reconfigure("[[check]]\nid = \"T1\"", &format!("{table}{bin_dir}[[check]]\nid = \"T1\""));
}

#[test]
fn a_drill_in_containers_tells_what_it_ran_and_leaves_nothing() {
    let (engine, site) = match site() {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    let json = site.drill(&[]).ok().json();
    let record = &json["drill"];
    assert_eq!(record["verdict"], "passed", "{record}");
    let sandbox = &record["sandbox"];
    assert_eq!((sandbox["kind"].as_str(), sandbox["sealed"].as_bool()), (Some("container"), Some(true)), "{sandbox}");
    assert!(sandbox["engine"].as_str().is_some_and(|engine| engine.starts_with("Podman Engine ")), "{sandbox}");
    let images = serde_json::json!([{ "part": "postgres", "reference": engine.postgres, "id": engine.image_id() }]);
    assert_eq!(sandbox["images"], images);
    assert_eq!(sandbox["namespaces"], serde_json::json!(["ipc", "mnt", "net", "pid", "uts"]));
    let checks = record["checks"].as_array().expect("checks");
    for id in ["T1", "V1", "V2", "V3"] {
        let found = checks.iter().find(|check| check["id"] == id).expect("a check");
        assert_eq!(found["result"], "passed", "{found}");
    }
    // Nothing of the copy wanted out, and somebody listened.
    assert_eq!(record["egress"]["attempts"], 0, "{record}");
    let created = record["cleanup"]["created"].to_string();
    assert!(created.contains("-gate of the engine at") && created.contains("-postgres of the engine at"), "{created}");
    assert_eq!(record["cleanup"]["residue"], serde_json::json!([]));
    let html = std::fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
    assert!(html.contains("a sealed container sandbox") && html.contains(&engine.postgres));
    site.assert_clean();
    assert_eq!(left(&engine, &site), [] as [String; 0]);
    let doctor = site.estate.lifeboat.run(&["doctor"]).stdout;
    assert!(doctor.contains("sandbox for drills") && doctor.contains("Podman Engine"), "{doctor}");
    assert_eq!(left(&engine, &site), [] as [String; 0]);
}

#[test]
fn what_is_not_what_was_pinned_is_refused_before_anything_is_restored() {
    let (engine, site) = match site() {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    let absent = format!("localhost/lifeboat-postgres@sha256:{}", "0".repeat(64));
    site.estate.reconfigure(&engine.postgres, &absent);
    let record = fails_for(&site, "has no image");
    assert_eq!(record["phases"][0]["name"], "provisioning", "{record}");
    // Programs of another major version, found where they are looked for.
    let wrong = engine.small_image();
    site.estate.reconfigure(&absent, &wrong);
    fails_for(&site, "does not hold PostgreSQL");
    site.estate.reconfigure(&wrong, "localhost/lifeboat-postgres:test");
    let refused = site.estate.lifeboat.run(&["drill", "run", "-e", "production"]).expect_code(3);
    assert!(refused.stderr.contains("by its digest"), "{refused:?}");
    assert_eq!(left(&engine, &site), [] as [String; 0]);
}

#[test]
fn a_killed_drill_leaves_no_container_after_the_next_start() {
    let (engine, site) = match site() {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    killed_in_every_stage(&site, || assert_eq!(left(&engine, &site), [] as [String; 0]));
    // While the engine makes a container: nobody is told that it is there.
    let drills = site.estate.scratch.join("drills");
    for part in ["-gate\"", "-postgres\""] {
        let asked = |journal: &Path| std::fs::read_to_string(journal).is_ok_and(|text| text.contains(part));
        let id = kill_when(&site, &drills, asked).expect("killed");
        let reaped = site.estate.lifeboat.run(&["--format", "json", "drill", "reap"]).ok().json();
        assert_eq!(reaped["reaped"][0]["drill"], id.as_str());
        assert_eq!(reaped["reaped"][0]["cleanup"]["residue"], serde_json::json!([]), "{reaped}");
        site.assert_clean();
        assert_eq!(left(&engine, &site), [] as [String; 0]);
    }
}

#[test]
fn a_drill_that_takes_too_much_is_ended_with_its_containers() {
    let (engine, site) = match site() {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    greedy(&site);
    with(&site, "max_memory = \"400MiB\"");
    fails_for(&site, "max_memory");
    assert_eq!(left(&engine, &site), [] as [String; 0]);
    site.estate.reconfigure("max_memory = \"400MiB\"", "max_duration = \"12s\"");
    fails_for(&site, "max_duration");
    assert_eq!(left(&engine, &site), [] as [String; 0]);
}

#[test]
fn an_engine_that_goes_away_leaves_a_residue_that_is_told_and_reaped() {
    let site = Site::new(|cluster| cluster);
    let mut engine = match Engine::new(site.bin_dir()) {
        Ok(engine) => engine,
        Err(why) => skip!("{why}"),
    };
    contain(&site, &engine);
    site.back_up();
    greedy(&site);
    with(&site, "max_duration = \"20s\"");
    let reports = site.reports().display().to_string();
    let running = site.estate.spawn(&["drill", "run", "--report", &reports]);
    super::kills::wait_for_stage(&site, "running checks");
    assert_eq!(left(&engine, &site).len(), 2, "the gate and PostgreSQL's container");
    engine.kill9();
    // Every process ends with its line all the same; the engine cannot be asked to remove what there is.
    let json = running.wait(std::time::Duration::from_secs(240)).expect_code(8).json();
    let residue = json["drill"]["cleanup"]["residue"].to_string();
    assert!(residue.contains("no container engine answers"), "{json}");
    assert_eq!(json["drill"]["verdict"], "failed");
    engine.serve();
    let reaped = site.estate.lifeboat.run(&["--format", "json", "drill", "reap"]).ok().json();
    assert_eq!(reaped["reaped"][0]["cleanup"]["residue"], serde_json::json!([]), "{reaped}");
    site.assert_clean();
    assert_eq!(left(&engine, &site), [] as [String; 0]);
}

//! `kill -9` of Lifeboat in every stage of a drill: everything ends at once, the next start removes what is
//! left, and the ledger says what happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat::drill::sandbox::processes::working_in;

use crate::common::{skip, wait_until};
use crate::drill::Site;

const PATIENCE: Duration = Duration::from_secs(60);
/// A stage may be over before it is seen.
const TRIES: usize = 8;

const STAGES: [&str; 10] = [
    "provisioning",
    "restoring files",
    "verifying files",
    "replaying WAL",
    "restoring attachments",
    "running checks",
    "checking indexes",
    "checking page checksums",
    "destroying the sandbox",
    "recording",
];

pub(super) fn journal(drills: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(drills).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "journal"))
}

/// The stages that a journal names, in order.
pub(super) fn stages(journal: &Path) -> Vec<String> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter_map(|line| Some(line["stage"].as_str()?.to_owned())).collect()
}

#[test]
fn whatever_a_killed_drill_leaves_is_cleaned_up_and_recorded() {
    let site = Site::new(|cluster| cluster.tablespace("far"));
    site.back_up();
    killed_in_every_stage(&site, || {});
}

/// Kills a drill in every stage; `assert_gone` looks for what else it may have left, after the next start.
pub(super) fn killed_in_every_stage(site: &Site, assert_gone: impl Fn()) {
    let drills = site.estate.scratch.join("drills");
    let temporary = site.estate.scratch.join("tmp");
    let mut killed = 0;
    for wanted in STAGES {
        let Some(id) = (0..TRIES).find_map(|_| kill_in(site, &drills, wanted)) else {
            panic!("the stage \"{wanted}\" was never seen");
        };
        killed += 1;
        let root = drills.join(format!("lifeboat-drill-{id}"));
        // A restored copy of production does not live on.
        wait_until("everything ended with its owner", PATIENCE, || working_in(&root).is_empty());
        let stage = stages(&journal(&drills).expect("a journal")).pop().expect("a stage");
        let json = site.estate.lifeboat.run(&["--format", "json", "drill", "reap"]).ok().json();
        let reaped = &json["reaped"][0];
        assert_eq!((reaped["drill"].as_str(), reaped["stage"].as_str()), (Some(id.as_str()), Some(stage.as_str())));
        assert_eq!(reaped["cleanup"]["residue"], serde_json::json!([]), "{reaped}");
        site.assert_clean();
        assert_gone();
        assert_eq!(working_in(&root), Vec::<u32>::new(), "a process or a mount is left");
        let left: Vec<_> = fs::read_dir(&temporary).expect("a directory").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let shown = site.estate.run(&["evidence", "show"]).ok().stdout;
        assert!(shown.contains(&id) && shown.contains("not completed"), "{stage}: {shown}");
    }
    assert_eq!(killed, STAGES.len());
    site.estate.run(&["evidence", "verify"]).ok();
    // And the next drill is as good as any, but for the time that the killed ones took.
    let next = site.drill(&[]);
    assert!(matches!(next.code(), Some(0 | 9)), "{}", next.stderr);
    let record = &next.json()["drill"];
    let failed = |check: &&serde_json::Value| !matches!(check["result"].as_str(), Some("passed" | "not_applicable"));
    let failed: Vec<_> = record["checks"].as_array().expect("checks").iter().filter(failed).collect();
    assert!(failed.is_empty() && record["error"].is_null(), "{failed:?} {record}");
    assert_gone();
}

/// Waits until a drill is in a stage.
pub(super) fn wait_for_stage(site: &Site, wanted: &str) {
    let drills = site.estate.scratch.join("drills");
    wait_until("the stage begins", PATIENCE, || {
        journal(&drills).is_some_and(|journal| stages(&journal).iter().any(|stage| stage == wanted))
    });
}

/// Starts a drill and kills it when its journal names the stage; its id, unless it was through before.
fn kill_in(site: &Site, drills: &Path, wanted: &str) -> Option<String> {
    kill_when(site, drills, |journal| stages(journal).iter().any(|stage| stage == wanted))
}

/// Starts a drill and kills it when its journal is as wanted; its id, unless it was through before.
pub(super) fn kill_when(site: &Site, drills: &Path, wanted: impl Fn(&Path) -> bool) -> Option<String> {
    let reports = site.reports().display().to_string();
    let mut running = site.estate.spawn(&["drill", "run", "--report", &reports]);
    let mut path = None;
    wait_until("the stage begins, or the drill ends", PATIENCE, || {
        path = journal(drills);
        path.as_deref().is_some_and(&wanted) || !running.is_running()
    });
    if !running.is_running() {
        return None;
    }
    running.kill9();
    let path = path.filter(|path| path.exists())?;
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    Some(name.strip_prefix("lifeboat-drill-").expect("a journal's name").to_owned())
}

#[test]
fn the_next_drill_cleans_up_and_a_living_one_is_left_alone() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    let drills = site.estate.scratch.join("drills");
    let dead = (0..TRIES).find_map(|_| kill_in(&site, &drills, "replaying WAL")).expect("killed");
    // Two at a time: neither takes the other for dead.
    let reports = site.reports().display().to_string();
    let other = site.estate.spawn(&["drill", "run", "--report", &reports]);
    let json = site.drill(&[]);
    assert_eq!(other.wait(PATIENCE).ok().json()["drill"]["verdict"], "passed");
    assert_eq!(json.ok().json()["drill"]["verdict"], "passed");
    site.assert_clean();
    let shown = site.estate.run(&["evidence", "show"]).ok().stdout;
    assert_eq!(shown.matches("not completed").count(), 1, "{shown}");
    assert!(shown.contains(&dead));
}

/// A program on the restored copy that calls out, and stays.
const CALLER: &str = "
[[check]]
id = \"E1\"
title = \"It calls out\"
severity = \"info\"
database = \"cluster\"
command = { run = [\"/bin/bash\", \"-c\", \"exec 3<>/dev/tcp/192.0.2.1/8080; echo ping >&3; sleep 600\"] }
why = \"Somebody wrote it.\"
[[check]]
id = \"T1\"";

#[test]
fn a_killed_drill_tells_what_its_copy_tried_to_reach() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    site.estate.reconfigure("\n[[check]]\nid = \"T1\"", CALLER);
    let drills = site.estate.scratch.join("drills");
    let reports = site.reports().display().to_string();
    let mut running = site.estate.spawn(&["drill", "run", "--report", &reports]);
    let mut called = false;
    wait_until("the copy calls out", PATIENCE, || {
        let log = journal(&drills).map(|journal| journal.with_extension("").join("egress/egress.jsonl"));
        called = log.is_some_and(|log| fs::read_to_string(log).is_ok_and(|text| text.contains("192.0.2.1")));
        called || !running.is_running()
    });
    if !called {
        skip!("the sandbox is not sealed here, and nobody listens outside of a seal")
    }
    running.kill9();
    let reaped = site.estate.lifeboat.run(&["--format", "json", "drill", "reap"]).ok().json();
    let sequence = reaped["reaped"][0]["ledger"]["sequence"].to_string();
    let entry = site.estate.run(&["evidence", "show", "--sequence", &sequence]).ok().stdout;
    assert!(
        entry.contains("\"verdict\": \"not_completed\"") || entry.contains("\"verdict\":\"not_completed\""),
        "{entry}"
    );
    assert!(entry.contains("192.0.2.1") && entry.contains("8080"), "{entry}");
    site.assert_clean();
}

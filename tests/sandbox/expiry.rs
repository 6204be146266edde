//! A restore point that expires while a drill restores it: what is gone is named, and nothing passes.

use std::fs;
use std::time::Duration;

use super::kills::{journal, stages};
use crate::common::wait_until;
use crate::drill::Site;

const PATIENCE: Duration = Duration::from_secs(60);

/// Gives time to take away what the next stage needs.
const SLOW: &str = "
[[check]]
id = \"S1\"
title = \"Somebody thinks long\"
severity = \"baseline\"
database = \"cluster\"
sql = \"SELECT x FROM (SELECT pg_sleep(3)::text AS x OFFSET 0) s WHERE x <> ''\"
why = \"Somebody wrote it.\"
[[check]]
id = \"T1\"";

#[test]
fn what_is_deleted_while_a_drill_runs_fails_it_with_the_reason() {
    let site = Site::new(|cluster| cluster);
    site.estate.reconfigure("\n[[check]]\nid = \"T1\"", SLOW);
    site.back_up();
    let drills = site.estate.scratch.join("drills");
    let reports = site.reports().display().to_string();
    let mut running = site.estate.spawn(&["drill", "run", "--report", &reports]);
    wait_until("the source's answers are compared", PATIENCE, || {
        assert!(running.is_running(), "the drill ended: {}", running.said());
        journal(&drills)
            .is_some_and(|journal| stages(&journal).iter().any(|stage| stage == "comparing with the source"))
    });
    let gone = [site.estate.objects("wal/00000001"), site.estate.objects("wal-live")].concat();
    assert!(!gone.is_empty());
    for object in &gone {
        fs::remove_file(object).expect("there");
    }
    let json = running.wait(PATIENCE).expect_code(8).json();
    let record = &json["drill"];
    assert_eq!(record["verdict"], "failed", "{record}");
    let error = record["error"].as_str().expect("a reason");
    assert!(error.contains("is not there any more"), "{error}");
    site.assert_clean();
    site.estate.run(&["evidence", "verify"]).ok();
}

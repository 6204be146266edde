//! A restore of an environment that wants a second person, by the command line. How a second person opens the gate is
//! tested on the page (`service/`) and in `src/restore/approval.rs`: a test has one account only.

use serde_json::Value;

use super::refused;
use crate::common::{Cluster, Estate, Output, Scratch};

fn approval(output: Output) -> Value {
    output.ok().json()["approval"].clone()
}

#[test]
fn production_is_not_restored_without_a_second_person_or_a_broken_glass() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster)
        .tables("[environment.restore]\napproval = true\napproval_lasts = \"1h\"")
        .init();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT 1 AS one");
    estate.backup();
    let place = estate.place("r");
    let text = place.to_str().expect("UTF-8");

    // The plan says so, and touches nothing.
    let plan = estate.restore("latest", &place, &["--plan"]).ok().json();
    assert_eq!(plan["approval"]["required"], true);
    let said = refused(estate.restore("latest", &place, &[]), 10);
    assert!(said.contains("needs the approval of a second person") && said.contains("approval request"), "{said}");

    let request = ["approval", "request", "--to", "latest", "--pgdata", text, "--reason", "the disk died"];
    let asked = approval(estate.run(&request));
    let id = asked["id"].as_str().expect("an id");
    assert_eq!(asked["status"], "waiting");
    assert_ne!(asked["plan"]["target"], "latest", "what was approved must not move");
    assert_eq!(asked["plan_sha256"], sha256(&asked["plan"]), "anybody can compute the digest");
    let target = asked["plan"]["target"].as_str().expect("a target").to_owned();
    let said = refused(estate.restore(&target, &place, &["--approval", id]), 10);
    assert!(said.contains("nobody has approved"), "{said}");
    let said = refused(estate.run(&["approval", "approve", id]), 10);
    assert!(said.contains("cannot approve it as well"), "nobody is his own second person: {said}");
    let said = refused(estate.restore(&target, &place, &["--approval", "0000000000"]), 10);
    assert!(said.contains("no approval"), "{said}");
    assert!(!place.exists(), "nothing was touched");

    // Whoever breaks the glass restores, and everybody is told.
    let restored = estate.restore("latest", &place, &["--break-glass", "nobody answers the phone"]).ok();
    assert!(
        restored.stderr.contains("BREAK GLASS") && restored.stderr.contains("nobody answers"),
        "{}",
        restored.stderr
    );
    let copy = Cluster::adopt(&scratch, &place, cluster.major());
    assert_eq!(copy.psql("postgres", "SELECT one FROM t"), "1");
    let ledger = estate.run(&["evidence", "show"]).ok().json();
    let rows = ledger["entries"].as_array().expect("rows");
    let broken = rows.iter().find(|row| row["summary"].as_str().is_some_and(|s| s.contains("BREAKS THE GLASS")));
    assert_eq!(broken.expect("recorded")["bad"], true);
    estate.run(&["evidence", "verify"]).ok();

    let denied = approval(estate.run(&["approval", "deny", id, "--reason", "not needed any more"]));
    assert_eq!(denied["status"], "denied");
    let listed = estate.lifeboat.run(&["--format", "json", "approval", "list", "--all"]).ok().json();
    let status: Vec<&str> =
        listed["approvals"].as_array().expect("a list").iter().filter_map(|a| a["status"].as_str()).collect();
    assert_eq!(status, ["denied", "broken_glass"]);
}

/// SHA-256 of JSON with sorted keys and without white space; `serde_json` sorts the keys of a value.
fn sha256(plan: &Value) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(serde_json::to_vec(plan).expect("JSON")))
}

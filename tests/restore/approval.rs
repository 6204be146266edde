//! A restore of an environment that wants a second person, by the command line. A test has one account only: the second
//! person speaks by way of the library ([`second_person`]), on the page (`web/`), and in `src/restore/approval.rs`.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use lifeboat::evidence::approval::{KnownBy, Person};
use lifeboat::repository::catalogue::ledger;
use lifeboat::restore::approval::Desk;
use lifeboat::runtime::Runtime;
use lifeboat::service::access;
use serde_json::Value;

use super::refused;
use super::tenant::Shops;
use crate::common::{Cluster, Estate, Output, Scratch};

/// Bob, on another host, approves what was asked for.
pub(super) fn second_person(scratch: &Scratch, environment: &str, id: &str) {
    let estate = lifeboat::config::Estate::load(&scratch.join("lifeboat.toml")).expect("a configuration");
    let runtime = Runtime::silent();
    let approve = async {
        let repository = access::open(&estate, Duration::from_secs(10), &runtime).await.expect("a repository");
        let ledger = ledger(&repository, environment).await.expect("a ledger");
        let rules = &estate.environment(environment).expect("known").restore;
        let signer = repository.signer().expect("this host's key");
        let desk = Desk { ledger: &ledger, signer, runtime: &runtime, rules };
        let bob = Person { name: "bob".into(), known_by: KnownBy::Account, host: "db-2".into() };
        desk.approve(id, bob, Some("by phone".into())).await.expect("approved");
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(approve);
}

#[test]
fn a_database_goes_into_production_with_a_second_person_and_once() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let asks = "[environment.restore]\napproval = true\n[environment.drill]";
    shops.estate.reconfigure("[environment.drill]", asks);
    let into =
        |name: &str, more: &[&str]| shops.tenant(&[&["--into-cluster", "production", "--as", name], more].concat());
    let said = refused(into("x", &[]), 10);
    assert!(said.contains("a restore into production needs the approval"), "{said}");
    assert!(said.contains("lifeboat approval request-tenant -e production --to name:before"), "{said}");
    // By another way into the same cluster.
    let dsn = shops.cluster.dsn_for("postgres", "postgres");
    let said = refused(shops.tenant(&["--into-cluster", &dsn, "--as", "x", "--no-filestore"]), 10);
    assert!(said.contains("a restore into production needs the approval"), "{said}");

    let request = ["approval", "request-tenant", "--to", "name:before", "--database", "shop"];
    let asked = approval(shops.estate.run(&[&request[..], &["--into-cluster", "production", "--as", "x"]].concat()));
    let id = asked["id"].as_str().expect("an id");
    assert_eq!(asked["plan_sha256"], sha256(&asked["plan"]), "anybody can compute the digest");
    let command = asked["command"].as_str().expect("a command");
    assert!(command.starts_with("lifeboat restore tenant -e production --to name:before"), "{command}");
    let said = refused(into("x", &["--approval", id]), 10);
    assert!(said.contains("nobody has approved"), "{said}");
    second_person(&scratch, "production", id);
    let said = refused(into("y", &["--approval", id]), 10);
    assert!(said.contains("another restore than this one"), "{said}");
    let said = refused(into("x", &["--release", "--approval", id]), 10);
    assert!(said.contains("another restore than this one: tenant is"), "{said}");

    // The command as it is printed.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    shops.estate.lifeboat.run(&words).ok();
    assert_eq!(shops.cluster.psql("x", "SELECT count(*) FROM res_partner WHERE phone = '0815'"), "200");
    shops.cluster.psql("postgres", "ALTER DATABASE x IS_TEMPLATE false");
    shops.cluster.psql("postgres", "DROP DATABASE x");
    std::fs::remove_dir_all(shops.data_dir.join("filestore/x")).expect("removed");
    let said = refused(into("x", &["--approval", id]), 10);
    assert!(said.contains("serves only once"), "{said}");

    // A calendar forbids it, whoever approved; a broken glass does not ask, and is loud.
    let day = |days| (Utc::now() + TimeDelta::days(days)).format("%Y-%m-%d");
    let file = scratch.join("lifeboat.toml");
    let peak = format!(
        "[[calendar]]\nname = \"peak\"\neffects = [\"forbid-restores\"]\n[[calendar.window]]\nstarts = \"{}\"\nends = \"{}\"\n",
        day(-1),
        day(3)
    );
    scratch.write("lifeboat.toml", std::fs::read_to_string(file).expect("a configuration") + &peak);
    let said = refused(into("x", &["--approval", id]), 10);
    assert!(said.contains("the calendar peak forbids restores of production"), "{said}");
    let restored = into("x", &["--break-glass", "nobody answers"]).ok();
    assert!(
        restored.stderr.contains("BREAK GLASS") && restored.stderr.contains("forbids restores"),
        "{}",
        restored.stderr
    );
    let ledger = shops.estate.run(&["evidence", "show"]).ok().json();
    let rows = ledger["entries"].as_array().expect("rows");
    let broken = rows.iter().find(|row| row["summary"].as_str().is_some_and(|s| s.contains("BREAKS THE GLASS")));
    let broken = broken.expect("recorded");
    assert_eq!(broken["bad"], true);
    assert!(broken["summary"].as_str().is_some_and(|s| s.contains("shop of production as x at ")), "{broken}");
    shops.estate.run(&["evidence", "verify"]).ok();
}

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

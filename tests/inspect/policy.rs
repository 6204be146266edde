//! `policy check` and `report` on a real estate: from the configuration alone, and with what the ledger proves.

use std::fs;

use serde_json::Value;

use crate::common::{Cluster, Estate, Scratch};

fn states(output: &Value) -> Vec<(String, String)> {
    let all = output["requirements"].as_array().expect("a list");
    let one = |j: &Value| {
        (j["requirement"].as_str().expect("text").to_owned(), j["state"].as_str().expect("text").to_owned())
    };
    let mut states: Vec<_> = all.iter().map(one).collect();
    states.sort();
    states
}

#[test]
fn the_policy_is_judged_offline_by_the_configuration_and_online_by_the_ledger() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let check = |more: &[&str]| estate.backup_host.run(&[&["--format", "json", "policy", "check"], more].concat());
    let none = check(&["--offline"]).expect_code(3).json();
    assert!(none["error"]["message"].as_str().expect("text").contains("names no policy"), "{none:#}");

    let rules = "[[rule]]\nname = \"all\"\nwhy = \"because\"\nrpo = \"5m\"\nrecipients = { at_least = 1 }\nencrypted_connection = true\n\
                 base_backup_every = \"1d\"\nconfiguration_every = \"1d\"\ndrill = { every = \"8d\" }\n";
    scratch.write("policy.toml", rules);
    // Neither repository nor keys are there.
    let away = scratch.join("away");
    fs::rename(scratch.join("repository"), &away).expect("moved");
    let junit = scratch.join("policy.xml").display().to_string();
    let offline = check(&["--offline", "--junit", &junit]).ok().json();
    assert_eq!((&offline["violated"], &offline["held"], &offline["unknown"]), (&0.into(), &3.into(), &5.into()));
    assert!(fs::read_to_string(&junit).expect("written").contains("failures=\"0\""));
    check(&[]).expect_code(5);
    fs::rename(&away, scratch.join("repository")).expect("moved back");

    let before = check(&[]).expect_code(8).json();
    assert_eq!((&before["violated"], &before["unknown"]), (&5.into(), &0.into()), "{before:#}");
    let running = estate.receive(&cluster);
    estate.lifeboat.run(&["backup", "base", "-e", "production"]).ok();
    estate.lifeboat.run(&["backup", "configuration", "-e", "production"]).ok();
    let after = check(&[]).expect_code(8).json();
    let expected = [
        ("base_backup_every", "held"),
        ("configuration_every", "held"),
        ("drill.every", "violated"),
        ("drill.last", "violated"),
        ("encrypted_connection", "held"),
        ("recipients.at_least", "held"),
        ("rpo.actual", "held"),
        ("rpo.objective", "held"),
    ];
    assert_eq!(states(&after), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    drop(running);
    let text = estate.backup_host.run(&["policy", "check"]).expect_code(8);
    for words in [
        "VIOLATED production: drill.every (rule all)",
        "should be: a drill that brings back sound data every 8 d",
        "why: because",
    ] {
        assert!(text.stdout.contains(words), "{words} in {}", text.stdout);
    }

    // The report of this month needs public keys only.
    fs::remove_dir_all(scratch.join("state")).expect("removed");
    let out = scratch.join("reports");
    let month = this_month();
    let args = ["--format", "json", "report", "--all", "--period", &month, "--out", out.to_str().expect("UTF-8")];
    let report = estate.backup_host.run(&args).ok().json();
    let production = &report["reports"][0];
    assert_eq!(production["bases"].as_array().expect("a list").len(), 1);
    assert_eq!(production["exports"], serde_json::json!([1, 0]));
    assert!(production["attention"].to_string().contains("nothing was proven"), "{production:#}");
    for extension in ["html", "json", "xml"] {
        let file = out.join(format!("report-all-{month}.{extension}"));
        assert!(fs::metadata(&file).is_ok_and(|m| m.len() > 300), "{}", file.display());
    }
    let empty =
        estate.backup_host.run(&["--format", "json", "report", "-e", "production", "--period", "2020"]).ok().json();
    assert_eq!(empty["reports"][0]["entries"], Value::Null);
    estate.backup_host.run(&["report", "-e", "production", "--period", "soon"]).expect_code(2);
}

fn this_month() -> String {
    chrono::Utc::now().format("%Y-%m").to_string()
}

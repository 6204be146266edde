//! `lifeboat schedule preview`, and the fence of commands that the service starts.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::common::{Lifeboat, Scratch};

/// An estate with two jobs, and a calendar that forbids drills from yesterday until the day after tomorrow.
fn estate(scratch: &Scratch) -> Lifeboat {
    let bare = Lifeboat::new(scratch.write("none.toml", ""));
    let key = scratch.join("recovery.key");
    let made = bare.run(&["--format", "json", "keygen", "-o", key.to_str().expect("UTF-8")]).ok();
    let recipient = made.json()["recipient"].as_str().expect("a recipient").to_owned();
    let day = |days| (Utc::now() + TimeDelta::days(days)).format("%Y-%m-%d");
    let config = format!(
        "[repository]\nurl = \"file://{}\"\n[keys]\nrecipients = [\"{recipient}\"]\nstate_dir = \"state\"\n\
         [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
         [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
         [environment.postgres]\ndsn = \"host={} user=x dbname=postgres\"\n\
         [[job]]\nname = \"export\"\nkind = \"configuration\"\ncron = \"15 6 * * *\"\ntime_zone = \"Europe/Brussels\"\n\
         [[job]]\nname = \"drill\"\nkind = \"drill\"\ncron = \"0 4 * * *\"\nmax_deferral = \"9d\"\n\
         [[calendar]]\nname = \"opening\"\ntitle = \"a shop opens\"\neffects = [\"forbid-drills\"]\n\
         [[calendar.window]]\nstarts = \"{}\"\nends = \"{}\"\n",
        scratch.join("repository").display(),
        scratch.join("nobody").display(),
        day(-1),
        day(3),
    );
    Lifeboat::new(scratch.write("lifeboat.toml", config))
}

#[test]
fn a_preview_tells_what_runs_when_and_what_a_calendar_puts_off() {
    let scratch = Scratch::new();
    let lifeboat = estate(&scratch);
    let check = lifeboat.run(&["config", "check"]).ok();
    assert!(check.stdout.contains("jobs: 2, calendars: 1"), "{}", check.stdout);

    // Nobody has a repository yet: it is shown all the same, and said.
    let before = lifeboat.run(&["schedule", "preview", "--days", "6"]).ok();
    assert!(before.stdout.contains("the history is not known"), "{}", before.stdout);
    lifeboat.run(&["init"]).ok();
    let after = lifeboat.run(&["schedule", "preview", "--days", "6", "-e", "production"]).ok();
    assert!(!after.stdout.contains("the history is not known"), "{}", after.stdout);
    for told in [
        "15 6 * * *  Europe/Brussels",
        "put off",
        "calendar opening: drills are forbidden: a shop opens",
        " CE",
        "06:15",
    ] {
        assert!(after.stdout.contains(told), "{told} in {}", after.stdout);
    }

    let preview = lifeboat.run(&["--format", "json", "schedule", "preview", "--days", "6"]).ok().json();
    assert!(preview["history_unknown"].is_null());
    let rows = preview["rows"].as_array().expect("rows");
    let of = |job: &str, what: &str| rows.iter().filter(|row| row["job"] == job && row["what"] == what).count();
    assert!((5..=6).contains(&of("export", "run")), "{rows:?}");
    assert!(of("drill", "deferred") >= 2 && of("drill", "run") >= 2, "{rows:?}");
    let made_up = rows.iter().find(|row| row["job"] == "drill" && row["what"] == "run").expect("a drill");
    let ends = (Utc::now() + TimeDelta::days(3)).format("%Y-%m-%dT00:00:00Z").to_string();
    assert_eq!(made_up["at"], ends, "as soon as the calendar lets it");
    assert_eq!(made_up["calendar"], "opening");
    assert_eq!(preview["windows"][0]["window"]["calendar"], "opening");
    lifeboat.run(&["schedule", "preview", "--days", "0"]).expect_code(2);
    lifeboat.run(&["schedule", "preview", "-e", "prodution"]).expect_code(2);
}

#[test]
fn a_preview_tells_where_jobs_run_and_which_have_nothing_to_do() {
    let scratch = Scratch::new();
    let lifeboat = estate(&scratch);
    let file = scratch.join("lifeboat.toml");
    let text = std::fs::read_to_string(&file).expect("written");
    let pinned =
        "[environment.service]\nhosts = [\"db-1\", \"db-2\"]\ndrill_hosts = [\"drills-1\"]\n[[job]]\nname = \"export\"";
    let more = "[[job]]\nname = \"files\"\nkind = \"filestore\"\ncron = \"0 * * * *\"\njitter = \"20m\"\n";
    scratch.write("lifeboat.toml", text.replace("[[job]]\nname = \"export\"", pinned) + more);
    lifeboat.run(&["init"]).ok();
    let shown = lifeboat.run(&["schedule", "preview", "--days", "6"]).ok().stdout;
    for told in [
        "production: its jobs run on db-1 or db-2 only",
        "production: its drills run on drills-1 only",
        "files does nothing for production: no Odoo is configured there",
        "jitter",
    ] {
        assert!(shown.contains(told), "{told} in {shown}");
    }
    let preview = lifeboat.run(&["--format", "json", "schedule", "preview", "--days", "6"]).ok().json();
    let rows = preview["rows"].as_array().expect("rows");
    assert!(rows.iter().all(|row| row["job"] != "files"), "there is no filestore: {rows:?}");
    for row in rows {
        let expected = if row["job"] == "drill" { json!(["drills-1"]) } else { json!(["db-1", "db-2"]) };
        assert_eq!(row["hosts"], expected, "{row}");
    }
    let files = preview["jobs"].as_array().expect("jobs").iter().find(|job| job["name"] == "files").expect("listed");
    assert_eq!((&files["environments"], &files["nothing_to_do"]), (&json!([]), &json!(["production"])));

    let odoo =
        format!("[[environment.odoo]]\ndata_dir = \"{}\"\n[environment.service]", scratch.join("odoo").display());
    let text = std::fs::read_to_string(&file).expect("written");
    scratch.write("lifeboat.toml", text.replace("[environment.service]", &odoo));
    let shown = lifeboat.run(&["schedule", "preview", "--days", "2"]).ok().stdout;
    assert!(shown.contains("up to 20 min") && !shown.contains("does nothing"), "{shown}");
}

#[test]
fn a_drill_by_hand_is_refused_while_a_calendar_forbids_it() {
    let scratch = Scratch::new();
    let lifeboat = estate(&scratch);
    lifeboat.run(&["init"]).ok();
    let refused = lifeboat.run(&["drill", "run", "-e", "production"]).expect_code(10);
    for told in ["the calendar opening (a shop opens) forbids drills of production until", "--despite-calendar"] {
        assert!(refused.stderr.contains(told), "{told} in {}", refused.stderr);
    }
    // It goes on to what stands in the way next: this host has no recovery identity.
    let despite = lifeboat.run(&["drill", "run", "-e", "production", "--despite-calendar"]).expect_code(10);
    assert!(
        despite.stderr.contains("no recovery identity") && despite.stderr.contains("forbids drills"),
        "{}",
        despite.stderr
    );
}

#[test]
fn a_fence_that_cannot_be_read_stops_a_command() {
    let scratch = Scratch::new();
    let lifeboat = estate(&scratch);
    lifeboat.run(&["init"]).ok();
    let sound =
        lifeboat.clone().env("LIFEBOAT_FENCE", "production/jobs:3").run(&["alert", "silences", "-e", "production"]);
    assert_eq!(sound.code(), lifeboat.run(&["alert", "silences", "-e", "production"]).code());
    let refused = lifeboat.env("LIFEBOAT_FENCE", "jobs").run(&["alert", "silences", "-e", "production"]).expect_code(2);
    assert!(refused.stderr.contains("production/jobs:7"), "{}", refused.stderr);
}

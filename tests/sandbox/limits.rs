//! Drills that run out of disk, memory or time fail with that reason, and leave nothing.

use std::path::Path;

use crate::common::{Lifeboat, as_server, own, server_account, skip};
use crate::drill::Site;

/// Sets keys of `[environment.drill]`.
pub(super) fn with(site: &Site, keys: &str) {
    site.estate.reconfigure("[environment.drill]\n", &format!("[environment.drill]\n{keys}\n"));
}

#[track_caller]
pub(super) fn fails_for(site: &Site, reason: &str) -> serde_json::Value {
    let record = site.red(8);
    let error = record["error"].as_str().expect("a reason").to_owned();
    assert!(error.contains(reason), "{error}");
    assert_eq!(record["cleanup"]["residue"], serde_json::json!([]));
    record
}

fn needed(site: &Site) -> u64 {
    let plan = site.estate.plan("latest").ok().json();
    plan["plan"]["bytes"].as_u64().expect("bytes") + plan["plan"]["target"]["wal_bytes"].as_u64().expect("bytes")
}

#[test]
fn a_copy_that_takes_more_than_it_may_is_refused_or_ended() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    let needed = needed(&site);
    with(&site, &format!("max_disk = \"{}B\"", needed - 1));
    let record = fails_for(&site, "max_disk");
    assert_eq!(record["phases"][0]["name"], "provisioning", "{record}");
    assert_eq!(record["sandbox"], serde_json::Value::Null);
    // Enough for what is restored, not for the WAL that replay writes: found out while it runs.
    site.estate.reconfigure(&format!("{}B", needed - 1), &format!("{}B", needed + 1024));
    let record = fails_for(&site, "max_disk");
    assert_eq!(record["sandbox"]["sealed"], true, "{record}");
}

#[test]
fn a_full_disk_ends_the_drill_before_it_is_full() {
    if !nix::unistd::Uid::effective().is_root() {
        skip!("only root mounts a small file system");
    }
    let site = Site::new(|cluster| cluster);
    site.back_up();
    let drills = site.estate.scratch.join("drills");
    let program = std::fs::metadata(Lifeboat::program()).expect("a program").len();
    let small = Small::mounted(&drills, needed(&site) + program + (26 << 20));
    // Whether the watch is quicker, or PostgreSQL hits the end between two looks.
    let record = fails_for(&site, "must stay free");
    assert!(record["error"].as_str().is_some_and(|e| e.starts_with("while ")), "{record}");
    drop(small);
    let none = Small::mounted(&drills, 32 << 20);
    fails_for(&site, "is free");
    drop(none);
}

/// A small file system in memory, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mounted(at: &'a Path, bytes: u64) -> Self {
        let options = format!("size={bytes},mode=0755");
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .expect("root mounts");
        own(at);
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.0);
    }
}

/// A check that runs long and holds much memory.
pub(super) fn greedy(site: &Site) {
    let text = "\n[[check]]\nid = \"G1\"\ntitle = \"Greedy\"\nseverity = \"info\"\ndatabase = \"cluster\"\nwhy = \"Somebody wrote it.\"\n\
                sql = \"SELECT length(repeat('x', 700000000 + (random() * 0)::int)), pg_sleep(100)\"\n[[check]]\nid = \"T1\"";
    site.estate.reconfigure("\n[[check]]\nid = \"T1\"", text);
}

#[test]
fn a_drill_that_takes_too_much_memory_or_time_is_ended() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    greedy(&site);
    with(&site, "max_memory = \"400MiB\"");
    let record = fails_for(&site, "max_memory");
    assert!(record["error"].as_str().is_some_and(|e| e.starts_with("while running checks")), "{record}");
    site.estate.reconfigure("max_memory = \"400MiB\"", "max_duration = \"8s\"");
    let record = fails_for(&site, "max_duration");
    assert_eq!(record["sandbox"]["limits"], serde_json::json!(["duration: 8 s"]));
}

#[test]
fn an_ordinary_account_drills_too() {
    if server_account().is_none() {
        skip!("the tests run as an ordinary account: every test shows it");
    }
    let site = Site::new(|cluster| cluster);
    site.back_up();
    own(site.estate.scratch.path());
    let record = site.drill_as_servers();
    assert_eq!(record["verdict"], "passed", "{record}");
    assert_eq!(
        (record["sandbox"]["kind"].as_str(), record["sandbox"]["sealed"].as_bool()),
        (Some("local"), Some(true))
    );
    site.assert_clean();
}

/// On a host that allows no namespaces nothing is restored, which is recorded with what to do about it.
#[test]
fn a_sandbox_that_does_not_start_is_a_failed_drill() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    own(site.estate.scratch.path());
    // In a user namespace of its own the limit is this drill's alone.
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces || exit 97; exec \"$@\"";
    let mut command = as_server(Path::new("/usr/bin/unshare"));
    command.args(["--user", "--map-current-user", "--keep-caps", "/bin/sh", "-c", refuse, "sh", Lifeboat::program()]);
    command.arg("-c").arg(site.estate.scratch.join("lifeboat.toml"));
    command.args(["--format", "json", "drill", "run", "-e", "production", "--report"]).arg(site.reports());
    let output = command.env("TMPDIR", site.estate.scratch.join("tmp")).output();
    let Some(output) = output.ok().filter(|o| !matches!(o.status.code(), Some(1 | 97))) else {
        skip!("user namespaces cannot be made here")
    };
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let record = &json["drill"];
    let error = record["error"].as_str().expect("a reason");
    assert!(error.contains("does not allow the local sandbox"), "{record}");
    assert_eq!((&record["verdict"], &record["sandbox"]), (&"failed".into(), &serde_json::Value::Null));
    let restored = record["phases"].as_array().expect("phases").iter().any(|p| p["name"] == "restoring files");
    assert!(!restored, "{record}");
    site.assert_clean();
    site.estate.run(&["evidence", "verify"]).ok();
}

#[test]
fn without_a_sandbox_the_record_says_so() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    with(&site, "sandbox = \"none\"");
    let json = site.drill(&[]).ok().json();
    let sandbox = &json["drill"]["sandbox"];
    assert_eq!((sandbox["kind"].as_str(), sandbox["sealed"].as_bool()), (Some("none"), Some(false)));
    let html = std::fs::read_to_string(json["report"]["html"].as_str().expect("a report")).expect("a file");
    assert!(html.contains("NOT SEALED"));
    site.assert_clean();
}

#[test]
fn several_environments_are_drilled_at_a_time() {
    let site = Site::new(|cluster| cluster);
    site.back_up();
    // A second environment without a backup: its drill cannot begin, which holds up nobody.
    let config = site.estate.scratch.join("lifeboat.toml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let from = text.find("[[environment]]").expect("an environment");
    let to = text.find("\n[[check]]").expect("a check");
    let other = text[from..to]
        .replace("name = \"production\"", "name = \"other\"")
        .replace("heartbeat", "slot = \"other\"\nheartbeat");
    std::fs::write(&config, format!("{text}\n{other}\n")).expect("written");
    let reports = site.reports().display().to_string();
    let run = |more: &[&str]| {
        let command = ["--format", "json", "drill", "run", "--report", &reports];
        site.estate.lifeboat.run(&[&command, more].concat())
    };
    let json = run(&["--all", "--jobs", "2"]).expect_code(7).json();
    let drills = json["drills"].as_array().expect("drills");
    assert_eq!(drills[0]["drill"]["verdict"], "passed", "{json}");
    assert_eq!((drills[1]["environment"].as_str(), drills[1]["error"]["exit_code"].as_u64()), (Some("other"), Some(7)));
    let twice = run(&["-e", "production", "-e", "production", "--jobs", "2"]).ok().json();
    assert_eq!(twice["drills"].as_array().map(Vec::len), Some(2));
    site.assert_clean();
}

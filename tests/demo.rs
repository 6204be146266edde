//! `lifeboat demo`: what it says is what its own journal says, and nothing of it is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Lifeboat, Running, Scratch, wait_until};

const PATIENCE: Duration = Duration::from_secs(240);

/// A machine of its own for demos: nobody else's temporary directory.
struct Machine {
    scratch: Scratch,
    lifeboat: Lifeboat,
}

impl Machine {
    fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("tmp")).expect("a directory");
        let temporary = scratch.join("tmp").display().to_string();
        // The helper runs programs beside their configuration, which the demo does not read.
        let lifeboat = Lifeboat::new(scratch.write("none.toml", "")).env("TMPDIR", temporary).timeout(PATIENCE);
        Self { scratch, lifeboat }
    }

    fn temporary(&self) -> Vec<PathBuf> {
        fs::read_dir(self.scratch.join("tmp")).expect("a directory").flatten().map(|e| e.path()).collect()
    }

    fn start(&self) -> Running {
        self.lifeboat.spawn(&["demo"])
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_eq!(self.temporary(), Vec::<PathBuf>::new());
        assert_eq!(processes_in(self.scratch.path()), Vec::<String>::new());
    }
}

/// Processes whose working directory lies in `folder`, as PostgreSQL's does in its data directory.
fn processes_in(folder: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let there = processes.filter(|p| fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)));
    there.map(|p| fs::read_to_string(p.path().join("cmdline")).unwrap_or_default()).collect()
}

/// Number of sales by fate, from the journal that lies beside the report.
fn fates(journal: &Path) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(journal).expect("a journal");
    let mut fates = BTreeMap::new();
    for line in text.lines().skip(1) {
        *fates.entry(line.split(',').nth(2).expect("a fate").to_owned()).or_default() += 1;
    }
    fates
}

#[test]
fn the_demo_loses_what_its_journal_says_and_proves_the_rest() {
    let machine = Machine::new();
    let output = machine.lifeboat.run(&["demo", "--format", "json"]).ok();
    assert!(!output.stderr.contains("will not be sealed"), "{}", output.stderr);
    let demo = &output.json()["demo"];
    let path = |value: &Value| PathBuf::from(value.as_str().expect("a path"));
    let count = |name: &str| demo["sales"][name].as_array().expect("a list").len();

    let (acknowledged, restored) = (&demo["sales"]["acknowledged"], &demo["sales"]["restored"]);
    let (acknowledged, restored) = (acknowledged.as_u64().expect("a number"), restored.as_u64().expect("a number"));
    assert!(acknowledged > 50, "{demo:#}");
    assert_eq!(count("phantom"), 0, "{demo:#}");
    let in_doubt_and_there = (restored + count("lost") as u64).checked_sub(acknowledged).expect("a balance");
    assert!(in_doubt_and_there <= count("in_doubt") as u64, "{demo:#}");
    let lost_seconds = demo["sales"]["lost_seconds"].as_f64().expect("a number");
    assert!(lost_seconds < 5.0, "{demo:#}");
    assert_eq!(count("lost") == 0, lost_seconds == 0.0, "{demo:#}");
    let fates = fates(&path(&demo["report"]["journal"]));
    let fate = |name: &str| fates.get(name).copied().unwrap_or(0);
    assert_eq!((fate("lost"), fate("in doubt")), (count("lost"), count("in_doubt")));
    assert_eq!(fate("restored") + fate("lost"), acknowledged as usize);

    assert_eq!(demo["drill"]["verdict"], "passed", "{demo:#}");
    assert!(demo["drill"]["checks_passed"].as_u64() >= Some(10), "{demo:#}");
    assert_eq!(demo["disaster"]["at"], demo["drill"]["rpo"]["incident_time"]);
    for attachments in demo["restore"]["attachments"].as_array().expect("a list") {
        let missing = attachments["missing"].as_array().expect("a list");
        assert!(missing.iter().all(|m| m["cause"] == "not_captured"), "{attachments:#}");
        let verified = attachments["verified"].as_u64().expect("a number") + missing.len() as u64;
        assert_eq!(Some(verified), attachments["referenced"].as_u64());
    }
    let html = fs::read_to_string(path(&demo["report"]["html"])).expect("a report");
    assert!(path(&demo["report"]["html"]).starts_with(machine.scratch.join("lifeboat-demo-report")));
    assert!(html.contains("Passed") || html.contains("PASSED"), "{html}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(path(&demo["report"]["json"])).expect("a report")).expect("JSON");
    assert_eq!(report["drill"]["verdict"], "passed");
    machine.assert_nothing_left();
}

#[test]
fn with_keep_the_other_commands_go_on_where_the_demo_ended() {
    let machine = Machine::new();
    // A path that is too long for sockets, and that asks for quotes.
    let dir = machine.scratch.join(format!("it's {}", "long ".repeat(15)));
    let dir = dir.to_str().expect("UTF-8").trim_end();
    let output = machine.lifeboat.run(&["demo", "--keep", "--dir", dir, "--format", "json"]).ok();
    assert_eq!(output.json()["demo"]["kept"], true);
    assert_eq!(processes_in(machine.scratch.path()), Vec::<String>::new());
    assert_eq!(machine.temporary(), Vec::<PathBuf>::new());

    let estate = Lifeboat::new(Path::new(dir).join("lifeboat.toml")).timeout(PATIENCE);
    let verified = estate.run(&["--format", "json", "evidence", "verify", "-e", "demo"]).ok().json();
    assert!(verified.to_string().contains("entries"), "{verified:#}");
    estate.run(&["verify", "-e", "demo"]).ok();
    let second = format!("{dir}/second");
    let plan = estate.run(&["restore", "-e", "demo", "--pgdata", &second, "--plan"]).ok();
    assert!(plan.stdout.contains("nothing was touched"), "{}", plan.stdout);

    let refused = machine.lifeboat.run(&["demo", "--dir", dir]);
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_and_one_that_is_killed_hinders_nobody() {
    let machine = Machine::new();
    let mut told = 0;
    for (signal, line) in
        [(Signal::SIGTERM, "A shop moves in"), (Signal::SIGINT, "Base backup"), (Signal::SIGHUP, "A drill:")]
    {
        let demo = machine.start();
        wait_until(&format!("the demo says {line:?}"), PATIENCE, || demo.stdout().contains(line));
        demo.signal(signal);
        let output = demo.wait(Duration::from_secs(60));
        assert_eq!(output.code(), Some(130), "{line}: {}", output.stderr);
        machine.assert_nothing_left();
        assert!(!machine.scratch.join("lifeboat-demo-report").exists(), "{line}: an empty directory stays");
        told += 1;
    }
    assert_eq!(told, 3);

    let demo = machine.start();
    wait_until("the demo backs up", PATIENCE, || demo.stdout().contains("Base backup"));
    demo.kill9();
    assert!(!processes_in(machine.scratch.path()).is_empty(), "a killed demo leaves its server");
    let next = machine.start();
    wait_until("the next demo starts", PATIENCE, || next.stdout().contains("A shop moves in"));
    next.signal(Signal::SIGTERM);
    assert_eq!(next.wait(Duration::from_secs(60)).code(), Some(130));
    machine.assert_nothing_left();
}

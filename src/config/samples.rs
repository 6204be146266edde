//! Tests by example: every configuration under `tests/sample-configs/valid` loads, every one under
//! `invalid` is refused with exactly the words beside it, and the files that people copy work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::units::ByteSize;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Main files under a folder of samples: `name.toml`, or `name/lifeboat.toml` where there are several files.
fn samples(folder: &str) -> Vec<PathBuf> {
    let folder = root().join("tests/sample-configs").join(folder);
    let mut files = expand_glob(&folder.join("*.toml")).expect("readable");
    files.extend(expand_glob(&folder.join("*/lifeboat.toml")).expect("readable"));
    files
}

fn sample(name: &str) -> Estate {
    Estate::load(&root().join("tests/sample-configs/valid").join(name)).expect("valid")
}

/// An error as people see it, with paths relative to `directory`.
fn rendered(error: &Error, directory: &Path) -> String {
    let mut lines = vec![error.message()];
    lines.extend(error.what_it_means().map(|m| format!("meaning: {m}")));
    lines.extend(error.hints().iter().map(|h| format!("hint: {h}")));
    lines.join("\n").replace(&format!("{}/", directory.display()), "").replace(&directory.display().to_string(), ".")
        + "\n"
}

#[test]
fn valid_samples_load() {
    let files = samples("valid");
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        if let Err(error) = Estate::load(&file) {
            panic!("{}", rendered(&error, &root()));
        }
    }
}

/// Set `LIFEBOAT_BLESS=1` to write the expected words anew, then read every change.
#[test]
fn invalid_samples_are_refused_with_the_expected_words() {
    let bless = std::env::var_os("LIFEBOAT_BLESS").is_some();
    let files = samples("invalid");
    assert!(files.len() >= 70, "{}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let directory = file.parent().expect("parent");
        let beside = match file.ends_with("lifeboat.toml") {
            true => directory.join("expected.txt"),
            false => file.with_extension("txt"),
        };
        let said = match Estate::load(&file) {
            Ok(_) => "it was accepted\n".to_owned(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config, "{}", file.display());
                rendered(&error, directory)
            }
        };
        assert!(!said.contains("hunter2") && !said.contains("1234567"), "a secret is repeated: {said}");
        assert!(!said.contains("AGE-SECRET-KEY-"), "a secret is repeated: {said}");
        if bless {
            std::fs::write(&beside, &said).expect("written");
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- said\n{said}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_example_of_the_issue_means_what_it_says() {
    let estate = sample("issue-2/lifeboat.toml");
    let directory = root().join("tests/sample-configs/valid/issue-2");
    assert_eq!(estate.file, directory.join("lifeboat.toml"));
    let repository = &estate.repository;
    assert_eq!(repository.url, "s3://odoo-backups/estate");
    assert_eq!(repository.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
    assert_eq!(repository.access_key_id, Some(SecretRef::Env("AWS_ACCESS_KEY_ID".into())));
    assert_eq!((repository.retry_for, repository.compression_level), (Duration::from_secs(300), 3));
    assert_eq!(estate.keys.identity, Some(SecretRef::File(directory.join("recovery.key"))));
    assert_eq!(estate.keys.state_dir, Path::new("/var/lib/lifeboat"));
    let production = estate.environment("production").expect("known");
    assert_eq!(production.purpose, Purpose::Production);
    assert_eq!(production.objectives.rpo, Duration::from_secs(60));
    assert_eq!(production.objectives.rto, Duration::from_secs(3600));
    let postgres = &production.postgres;
    assert_eq!((postgres.slot.as_str(), postgres.run_as.as_deref()), ("lifeboat", Some("postgres")));
    assert_eq!((postgres.checkpoint, postgres.max_rate), (CheckpointMode::Fast, None));
    assert_eq!((postgres.reader, postgres.reader_threads), (ReaderMode::Auto, None));
    assert_eq!(postgres.heartbeat, Duration::from_secs(15), "a quarter of the RPO");
    assert_eq!(production.odoo[0].data_dir, Path::new("/var/lib/odoo"));
    assert_eq!(production.odoo[0].databases, Some(vec!["retail".to_owned()]));
    assert!(production.configuration.process_environment);
}

#[test]
fn every_key_arrives_and_relative_paths_count_from_their_file() {
    let estate = sample("every-key.toml");
    let here = |name: &str| root().join("tests/sample-configs/valid").join(name);
    let repository = &estate.repository;
    assert_eq!(repository.secret_access_key, Some(SecretRef::File(here("secrets/s3"))));
    let token = vec![here("token").display().to_string(), "--for".to_owned(), "lifeboat".to_owned()];
    assert_eq!(repository.session_token, Some(SecretRef::Command(token)));
    assert_eq!((repository.retry_for, repository.compression_level), (Duration::from_secs(90), 9));
    assert_eq!((estate.keys.recipients.len(), &estate.keys.state_dir), (2, &here("state")));
    let shop = estate.environment("shop-2").expect("known");
    assert_eq!(shop.purpose, Purpose::PeakSeason);
    let minutes = |m: u64| Some(Duration::from_secs(m * 60));
    let assumed = &shop.assumed;
    assert_eq!((assumed.detect, assumed.decide, assumed.cut_over), (minutes(10), minutes(15), minutes(5)));
    assert_eq!((assumed.accept, assumed.basis.as_deref()), (minutes(30), Some("exercise of 2026-05-12")));
    let postgres = &shop.postgres;
    let password = vec!["pass".to_owned(), "show".to_owned(), "lifeboat/db".to_owned()];
    assert_eq!(postgres.password, Some(SecretRef::Command(password)));
    assert_eq!(postgres.tls_root.as_deref(), Some(Path::new("/etc/ssl/internal-ca.pem")));
    assert_eq!((postgres.checkpoint, postgres.max_rate), (CheckpointMode::Spread, Some(ByteSize(80 << 20))));
    assert_eq!((postgres.reader, postgres.reader_threads), (ReaderMode::Direct, Some(3)));
    assert_eq!((postgres.slot.as_str(), postgres.heartbeat), ("lifeboat_shop2", Duration::from_secs(5)));
    assert_eq!(shop.odoo.len(), 2);
    assert_eq!(shop.odoo[0].config_file, Some(here("odoo.conf")));
    assert_eq!(shop.odoo[0].addons_paths, [PathBuf::from("/srv/addons/extra"), here("addons")]);
    assert_eq!(shop.configuration.files[0], "/etc/traefik/**/*.yml");
    assert_eq!(shop.configuration.files[1], here("values.yaml").display().to_string());
    assert!(!shop.configuration.process_environment);
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let kept = shop.retention.as_ref().expect("configured");
    assert_eq!((kept.recent, kept.delete_after, kept.unreferenced_after), (days(14), days(3), days(1)));
    assert_eq!((kept.daily, kept.weekly, kept.monthly, kept.yearly), (7, 8, 12, 3));
    assert_eq!((kept.minimum_base_backups, kept.time_zone), (4, chrono_tz::Europe::Berlin));
    assert_eq!(sample("minimal.toml").environments[0].retention, None, "nothing is ever deleted");
    assert_eq!(repository.object_lock, Some(ObjectLockConfig { mode: LockMode::Compliance, days: 45 }));
    assert_eq!(shop.drill.work_dir.as_deref(), Some(Path::new("/srv/drills")));
    assert_eq!(shop.drill.sandbox, SandboxKind::None);
    assert_eq!((shop.drill.max_disk, shop.drill.max_memory), (Some(ByteSize(40 << 30)), Some(ByteSize(4 << 30))));
    assert_eq!(shop.drill.max_duration, Some(Duration::from_secs(7200)));
    assert_eq!(sample("minimal.toml").environments[0].drill.sandbox, SandboxKind::Local);
    let image = |text: String| text.parse::<ImageReference>().expect("a digest");
    let container = DrillContainer {
        socket: "/run/docker.sock".into(),
        postgres: image(format!("docker.io/library/postgres@sha256:{}", "1".repeat(64))),
        odoo: Some(image(format!("sha256:{}", "2".repeat(64)))),
        bin_dir: Some("/usr/local/bin".into()),
        nano_cpus: Some(1_500_000_000),
        processes: 1024,
    };
    assert_eq!(sample("drill-container.toml").environments[0].drill.sandbox, SandboxKind::Container(container));
    assert_eq!(
        (shop.drill.report_dir.clone(), shop.drill.checks.clone()),
        (Some(here("reports")), Some(vec!["own".into()]))
    );
    let service = &estate.service;
    assert_eq!((service.instance.as_deref(), service.jobs_at_once, service.drills_at_once), (Some("db1.eu"), 4, 2));
    assert_eq!((service.stop_within, service.refresh_every), (Duration::from_secs(300), Duration::from_secs(10)));
    assert_eq!(service.lease, Duration::from_secs(90));
    assert!(shop.service.serves("db2.eu") && !shop.service.serves("drills"));
    assert!(shop.service.drills("drills") && !shop.service.drills("db1.eu"));
    assert!(!shop.service.receive_wal && !shop.service.watch_filestore);
    assert_eq!(sample("minimal.toml").service, ServiceConfig::default());
    assert!(sample("minimal.toml").environments[0].service.drills("any"));
    assert_eq!(shop.data_classes, ["personal", "payment"]);
    assert_eq!(estate.policy, Some(here("our-policy.toml")));
    let runbook = &estate.runbook;
    assert_eq!(runbook.contacts["shops"], "+49 30 1234567, on call");
    assert_eq!((runbook.recovery_key.as_deref(), runbook.restored.clone()), (Some("the safe"), here("restored")));
    assert_eq!(runbook.second_copy.as_deref(), Some("s3://odoo-backups-west"));
    let rule = &estate.drift[0];
    assert_eq!((rule.file.as_str(), rule.setting.as_deref()), ("odoo/*/modules.json", Some("sale*")));
    assert_eq!((rule.between, rule.severity), (DriftBetween::Environments, DriftSeverity::Critical));
    assert_eq!(rule.environments, Some(vec!["shop-2".to_owned()]));
    assert_eq!(estate.digest.len(), 64);
    let check = &estate.checks[0];
    assert_eq!(
        (check.id.as_str(), check.suite.as_str(), check.statement()),
        ("X1", "own", Some("SELECT 'SELECT 1 WHERE false'"))
    );
    assert_eq!((check.severity, check.expect, check.database), (Severity::Baseline, Expectation::Rows, Scope::Odoo));
    assert_eq!((check.odoo_min, check.odoo_max, check.timeout), (Some(16), Some(19), Duration::from_secs(60)));
    assert!(matches!(check.probe, Probe::Sql { generates: true, .. }));
    let job = |name: &str| estate.jobs.iter().find(|job| job.name == name).expect("known");
    let nightly = job("nightly");
    assert_eq!((nightly.kind, nightly.time_zone), (JobKind::Base, chrono_tz::Tz::Europe__Brussels));
    assert_eq!((nightly.cron.text(), nightly.environments.as_slice()), ("30 1 * * *", &["shop-2".to_owned()][..]));
    assert_eq!(
        (Some(nightly.jitter), nightly.deadline, Some(nightly.timeout)),
        (minutes(10), minutes(360), minutes(480))
    );
    assert_eq!((nightly.catch_up, nightly.retries, Some(nightly.retry_after)), (CatchUp::None, 5, minutes(10)));
    assert!(job("deep").deep && !job("drill").deep);
    let drill = job("drill");
    assert_eq!((drill.after.as_deref(), drill.sample), (Some("nightly"), DrillSample::Longest));
    assert_eq!((Some(drill.max_deferral), drill.when_deferred_too_long), (minutes(14 * 24 * 60), TooLong::Run));
    assert_eq!((drill.retries, drill.catch_up, drill.built_in), (0, CatchUp::One, false));
    let peak = &estate.calendars[0];
    assert_eq!((peak.title.as_deref(), peak.kind), (Some("Black Friday to the sales"), CalendarKind::Deny));
    assert_eq!(
        (peak.effects.len(), peak.max_rate, peak.rpo, peak.rto),
        (3, Some(ByteSize(20 << 20)), minutes(1), minutes(60))
    );
    assert_eq!(peak.environments, ["shop-2"]);
    assert_eq!(peak.windows.len(), 4, "two written, two of the iCalendar file");
    assert_eq!((peak.windows[0].lasts, peak.windows[0].except.len()), (Lasts::Days(4), 1));
    assert_eq!(peak.windows[2].title.as_deref(), Some("Opening of the shop in Ghent"));
    assert_eq!(estate.calendars[1].kind, CalendarKind::Allow);
    let built_in = sample("minimal.toml");
    assert!(
        built_in.jobs.len() == 8 && built_in.jobs.iter().all(|job| job.built_in && job.environments == ["production"])
    );
    let masking: Vec<_> = estate
        .masking
        .iter()
        .map(|r| (r.schema.as_str(), r.table.as_str(), r.column.as_deref(), r.rule.clone()))
        .collect();
    let expected = [
        ("public", "mail_message", None, Rule::DeleteRows),
        ("other", "people", Some("name"), Rule::Constant("somebody".into())),
        ("public", "res_partner", Some("email"), Rule::FakeEmail),
    ];
    assert_eq!(masking, expected);
}

#[test]
fn a_file_matched_twice_is_read_once_and_suites_are_named_after_files() {
    let estate = sample("overlapping-patterns/lifeboat.toml");
    assert_eq!((estate.environments.len(), estate.checks.len()), (1, 1));
    assert_eq!(estate.checks[0].suite, "checks");
}

#[test]
fn an_unknown_environment_is_a_usage_error_that_lists_the_known_ones() {
    let estate = sample("one-cluster-two-slots.toml");
    let error = estate.environment("prodution").expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.hints(), ["did you mean production?", "environments: production, staging"]);
    assert_eq!(estate.environment("x").expect_err("unknown").hints(), ["environments: production, staging"]);
    let none = sample("no-environment-yet.toml").environment("x").expect_err("unknown");
    assert!(none.hints()[0].contains("lifeboat.example.toml"));
}

/// Copies what the example includes, with `recipient` in the place that the example leaves open.
fn example_with(recipient: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let text = std::fs::read_to_string(root().join("lifeboat.example.toml")).expect("example");
    assert_eq!(text.matches("\"age1…\"").count(), 1);
    std::fs::write(dir.path().join("lifeboat.toml"), text.replace("age1…", recipient)).expect("written");
    for folder in ["schedules", "restore-tests"] {
        std::fs::create_dir(dir.path().join(folder)).expect("directory");
        for file in expand_glob(&root().join(folder).join("*")).expect("readable") {
            std::fs::copy(&file, dir.path().join(folder).join(file.file_name().expect("name"))).expect("copied");
        }
    }
    dir
}

#[test]
fn the_example_and_the_shipped_schedules_and_checks_load_once_a_recipient_is_filled_in() {
    // As it stands it is refused: a recipient that everybody copies is one whose key nobody here holds.
    let as_it_stands = Estate::load(&root().join("lifeboat.example.toml")).expect_err("no recipient yet");
    assert!(as_it_stands.message().contains("this is not an age X25519 recipient"), "{as_it_stands}");

    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let dir = example_with(&recipient);
    let estate = Estate::load(&dir.path().join("lifeboat.toml")).expect("loads");
    assert_eq!(estate.keys.recipients, [recipient]);
    let names: Vec<&str> = estate.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["production", "staging"]);

    let ids = |suite: &str| -> Vec<&str> {
        estate.checks.iter().filter(|c| c.suite == suite).map(|c| c.id.as_str()).collect()
    };
    let hard = ["A1", "A2", "A3", "A5", "P1", "O1", "F3", "G1", "G2", "G3-indexes", "G3-constraints", "G4"];
    assert_eq!(ids("odoo-hard"), hard);
    assert_eq!(ids("odoo-facts"), ["M3", "F1", "M1", "G5"]);
    assert!(ids("odoo-baseline").len() >= 10 && ids("odoo-fingerprint").len() >= 12, "the library shrank");
    for check in &estate.checks {
        let hard = check.suite == "odoo-hard" || check.suite == "odoo-fingerprint";
        assert_eq!(check.severity == Severity::Hard, hard, "{}", check.id);
        let compares =
            ["odoo-baseline", "odoo-fingerprint", "odoo-fresh"].contains(&check.suite.as_str()) || check.id == "M1";
        assert_eq!(check.asks_the_source(), compares, "{}", check.id);
        assert!(check.why.len() > 80 && check.title.len() > 20, "{} is hardly explained", check.id);
    }
    let production = estate.environment("production").expect("known");
    assert_eq!(estate.checks_for(production).count(), estate.checks.len());
    let staging = estate.environment("staging").expect("known");
    assert!(estate.checks_for(staging).all(|c| c.suite == "odoo-hard"));
}

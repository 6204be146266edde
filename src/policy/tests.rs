//! Requirement by requirement: what holds, what does not, what cannot be known.

use std::path::Path;

use chrono::TimeZone as _;

use super::*;

const ESTATE: &str = r#"
[repository]
url = "file:///srv/backups"
[keys]
recipients = ["age16g7ufnh7spwc936zaf48lgx6ug0g6z40ypavlt4wju9hsqeg7e3qyu5yah"]
[[environment]]
name = "production"
purpose = "production"
owner = "shops"
data_classes = ["personal"]
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "host=db.example.org user=lifeboat dbname=postgres"
[[environment.odoo]]
data_dir = "/var/lib/odoo"
[environment.drill]
sandbox = "none"
[[environment]]
name = "staging"
purpose = "staging"
owner = "shops"
[environment.objectives]
rpo = "1h"
rto = "1d"
[environment.postgres]
dsn = "host=/run/postgresql user=lifeboat dbname=postgres"
[[check]]
id = "C1"
title = "a check"
severity = "hard"
sql = "SELECT 1 WHERE false"
why = "because"
"#;

fn load(rules: &str) -> (Policy, Estate) {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("lifeboat.toml");
    std::fs::write(&file, ESTATE).expect("written");
    std::fs::write(dir.path().join("policy.toml"), rules).expect("written");
    let estate = Estate::load(&file).unwrap_or_else(|e| panic!("{e}"));
    let policy = estate.policy.clone().expect("found beside");
    (Policy::load(&policy, &estate).unwrap_or_else(|e| panic!("{e}")), estate)
}

fn refused(rules: &str) -> String {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("lifeboat.toml");
    std::fs::write(&file, ESTATE).expect("written");
    std::fs::write(dir.path().join("p.toml"), rules).expect("written");
    let estate = Estate::load(&file).unwrap_or_else(|e| panic!("{e}"));
    let refused = Policy::load(&dir.path().join("p.toml"), &estate).expect_err("is wrong");
    format!("{} {:?}", refused.message(), refused.hints())
}

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 29, 12, 0, 0).single().expect("a time")
}

fn states(judged: &[Judged], environment: &str) -> BTreeMap<String, State> {
    judged.iter().filter(|j| j.environment == environment).map(|j| (j.requirement.clone(), j.state)).collect()
}

const RULES: &str = r#"
[[rule]]
name = "production"
purposes = ["production"]
rpo = "5m"
rto = "30m"
owners = ["erp-platform"]
classified = true
recipients = { at_least = 2, only = ["age18z6pez6ey4lma24p8nqqt8q93e2ck4nz3wnm8hrz500v7qcuawuqdna8pf"] }
stores = ["s3"]
encrypted_connection = true
base_backup_every = "1d"
configuration_every = "1d"
filestore_every = "1h"
critical_drift_within = "1d"
drill = { every = "8d", random_every = "8d", selftest_every = "8d", sealed = true, odoo = true, limits = true }
[[exception]]
environment = "production"
requirement = "store"
until = "2026-11-29"
why = "moves this week"
by = "cto"
[[exception]]
environment = "production"
requirement = "owner"
until = "2026-11-28"
why = "was to be renamed"
by = "cto"
"#;

#[test]
fn the_configuration_alone_is_judged_and_the_rest_is_unknown() {
    let (policy, estate) = load(RULES);
    let all: Vec<&Environment> = estate.environments.iter().collect();
    let judged = judge(&policy, &estate, &all, &BTreeMap::new(), now());
    let found = states(&judged, "production");
    use State::{Held, Unknown, Violated, Waived};
    let expected = [
        ("rpo.objective", Held),
        ("rto.objective", Violated),
        ("owner", Violated),
        ("data_classes", Held),
        ("recipients.at_least", Violated),
        ("recipients.only", Violated),
        ("store", Waived),
        ("encrypted_connection", Violated),
        ("drill.sealed", Violated),
        ("drill.odoo", Violated),
        ("drill.limits", Violated),
        ("rpo.actual", Unknown),
        ("rto.actual", Unknown),
        ("base_backup_every", Unknown),
        ("configuration_every", Unknown),
        ("filestore_every", Unknown),
        ("critical_drift", Unknown),
        ("drill.last", Unknown),
        ("drill.every", Unknown),
        ("drill.random_every", Unknown),
        ("drill.selftest_every", Unknown),
        ("drill.sealed.actual", Unknown),
        ("drill.odoo.actual", Unknown),
    ];
    assert_eq!(found, expected.map(|(name, state)| (name.to_owned(), state)).into());
    assert_eq!(states(&judged, "staging"), [("covered".to_owned(), Violated)].into(), "nobody decided about it");
    assert_eq!(idle_exceptions(&policy, &judged), ["owner of production until 2026-11-28"]);
    assert!(judged.iter().all(|j| matches!(j.state, Violated | Waived) == j.to_do.is_some()), "{judged:#?}");
    let xml = junit(&judged);
    let failures = judged.iter().filter(|j| j.state == Violated).count();
    assert_eq!(xml.matches("<failure ").count(), failures);
    assert!(
        xml.contains(&format!("failures=\"{failures}\"")) && xml.contains("waived until 2026-11-29 by cto"),
        "{xml}"
    );
}

#[test]
fn evidence_decides_what_is_real() {
    let (policy, estate) = load(RULES);
    let production = estate.environment("production").expect("known");
    let ago = |hours: i64| now() - chrono::Duration::hours(hours);
    let drill = DrillFact {
        id: "d".into(),
        at: ago(24),
        verdict: "passed".into(),
        sound: true,
        sealed: true,
        odoo: true,
        random: true,
        rto_seconds: Some(1200.0),
    };
    let good = Evidence {
        newest: Some(now() - chrono::Duration::seconds(20)),
        base_at: Some(ago(3)),
        export_at: Some(ago(3)),
        filestores: vec![("shop".into(), Some(now()))],
        drills: vec![drill.clone()],
        selftest_at: Some(ago(30)),
        critical_drift: None,
        refreshes: Vec::new(),
    };
    let proven = |evidence: Evidence| {
        let evidence = [("production".to_owned(), evidence)].into();
        let judged = judge(&policy, &estate, &[production], &evidence, now());
        let of = |j: &Judged| {
            j.state == State::Violated && !j.is.contains("[environment") && j.requirement.contains(['.', '_'])
        };
        let configured = [
            "rto.objective",
            "recipients.at_least",
            "recipients.only",
            "encrypted_connection",
            "drill.sealed",
            "drill.odoo",
            "drill.limits",
        ];
        let names = judged.iter().filter(|j| of(j) && !configured.contains(&j.requirement.as_str()));
        names.map(|j| j.requirement.clone()).collect::<Vec<_>>()
    };
    assert_eq!(proven(good.clone()), Vec::<String>::new());
    let old = Evidence {
        newest: Some(ago(1)),
        base_at: Some(ago(30)),
        export_at: None,
        filestores: vec![("shop".into(), Some(ago(2))), ("other".into(), None)],
        drills: vec![
            DrillFact { sound: false, verdict: "failed".into(), ..drill.clone() },
            DrillFact {
                at: ago(24 * 9),
                sealed: false,
                odoo: false,
                random: false,
                rto_seconds: Some(4000.0),
                ..drill.clone()
            },
        ],
        selftest_at: None,
        critical_drift: Some((ago(48), "pg_hba.conf".into())),
        refreshes: Vec::new(),
    };
    let expected = [
        "rpo.actual",
        "rto.actual",
        "base_backup_every",
        "configuration_every",
        "filestore_every",
        "drill.last",
        "drill.every",
        "drill.random_every",
        "drill.selftest_every",
        "drill.odoo.actual",
        "critical_drift",
    ];
    assert_eq!(proven(old), expected);
    let none = proven(Evidence::default());
    assert!(none.contains(&"rpo.actual".to_owned()) && none.contains(&"drill.sealed.actual".to_owned()), "{none:?}");
}

/// How long recovery points are kept: by the rules of production, which `[environment.retention]` holds.
fn kept(rules: &str, retention: &str) -> BTreeMap<String, State> {
    let (policy, _) = load(&format!("[[rule]]\nname = \"kept\"\nretention = {{ {rules} }}\n"));
    let dir = tempfile::tempdir().expect("temp dir");
    let text = ESTATE.replacen("[environment.drill]", &format!("{retention}\n[environment.drill]"), 1);
    std::fs::write(dir.path().join("lifeboat.toml"), text).expect("written");
    let estate = Estate::load(&dir.path().join("lifeboat.toml")).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()));
    let production = estate.environment("production").expect("known");
    states(&judge(&policy, &estate, &[production], &BTreeMap::new(), now()), "production")
}

#[test]
fn recovery_points_are_kept_at_least_so_long() {
    let all =
        "recent = \"7d\", daily = 14, weekly = 8, monthly = 12, yearly = 3, base_backups = 2, delete_after = \"7d\"";
    let keys = ["recent", "daily", "weekly", "monthly", "yearly", "base_backups", "delete_after"];
    let of = |state: State| keys.map(|key| (format!("retention.{key}"), state)).into();
    assert_eq!(kept(all, ""), of(State::Held), "without rules nothing is ever deleted");
    let good = "[environment.retention]\nrecent = \"7d\"\ndaily = 14\nweekly = 8\nmonthly = 12\nyearly = 3\n";
    assert_eq!(kept(all, good), of(State::Held));
    let short = "[environment.retention]\nrecent = \"6d\"\ndaily = 13\nweekly = 7\nmonthly = 11\nyearly = 2\n\
                 minimum_base_backups = 1\ndelete_after = \"6d\"\n";
    assert_eq!(kept(all, short), of(State::Violated));
}

#[test]
fn a_finer_rule_that_reaches_as_far_is_as_good() {
    for (asked, retention) in [
        ("daily = 30", "recent = \"30d\""),
        ("weekly = 4", "recent = \"28d\""),
        ("weekly = 4", "recent = \"1d\"\ndaily = 28"),
        ("monthly = 2", "recent = \"1d\"\nweekly = 10"),
        ("monthly = 1", "recent = \"31d\""),
        ("yearly = 1", "recent = \"1d\"\nmonthly = 12"),
        ("yearly = 1", "recent = \"366d\""),
    ] {
        let found = kept(asked, &format!("[environment.retention]\n{retention}\n"));
        assert!(found.values().all(|state| *state == State::Held), "{asked} by {retention}: {found:?}");
    }
    for (asked, retention) in [
        ("daily = 30", "recent = \"29d\"\nweekly = 50"),
        ("weekly = 4", "recent = \"27d\"\nmonthly = 12"),
        ("monthly = 2", "recent = \"1d\"\nweekly = 9"),
        ("yearly = 1", "recent = \"1d\"\nmonthly = 11"),
    ] {
        let found = kept(asked, &format!("[environment.retention]\n{retention}\n"));
        assert!(found.values().all(|state| *state == State::Violated), "{asked} by {retention}: {found:?}");
    }
}

#[test]
fn objects_are_locked_as_strongly_and_as_long_as_asked() {
    let judged = |rule: &str, repository: &str| {
        let (policy, _) =
            load(&format!("[[rule]]\nname = \"locked\"\nenvironments = [\"production\"]\nlock = {rule}\n"));
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("lifeboat.toml"), ESTATE.replace("url = \"file:///srv/backups\"", repository))
            .expect("written");
        let estate = Estate::load(&dir.path().join("lifeboat.toml")).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()));
        let production = estate.environment("production").expect("known");
        let judged = judge(&policy, &estate, &[production], &BTreeMap::new(), now());
        judged.iter().map(|j| (j.requirement.clone(), j.state)).collect::<BTreeMap<_, _>>()
    };
    let s3 = |mode: &str, days: u32| {
        format!("url = \"s3://bucket\"\nregion = \"eu-west-3\"\nobject_lock = {{ mode = \"{mode}\", days = {days} }}")
    };
    let (held, violated) = (State::Held, State::Violated);
    let found = |lock, least| [("lock".to_owned(), lock), ("lock.least".to_owned(), least)].into();
    let asked = "{ mode = \"compliance\", least = \"30d\" }";
    assert_eq!(judged(asked, "url = \"file:///srv/backups\""), found(violated, violated));
    assert_eq!(judged(asked, &s3("compliance", 30)), found(held, held));
    assert_eq!(judged(asked, &s3("compliance", 29)), found(held, violated));
    assert_eq!(judged(asked, &s3("governance", 30)), found(violated, held));
    let only = |state| [("lock".to_owned(), state)].into();
    assert_eq!(judged("\"governance\"", &s3("compliance", 1)), only(held), "what nobody may lift is as good");
    assert_eq!(judged("\"compliance\"", &s3("governance", 99)), only(violated));
}

#[test]
fn what_is_scheduled_and_what_calendars_forbid() {
    let rules = "[[rule]]\nname = \"a\"\nscheduled = [\"base\"]\ncalendars = [\"forbid-restores\"]\napprovals = true\n";
    let (policy, mut estate) = load(rules);
    let judged = |estate: &Estate| {
        let production = estate.environment("production").expect("known");
        states(&judge(&policy, estate, &[production], &BTreeMap::new(), now()), "production")
    };
    let both = |scheduled, calendars| {
        [
            ("scheduled".to_owned(), scheduled),
            ("calendars".to_owned(), calendars),
            ("approvals".to_owned(), State::Violated),
        ]
        .into()
    };
    estate.jobs.clear();
    assert_eq!(judged(&estate), both(State::Violated, State::Violated));
    let dir = tempfile::tempdir().expect("temp dir");
    let text = format!(
        "{ESTATE}\n[[job]]\nname = \"nightly\"\nkind = \"base\"\nenvironments = [\"production\"]\ncron = \"0 2 * * *\"\n\
         [[calendar]]\nname = \"peak\"\nenvironments = [\"production\"]\neffects = [\"forbid-restores\"]\n\
         [[calendar.window]]\nstarts = \"2026-11-27T00:00\"\nlasts = \"4d\"\n"
    );
    std::fs::write(dir.path().join("lifeboat.toml"), text).expect("written");
    estate = Estate::load(&dir.path().join("lifeboat.toml")).unwrap_or_else(|e| panic!("{e} {:?}", e.hints()));
    assert_eq!(judged(&estate), both(State::Held, State::Held));
}

#[test]
fn drift_is_decided_by_somebody_who_silences_it() {
    use crate::evidence::Body;
    use crate::evidence::drift_record::DriftRecord;
    use crate::evidence::notices::SilenceChange;
    use crate::evidence::testing::entry;

    let at = |hours: i64| now() + chrono::Duration::hours(hours);
    let drift = DriftRecord {
        export: "b".into(),
        taken_at: at(0),
        compared_with: "a".into(),
        compared_at: at(-24),
        changes: Vec::new(),
        left_out: 0,
        critical: 1,
        notices: 0,
        expected: 0,
        ignored: 0,
    };
    let decided = |hours, condition: Option<&str>, subject: Option<&str>, until| {
        let silence = SilenceChange {
            id: "s".into(),
            condition: condition.map(Into::into),
            subject: subject.map(Into::into),
            until,
            author: "cto".into(),
            reason: "it was meant".into(),
        };
        super::evidence::is_decided(&[entry(1, at(hours), Body::Silence(silence))], &drift)
    };
    let until = Some(at(24));
    assert!(decided(1, Some("configuration_drift"), None, until));
    assert!(decided(1, Some("configuration_drift"), Some("b"), until));
    assert!(!decided(1, Some("configuration_drift"), Some("a"), until), "of another export");
    assert!(!decided(-1, Some("configuration_drift"), None, until), "it was made before");
    assert!(!decided(1, None, None, until), "of everything");
    assert!(!decided(1, Some("configuration_drift"), None, None), "it ends one");
}

#[test]
fn copies_must_be_masked() {
    let (policy, estate) = load("[[rule]]\nname = \"copies\"\nmasked_refresh_only = true\n");
    let staging = estate.environment("staging").expect("known");
    let refresh = |masked| Refresh { what: "shop of production, 2026-11-20".into(), masked };
    let judged = |refreshes| {
        let evidence = [("staging".to_owned(), Evidence { refreshes, ..Evidence::default() })].into();
        states(&judge(&policy, &estate, &[staging], &evidence, now()), "staging")["masked_refresh_only"]
    };
    assert_eq!(judged(vec![refresh(true)]), State::Held);
    assert_eq!(judged(vec![refresh(true), refresh(false)]), State::Violated);
}

#[test]
fn a_policy_with_names_that_nothing_has_is_refused() {
    for (rules, said) in [
        ("", "holds no [[rule]]"),
        ("[[rule]]\nname = \"a\"\nenvironments = [\"prodution\"]\n", "did you mean \\\"production\\\"?"),
        ("[[rule]]\nname = \"a\"\n[[rule]]\nname = \"a\"\n", "defined twice"),
        ("[[rule]]\nname = \"a\"\nstores = [\"s4\"]\n", "no kind of store \"s4\""),
        ("[[rule]]\nname = \"a\"\ndrill = { suites = [\"other\"] }\n", "no suite of checks \"other\""),
        ("[[rule]]\nname = \"a\"\nrpoo = \"1h\"\n", "did you mean `rpo`?"),
        ("[[rule]]\nname = \"a\"\nlock = \"strong\"\n", "a lock is"),
        ("[[rule]]\nname = \"a\"\nretention = { recent = \"0s\" }\n", "is zero"),
        (
            "[[rule]]\nname = \"a\"\n[[exception]]\nenvironment = \"staging\"\nrequirement = \"x\"\nuntil = \"soon\"\nwhy = \"x\"\nby = \"x\"\n",
            "is not a day",
        ),
    ] {
        let refused = refused(rules);
        assert!(refused.contains(said), "{rules}: {refused}");
    }
}

#[test]
fn the_example_loads_beside_the_shipped_checks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("lifeboat.toml");
    let include = format!("include = [\"{}/restore-tests/*.toml\"]\n", root.display());
    std::fs::write(&file, include + &ESTATE.replace("id = \"C1\"", "id = \"Z1\"")).expect("written");
    let estate = Estate::load(&file).unwrap_or_else(|e| panic!("{e}"));
    let policy = Policy::load(&root.join("policy.example.toml"), &estate).unwrap_or_else(|e| panic!("{e}"));
    let all: Vec<&Environment> = estate.environments.iter().collect();
    let judged = judge(&policy, &estate, &all, &BTreeMap::new(), now());
    assert!(judged.iter().all(|j| j.requirement != "covered"), "every environment of the example is covered");
    assert!(policy.rules.iter().all(|rule| rule.why.is_some()));
}

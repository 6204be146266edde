//! What is told of two exports, and what of two environments.

use chrono::DateTime;

use super::record::record;
use super::*;
use crate::config::DriftSeverity::{Critical, Expected, Notice};
use crate::configuration::export::{ConfigFile, Unreadable};
use crate::configuration::mask::Masker;
use crate::evidence::drift_record::Changed;
use crate::vault::IndexKey;

fn export(environment: &str, files: &[(&str, &str, &str)]) -> MaskedExport {
    let masker = Masker::new(&IndexKey::from_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key"));
    let file = |(name, origin, text): &(&str, &str, &str)| {
        let content = text.as_bytes().to_vec();
        masker.mask(&ConfigFile { name: (*name).into(), origin: (*origin).into(), mode: Some(0o640), content })
    };
    MaskedExport {
        environment: environment.into(),
        export: format!("of-{environment}"),
        taken_at: DateTime::UNIX_EPOCH,
        files: files.iter().map(file).collect(),
        missing: Vec::new(),
    }
}

/// File, setting, what happened and what it means, of every difference.
fn told(drift: &Drift) -> Vec<(&str, &str, Changed, DriftSeverity)> {
    let one = |(file, d)| -> (_, _, _, _) {
        let d: &Difference = d;
        (file, d.setting.as_deref().map_or("", |s| s), d.change, d.severity)
    };
    let mut all: Vec<_> =
        drift.files.iter().flat_map(|f| f.differences.iter().map(|d| (f.file.as_str(), d))).map(one).collect();
    all.sort_by_key(|(file, setting, ..)| (*file, *setting));
    all
}

use crate::config::DriftSeverity;

const PG: &str = "postgresql/settings.json";

fn settings(values: &[(&str, &str)]) -> String {
    let one = |(name, value): &(&str, &str)| {
        format!(
            r#"{{"name":"{name}","setting":"{value}","unit":null,"source":"configuration file","sourcefile":"/etc/p.conf","pending_restart":false}}"#
        )
    };
    format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(","))
}

#[test]
fn changes_in_time_have_names_values_and_severities() {
    let before = export(
        "production",
        &[
            (PG, "pg_settings", &settings(&[("fsync", "on"), ("work_mem", "4096")])),
            ("odoo/odoo.conf", "/etc/odoo.conf", "[options]\ndb_password = hunter2\nworkers = 4\n"),
            ("files/etc/gone.yml", "/etc/gone.yml", "a: 1\n"),
            ("files/etc/lost.yml", "/etc/lost.yml", "a: 1\n"),
            ("files/etc/note.conf", "/etc/note.conf", "one\ntwo\n"),
            ("odoo/instance-2/odoo.conf", "/etc/2.conf", "[options]\n; a\n"),
        ],
    );
    let mut now = export(
        "production",
        &[
            (PG, "pg_settings", &settings(&[("fsync", "off"), ("work_mem", "8192")])),
            ("odoo/odoo.conf", "/etc/odoo.conf", "[options]\ndb_password = hunter3\nworkers = 8\nlist_db = True\n"),
            ("files/etc/note.conf", "/etc/note.conf", "one\nthree\n"),
            ("odoo/instance-2/odoo.conf", "/etc/2.conf", "[options]\n; b\n"),
            ("files/etc/new.yml", "/etc/new.yml", "a: 1\n"),
        ],
    );
    now.missing.push(Unreadable {
        name: "files/etc/lost.yml".into(),
        origin: "/etc/lost.yml".into(),
        reason: "EACCES".into(),
    });
    now.files[2].mode = Some(0o644);
    let own = [DriftRule {
        file: "odoo/odoo.conf".into(),
        setting: Some("workers".into()),
        environments: Some(vec!["production".into()]),
        between: DriftBetween::Exports,
        severity: DriftSeverity::Ignored,
        why: None,
    }];
    let drift = changes(&before, &now, Rules { own: &own, environment: "production" });
    let expected = [
        ("files/etc/gone.yml", "", Changed::Removed, Notice),
        ("files/etc/lost.yml", "", Changed::Unreadable, Notice),
        ("files/etc/new.yml", "", Changed::Added, Notice),
        ("files/etc/note.conf", "", Changed::Changed, Notice),
        ("files/etc/note.conf", "permissions", Changed::Changed, Notice),
        ("odoo/instance-2/odoo.conf", "comments", Changed::Changed, Expected),
        ("odoo/odoo.conf", "db_password", Changed::Changed, Notice),
        ("odoo/odoo.conf", "list_db", Changed::Added, Critical),
        (PG, "fsync", Changed::Changed, Critical),
        (PG, "work_mem", Changed::Changed, Notice),
    ];
    assert_eq!(told(&drift), expected);
    assert_eq!(drift.ignored, 1);
    let note = drift.files.iter().find(|f| f.file.ends_with("note.conf")).expect("there");
    assert!(note.diff.as_ref().is_some_and(|d| d.contains("-two\n+three\n")), "{note:?}");
    let everything = serde_json::to_string(&drift).expect("JSON");
    assert!(!everything.contains("hunter"), "{everything}");

    let said = record(&drift);
    assert_eq!((said.critical, said.notices, said.expected, said.ignored, said.left_out), (2, 7, 1, 1, 0));
    assert_eq!(said.changes.len(), 10);
    assert!(said.changes[..2].iter().all(|c| c.severity == Critical));
    assert!(said.alert().is_some_and(|a| a.contains("list_db in odoo/odoo.conf changed") && a.ends_with("and 1 more")));
    let written = serde_json::to_string(&said).expect("JSON");
    assert!(!written.contains("8192") && !written.contains("secret "), "names, no values: {written}");

    // An export that found less later does not hide it; what is older than asked for is over.
    let at = said.taken_at;
    let entry = |n, drift| crate::evidence::testing::entry(n, at, crate::evidence::Body::Drift(drift));
    let mut lesser = said.clone();
    (lesser.changes, lesser.critical) = (Vec::new(), 0);
    let entries = [entry(1, said.clone()), entry(2, lesser)];
    let told: Vec<String> =
        critical_since(&entries, at - chrono::TimeDelta::seconds(1)).into_iter().map(|d| d.said).collect();
    assert_eq!(told, [said.alert().expect("critical")]);
    assert_eq!(critical_since(&entries, at), []);

    let same = changes(&now, &now, Rules { own: &own, environment: "production" });
    assert!(same.is_empty() && same.ignored == 0 && record(&same).alert().is_none());
}

#[test]
fn environments_are_compared_where_they_should_be_alike() {
    let modules =
        |version: &str| format!(r#"[{{"name":"sale","state":"installed","latest_version":"{version}","author":"x"}}]"#);
    let databases =
        |name: &str, collate: &str| format!(r#"[{{"name":"{name}","owner":"{name}","collate":"{collate}"}}]"#);
    let production = export(
        "production",
        &[
            ("odoo/shop/modules.json", "q", &modules("19.0.1.2")),
            ("postgresql/databases.json", "q", &databases("shop", "C")),
            (
                "odoo/odoo.conf",
                "/etc/odoo.conf",
                "[options]\ndb_host = a\ndb_password = hunter2\nserver_wide_modules = base,web\n",
            ),
            (PG, "pg_settings", &settings(&[("port", "5432"), ("shared_preload_libraries", "")])),
            (
                "odoo/shop/parameters.json",
                "q",
                r#"[{"key":"web.base.url","value":"https://a"},{"key":"shop.mode","value":"x"}]"#,
            ),
        ],
    );
    let staging = export(
        "staging",
        &[
            ("odoo/test/modules.json", "q", &modules("19.0.1.1")),
            ("postgresql/databases.json", "q", &databases("test", "en_US.UTF-8")),
            (
                "odoo/odoo.conf",
                "/etc/odoo.conf",
                "[options]\ndb_host = b\ndb_password = hunter2\nserver_wide_modules = base,web\n",
            ),
            (PG, "pg_settings", &settings(&[("port", "5433"), ("shared_preload_libraries", "auto_explain")])),
            (
                "odoo/test/parameters.json",
                "q",
                r#"[{"key":"web.base.url","value":"https://b"},{"key":"shop.mode","value":"y"}]"#,
            ),
        ],
    );
    let drift = parity(&production, &staging, Rules { own: &[], environment: "production" });
    let expected = [
        ("odoo/odoo.conf", "db_host", Changed::Changed, Expected),
        ("odoo/odoo.conf", "secret", Changed::Shared, Critical),
        ("odoo/shop/modules.json", "sale.latest_version", Changed::Changed, Critical),
        ("odoo/shop/parameters.json", "shop.mode", Changed::Changed, Notice),
        ("odoo/shop/parameters.json", "web.base.url", Changed::Changed, Expected),
        ("postgresql/databases.json", "shop.collate", Changed::Changed, Critical),
        ("postgresql/databases.json", "shop.owner", Changed::Changed, Expected),
        (PG, "port", Changed::Changed, Expected),
        (PG, "shared_preload_libraries", Changed::Changed, Critical),
    ];
    // Roles are called like their databases here, so the database's owner is renamed with it.
    let found: Vec<_> = told(&drift).into_iter().collect();
    let without_owner: Vec<_> = expected.into_iter().filter(|(_, s, ..)| *s != "shop.owner").collect();
    assert_eq!(found, without_owner);
    let shared = drift.differences().find(|(_, d)| d.change == Changed::Shared).expect("there").1;
    assert_eq!(shared.before.as_deref(), Some("db_password"));
}

//! A masked file as settings, name by name: what makes "work_mem: 8MB, now 64MB" out of two texts.
//!
//! Files that an export makes itself, `odoo.conf`, `postgresql.conf` and what it includes, dumps of roles and JSON
//! have settings; other files are compared by their lines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::mask::MaskedFile;

/// Settings by name; values are masked.
pub(crate) type Settings = BTreeMap<String, String>;

/// The settings of a file; `None` where it has none that could be told apart.
pub(crate) fn settings(file: &MaskedFile) -> Option<Settings> {
    let text = file.text.as_deref()?;
    let base = file.name.rsplit('/').next().unwrap_or_default();
    let made_here = !file.name.starts_with("files/") && !file.origin.starts_with('/');
    match base {
        "settings.json" if made_here => server_settings(text),
        "parameters.json" if made_here => pairs(text),
        _ if base.ends_with(".json") || text.starts_with('{') => json(text),
        _ if made_here && base.ends_with(".sql") => Some(statements(text)),
        "odoo.conf" => Some(ini(text)),
        _ if file.name.starts_with("postgresql/")
            && base.ends_with(".conf")
            && !matches!(base, "pg_hba.conf" | "pg_ident.conf") =>
        {
            Some(ini(text))
        }
        _ => None,
    }
}

/// `[section]` and `name = value`, with continuations; a name given twice counts as its last value, as its readers take it.
/// PostgreSQL writes `name value` too.
fn ini(text: &str) -> Settings {
    let mut settings = Settings::new();
    let mut section = String::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = if name == "options" { String::new() } else { format!("[{name}] ") };
            last = None;
        } else if line.starts_with([' ', '\t']) && last.is_some() {
            let value = last.as_ref().and_then(|name| settings.get_mut(name)).expect("it was just set");
            value.push('\n');
            value.push_str(trimmed);
        } else {
            let cut = trimmed.find(['=', ':']).or_else(|| trimmed.find(char::is_whitespace)).unwrap_or(trimmed.len());
            let name = format!("{section}{}", trimmed[..cut].trim().to_lowercase());
            let value = trimmed[cut..].trim_start_matches(['=', ':']).trim().to_owned();
            settings.insert(name.clone(), value);
            last = Some(name);
        }
    }
    settings
}

/// `pg_settings`: value and unit under the name; where it was set, and what waits for a restart, beside it.
fn server_settings(text: &str) -> Option<Settings> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    let mut settings = Settings::new();
    for setting in &list {
        let name = setting["name"].as_str()?;
        let unit = setting["unit"].as_str().map(|unit| format!(" × {unit}")).unwrap_or_default();
        settings.insert(name.to_owned(), format!("{}{unit}", plain(&setting["setting"])));
        settings.insert(format!("{name}.set_in"), [&setting["source"], &setting["sourcefile"]].map(plain).join(" "));
        if setting["pending_restart"] == true {
            settings.insert(format!("{name}.waits_for_restart"), "yes".to_owned());
        }
    }
    Some(settings)
}

/// A list of `key` and `value`.
fn pairs(text: &str) -> Option<Settings> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    list.iter().map(|pair| Some((pair["key"].as_str()?.to_owned(), plain(&pair["value"])))).collect()
}

/// Every leaf of a JSON document under the names that lead to it. Objects in lists are known by what they call themselves.
fn json(text: &str) -> Option<Settings> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut settings = Settings::new();
    leaves(&value, String::new(), &mut settings);
    Some(settings)
}

fn leaves(value: &Value, at: String, into: &mut Settings) {
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                leaves(value, below(name), into);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (number, value) in list.iter().enumerate() {
                let called =
                    ["name", "key", "code", "path", "id", "delivery_type"].iter().map(|member| plain(&value[*member]));
                let called = called.into_iter().find(|called| !called.is_empty() && called != "null");
                let mut name = below(&called.unwrap_or_else(|| (number + 1).to_string()));
                let taken = format!("{name}.");
                if into.range(taken.clone()..).next().is_some_and(|(known, _)| known.starts_with(&taken)) {
                    name = format!("{name}~{}", number + 1);
                }
                leaves(value, name, into);
            }
        }
        _ => {
            into.insert(if at.is_empty() { "value".to_owned() } else { at }, plain(value));
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

/// Statements of a dump of roles: the role is the setting, or its membership, or what is set for it.
fn statements(text: &str) -> Settings {
    let mut settings = Settings::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("--")) {
        let line = line.trim_end_matches(';');
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, value) = match words.as_slice() {
            ["CREATE", "ROLE", role, ..] => (format!("role {role}"), "exists".to_owned()),
            ["ALTER", "ROLE", role, "WITH", rest @ ..] => (format!("role {role}.attributes"), rest.join(" ")),
            ["ALTER", "ROLE", role, "SET", name, _, rest @ ..] => (format!("role {role}.{name}"), rest.join(" ")),
            ["ALTER", "ROLE", role, "IN", "DATABASE", database, "SET", name, _, rest @ ..] => {
                (format!("role {role} in {database}.{name}"), rest.join(" "))
            }
            ["GRANT", group, "TO", role, rest @ ..] => {
                (format!("role {role}.member of {group}"), format!("yes {}", rest.join(" ")))
            }
            ["CREATE", "TABLESPACE", name, rest @ ..] => (format!("tablespace {name}"), rest.join(" ")),
            ["SET", ..] => continue,
            _ => (line.to_owned(), "yes".to_owned()),
        };
        settings.insert(name, value.trim().to_owned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, origin: &str, text: &str) -> Settings {
        let (name, origin) = (name.to_owned(), origin.to_owned());
        settings(&MaskedFile { name, origin, mode: None, text: Some(text.to_owned()), digest: String::new() })
            .expect("has settings")
    }

    #[test]
    fn each_notation_gives_names_and_values() {
        let odoo = of(
            "odoo/odoo.conf",
            "/etc/odoo.conf",
            "[options]\naddons_path = /a,\n   /b\n; x = y\n[queue_job]\nchannels = root:4\n",
        );
        assert_eq!(odoo["addons_path"], "/a,\n/b");
        assert_eq!(odoo["[queue_job] channels"], "root:4");
        assert_eq!(odoo.len(), 2);
        let postgresql = of("postgresql/conf.d/a.conf", "/etc/a.conf", "work_mem = 8MB\nfsync off\n# a = b\n");
        assert_eq!((postgresql["work_mem"].as_str(), postgresql["fsync"].as_str()), ("8MB", "off"));
        let server = r#"[{"name":"work_mem","setting":"8192","unit":"kB","source":"configuration file","sourcefile":"/a","pending_restart":false}]"#;
        let server = of("postgresql/settings.json", "pg_settings", server);
        assert_eq!(server["work_mem"], "8192 × kB");
        let modules = of(
            "odoo/x/modules.json",
            "query",
            r#"[{"name":"sale","state":"installed","latest_version":"19.0.1"},{"name":"sale_x","state":"installed"}]"#,
        );
        assert_eq!(modules["sale.latest_version"], "19.0.1");
        assert_eq!(modules["sale_x.state"], "installed");
        let sql = of(
            "postgresql/globals.sql",
            "pg_dumpall",
            "-- Roles\nCREATE ROLE odoo;\nALTER ROLE odoo WITH LOGIN PASSWORD '<secret 1>';\nALTER ROLE odoo SET work_mem TO '64MB';\nGRANT a TO odoo;\n",
        );
        assert_eq!(sql["role odoo.work_mem"], "'64MB'");
        assert_eq!(sql["role odoo.member of a"], "yes");
        assert!(sql["role odoo.attributes"].contains("LOGIN"));
    }

    #[test]
    fn two_things_of_one_name_stay_two() {
        let found = of("odoo/x/y.json", "q", r#"[{"name":"a","v":1},{"name":"a","v":2}]"#);
        assert_eq!(found.values().filter(|v| *v == "1" || *v == "2").count(), 2, "{found:?}");
    }
}

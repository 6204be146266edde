//! The last touch on a restored data directory: settings that must not come along from the source.

use std::path::Path;

use super::recover::target_settings;
use super::resolve::Resolved;
use crate::disk::{failed, flush_file_system};
use crate::error::Result;
use crate::postgres::account::{Account, hand_over};

const AUTO_CONF: &str = "postgresql.auto.conf";

/// Settings of the source that would make the copy recover, follow or archive in its place.
const STALE: [&str; 14] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
];

/// A restored, recovered directory: stale recovery settings go, archiving is off until the operator
/// turns it on (`ALTER SYSTEM RESET archive_mode`): a copy must never archive over its original.
pub fn recovered(pgdata: &Path, account: Option<&Account>) -> Result<()> {
    rewrite(pgdata, account, &[("archive_mode", "off".to_owned())])
}

/// A restored directory that the operator starts: recovery settings for exactly the resolved target.
pub fn to_be_recovered(
    pgdata: &Path,
    account: Option<&Account>,
    target: &Resolved,
    restore_command: &str,
) -> Result<()> {
    let mut settings = vec![("archive_mode", "off".to_owned())];
    settings.extend(target_settings(target, restore_command).into_iter().filter(|(_, value)| !value.is_empty()));
    rewrite(pgdata, account, &settings)?;
    let signal = pgdata.join("recovery.signal");
    write_private(&signal, "")?;
    hand_over(&signal, account)?;
    flush_file_system(pgdata)
}

fn rewrite(pgdata: &Path, account: Option<&Account>, settings: &[(&str, String)]) -> Result<()> {
    let path = pgdata.join(AUTO_CONF);
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed("cannot read", &path, e)),
    };
    let new = pgdata.join(format!("{AUTO_CONF}.new"));
    write_private(&new, &rewritten(&old, settings))?;
    hand_over(&new, account)?;
    std::fs::rename(&new, &path).map_err(|e| failed("cannot rename", &new, e))?;
    flush_file_system(pgdata)
}

/// The file without stale and replaced settings, with `settings` at its end. PostgreSQL reads the last
/// of several lines, but a leftover target of another kind is an error to it.
fn rewritten(old: &str, settings: &[(&str, String)]) -> String {
    let named = |line: &str| line.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    let mut text: String = old
        .lines()
        .filter(|line| {
            let name = named(line.trim_start());
            !STALE.contains(&name.as_str()) && !settings.iter().any(|(n, _)| *n == name)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for (name, value) in settings {
        text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
    }
    text
}

/// Mode 0600, as PostgreSQL keeps its files.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| failed("cannot write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_recovery_settings_go_and_everything_else_stays() {
        let old = "# Do not edit\nwork_mem = '64MB'\nrecovery_target_time = '2026'\nprimary_conninfo='host=a'\narchive_mode = 'on'\n";
        let new = rewritten(old, &[("archive_mode", "off".into()), ("restore_command", "it's".into())]);
        assert_eq!(new, "# Do not edit\nwork_mem = '64MB'\narchive_mode = 'off'\nrestore_command = 'it''s'\n");
    }
}

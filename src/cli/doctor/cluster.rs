//! One environment: its PostgreSQL, its Odoo, its backups, and whether this host could restore it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::estate::by_age;
use super::{Findings, odoo};
use crate::cli::context::Context;
use crate::cli::text::{counted, time_and_age};
use crate::config::Environment;
use crate::error::{self, Result};
use crate::evidence::entry::BaseBackup;
use crate::postgres::account::Account;
use crate::postgres::replication::SystemIdentity;
use crate::postgres::slot_state::wal_state;
use crate::postgres::source::Source;
use crate::postgres::sql::explain;
use crate::postgres::tools;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::Gap;
use crate::repository::frontier::Recovery;
use crate::units::{ByteSize, Lsn, Span};

/// An older newest base backup is told: a day and two hours of grace for a nightly one.
const BASE_AGE: Duration = Duration::from_secs(26 * 3600);
/// A larger difference between the clocks of host and server is told.
const CLOCK: Duration = Duration::from_secs(1);
/// More WAL than this held back for the slot is told.
const HELD: u64 = 4 << 30;
/// Versions that Lifeboat is tested with.
const MAJORS: std::ops::RangeInclusive<i32> = 13..=18;

/// Examines one environment.
pub(super) async fn examine(
    findings: &mut Findings,
    context: &Context,
    environment: &Environment,
    repository: Option<&Repository>,
) {
    let (sql, identity) = postgres(findings, environment).await;
    let mut major = None;
    if let Some(client) = &sql {
        match settings(findings, context, environment, client).await {
            Ok(version) => major = Some(version / 10_000),
            Err(failure) => findings.fail("PostgreSQL settings", &failure),
        }
    }
    let end = match &sql {
        Some(client) => slot(findings, environment, client).await,
        None => None,
    };
    if let Some(repository) = repository {
        let base_version = backups(findings, context, environment, repository, identity, end).await;
        major = major.or(base_version);
    }
    for instance in &environment.odoo {
        odoo::files(findings, instance);
        if let Some(client) = &sql {
            odoo::databases(findings, environment, instance, client).await;
        }
    }
    if sql.is_some() && !environment.odoo.is_empty() {
        odoo::filestores(findings, environment).await;
    }
    restore(findings, environment, major);
}

/// Both kinds of session.
async fn postgres(findings: &mut Findings, environment: &Environment) -> (Option<Client>, Option<SystemIdentity>) {
    let Some(source) = findings.take("PostgreSQL password", Source::new(&environment.postgres)) else {
        return (None, None);
    };
    let sql = findings.take("PostgreSQL session", source.sql().await);
    if sql.is_some() {
        findings.ok("PostgreSQL session", "SQL works");
    }
    let identified = async { source.replication().await?.identify_system().await };
    let identity = match identified.await {
        Ok(identity) => {
            findings.ok("replication session", format!("works; system identifier {}", identity.system_id));
            Some(identity)
        }
        // The same reason would be told twice.
        Err(failure) if sql.is_none() => {
            let words = failure.message();
            if findings.all.last().is_none_or(|last| last.words != words) {
                findings.fail("replication session", &failure);
            }
            None
        }
        Err(failure) => {
            findings.fail("replication session", &failure);
            None
        }
    };
    (sql, identity)
}

/// Version, settings, room, privileges and clock; gives `server_version_num`.
async fn settings(
    findings: &mut Findings,
    context: &Context,
    environment: &Environment,
    client: &Client,
) -> Result<i32> {
    const QUERY: &str = "
        SELECT current_setting('server_version_num')::int, current_setting('server_version'),
               current_setting('wal_level'), current_setting('max_wal_senders')::int,
               current_setting('max_replication_slots')::int, current_setting('data_checksums'),
               current_setting('full_page_writes'), current_setting('max_slot_wal_keep_size'),
               (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int,
               (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int,
               (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1)::int,
               has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE'),
               has_function_privilege('pg_catalog.pg_logical_emit_message(boolean, text, text)', 'EXECUTE'),
               current_user::text, pg_is_in_recovery()";
    let failed = |e| explain(e, "cannot read PostgreSQL's settings");
    let row = client.query_one(QUERY, &[&environment.postgres.slot]).await.map_err(failed)?;
    let (version, shown): (i32, String) = (row.get(0), row.get(1));
    match MAJORS.contains(&(version / 10_000)) {
        true => findings.ok("PostgreSQL version", shown),
        false if version < 130_000 => {
            findings
                .fail("PostgreSQL version", &error::source(format!("{shown} is too old; Lifeboat needs 13 or later")));
        }
        false => findings.warning(
            "PostgreSQL version",
            format!("{shown} is newer than what Lifeboat was tested with"),
            "look for a newer Lifeboat",
        ),
    }
    let level: String = row.get(2);
    match level.as_str() {
        "replica" | "logical" => findings.ok("wal_level", level),
        _ => {
            let wrong = error::source(format!("wal_level is {level}: neither base backups nor WAL can be had"))
                .hint("ALTER SYSTEM SET wal_level = replica, then restart PostgreSQL");
            findings.fail("wal_level", &wrong);
        }
    }
    let (senders, slots, senders_used, slots_used, own): (i32, i32, i32, i32, i32) =
        (row.get(3), row.get(4), row.get(8), row.get(9), row.get(10));
    // `wal receive` takes one; a base backup two, one of them for its own WAL.
    let needed = senders_used + if own > 0 { 2 } else { 3 };
    match senders >= needed {
        true => findings.ok("max_wal_senders", format!("{senders_used} of {senders} in use")),
        false => findings.warning(
            "max_wal_senders",
            format!("{senders_used} of {senders} in use, and a base backup beside the WAL receiver takes two more"),
            format!("ALTER SYSTEM SET max_wal_senders = {}, then restart PostgreSQL", needed.max(10)),
        ),
    }
    match slots > slots_used || own > 0 {
        true => findings.ok("max_replication_slots", format!("{slots_used} of {slots} in use")),
        false => {
            let full = error::source(format!(
                "all {slots} replication slots are taken, so {} cannot be created",
                environment.postgres.slot
            ))
            .hint("drop a slot that nobody needs (pg_replication_slots lists them)")
            .hint("or raise max_replication_slots and restart PostgreSQL");
            findings.fail("max_replication_slots", &full);
        }
    }
    match row.get::<_, String>(5).as_str() {
        "on" => findings.ok("data_checksums", "on: damage in the source is noticed while it is backed up"),
        _ => findings.warning(
            "data_checksums",
            "off: damaged pages are backed up unnoticed",
            "stop PostgreSQL and run pg_checksums --enable, at the next opportunity",
        ),
    }
    match row.get::<_, String>(6).as_str() {
        "on" => findings.ok("full_page_writes", "on"),
        _ => {
            let torn =
                error::source("full_page_writes is off: pages copied while they change cannot be repaired by WAL")
                    .hint("ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()");
            findings.fail("full_page_writes", &torn);
        }
    }
    match row.get::<_, String>(7).as_str() {
        "-1" => findings.warning(
            "max_slot_wal_keep_size",
            "unlimited: while the store is away, WAL may fill the server's disk and stop it",
            "set it to what the disk can bear; beyond that WAL is given up and a new base backup is needed",
        ),
        limit => findings.ok("max_slot_wal_keep_size", limit),
    }
    let user: String = row.get(13);
    let standby: bool = row.get(14);
    if !row.get::<_, bool>(11) && !environment.odoo.is_empty() && !standby {
        let refused =
            error::source(format!("the role {user} may not set restore points, which order filestore captures"))
                .hint(format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO \"{user}\""));
        findings.fail("restore points", &refused);
    }
    if !row.get::<_, bool>(12) {
        findings.warning(
            "heartbeat",
            format!("the role {user} may not call pg_logical_emit_message: idle time cannot be told from lost time"),
            format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text) TO \"{user}\""),
        );
    }
    if standby {
        findings.warning("PostgreSQL role", "this server is a standby", "back up from the primary, or promote it");
    }
    clock(findings, context, client).await?;
    Ok(version)
}

/// The difference between the two clocks, as exactly as one round trip tells.
async fn clock(findings: &mut Findings, context: &Context, client: &Client) -> Result<()> {
    let before = context.runtime.now();
    let row = client
        .query_one("SELECT clock_timestamp()", &[])
        .await
        .map_err(|e| explain(e, "cannot read PostgreSQL's clock"))?;
    let after = context.runtime.now();
    let there: DateTime<Utc> = row.get(0);
    let middle = before + (after - before) / 2;
    let offset = (there - middle).abs().to_std().unwrap_or_default();
    let doubt = (after - before).to_std().unwrap_or_default() / 2;
    let words = format!("this host and PostgreSQL differ by {} (± {})", Span(offset), Span(doubt));
    match offset > CLOCK + doubt {
        true => findings.warning(
            "clocks",
            words,
            "let both follow NTP: commit times are the server's, ages are this host's",
        ),
        false => findings.ok("clocks", words),
    }
    Ok(())
}

/// The slot; gives the end of the server's WAL.
async fn slot(findings: &mut Findings, environment: &Environment, client: &Client) -> Option<Lsn> {
    let name = &environment.postgres.slot;
    let state = findings.take("slot", wal_state(client, name).await)?;
    let Some(slot) = state.slot else {
        findings.warning(
            "slot",
            format!("{name} does not exist: PostgreSQL keeps no WAL for Lifeboat"),
            format!("run `lifeboat wal receive -e {}` as a service; it creates the slot", environment.name),
        );
        return Some(state.current_lsn);
    };
    let held = ByteSize(slot.held_bytes);
    let status = slot.wal_status.as_deref().unwrap_or("nothing reserved");
    let words = format!("{name} is {status}; PostgreSQL keeps {held} for it");
    match (status, slot.active) {
        ("lost", _) => {
            let lost =
                error::source(format!("{name} is lost: PostgreSQL no longer keeps WAL that is not in the repository"))
                    .hint(format!(
                        "start `lifeboat wal receive -e {}`: it makes the slot anew and fetches what is still there",
                        environment.name
                    ))
                    .hint("if it names a gap then, take a base backup now: `lifeboat backup all`");
            findings.fail("slot", &lost);
        }
        ("unreserved", _) => findings.warning(
            "slot",
            format!("{words}; at the next checkpoint it gives up WAL that is not yet in the repository"),
            format!("see that `lifeboat wal receive -e {}` runs and reaches the store, now", environment.name),
        ),
        (_, false) => findings.warning(
            "slot",
            format!("{words}; nobody receives from it"),
            format!("start `lifeboat wal receive -e {}`, as a service", environment.name),
        ),
        _ if slot.held_bytes > HELD => findings.warning(
            "slot",
            format!("{words}: the receiver or the store is slow"),
            "see what `lifeboat wal receive` logs; if the store is away, PostgreSQL's disk fills",
        ),
        _ => findings.ok("slot", format!("{words}; WAL is being received")),
    }
    Some(state.current_lsn)
}

/// What the repository has; gives the major version of the newest base backup.
async fn backups(
    findings: &mut Findings,
    context: &Context,
    environment: &Environment,
    repository: &Repository,
    identity: Option<SystemIdentity>,
    server_end: Option<Lsn>,
) -> Option<i32> {
    let name = &environment.name;
    let catalogue = findings.take("repository content", Catalogue::load(repository, name).await)?;
    if let Some(first) = catalogue.ledger_problems.first() {
        let more = catalogue.ledger_problems.len();
        let damaged = error::integrity(format!(
            "{} in the ledger, the first: {first}",
            counted(more as u64, "problem", "problems")
        ))
        .hint(format!("run `lifeboat evidence verify -e {name}`"));
        findings.fail("ledger", &damaged);
    } else {
        findings.ok("ledger", counted(catalogue.entries.len() as u64, "entry", "entries"));
    }
    let take = format!("run `lifeboat backup all -e {name}`");
    let Some(newest) = catalogue.bases().next_back() else {
        findings.warning("base backup", "there is none: nothing can be restored", take);
        return None;
    };
    let now = context.runtime.now();
    if let Some(identity) = identity
        && identity.system_id.to_string() != newest.system_id
    {
        let other = error::integrity(format!(
            "PostgreSQL's system identifier is {}, the backups are of {}: this is another cluster",
            identity.system_id, newest.system_id
        ))
        .hint("correct the dsn, or give the new cluster an environment of its own");
        findings.fail("system identifier", &other);
    }
    let recovery = Recovery::load(repository, &catalogue).await;
    let age = (now - newest.stop_time).to_std().unwrap_or_default();
    let words = format!("the newest is {} of {}", newest.id, time_and_age(now, newest.stop_time));
    by_age(findings, "base backup", words, age, BASE_AGE, take);
    for base in recovery.bases.iter().filter(|b| b.broken.is_some()) {
        let why = base.broken.as_deref().unwrap_or_default();
        let broken = error::integrity(format!("{} cannot be restored: {why}", base.id))
            .hint(format!("run `lifeboat verify -e {name}` for all that is missing"));
        findings.fail("base backup", &broken);
    }
    if let Some(wal) = &catalogue.wal {
        gaps(findings, name, wal.gaps(), newest, catalogue.bases().map(|b| b.start_lsn).min());
    }
    if let Some(window) = recovery.newest() {
        let unsaved = server_end.map(|end| end.0.saturating_sub(window.to.lsn.0));
        let age = match unsaved {
            Some(0) => Duration::ZERO,
            _ => (now - window.to.time).to_std().unwrap_or_default(),
        };
        let bytes = unsaved.map_or_else(String::new, |bytes| format!(", {} of WAL", ByteSize(bytes)));
        let words = format!("at most the last {}{bytes} would be lost now", Span(age));
        let to_do = format!("see that `lifeboat wal receive -e {name}` runs");
        by_age(findings, "exposure", words, age, environment.objectives.rpo, to_do);
    }
    newest.server_version.split(['.', ' ', 'b', 'r']).next().and_then(|major| major.parse().ok())
}

/// WAL that is missing between what is archived: behind the newest base backup the present cannot be reached; before
/// it, only moments of the past.
fn gaps(findings: &mut Findings, name: &str, gaps: Vec<Gap>, newest: &BaseBackup, oldest: Option<Lsn>) {
    for gap in gaps.into_iter().filter(|gap| oldest.is_some_and(|oldest| gap.to > oldest)) {
        let which = match gap.segments {
            1 => format!("WAL segment {} is missing", gap.first),
            n => format!("{n} WAL segments are missing, {} to {}", gap.first, gap.last),
        };
        let words = format!("{which}: {} to {} cannot be restored", gap.from, gap.to);
        let push = "`lifeboat wal push` the missing segments if they still exist anywhere";
        if gap.to > newest.start_lsn {
            let lost = error::integrity(format!("{words}, nor anything later"))
                .hint(format!("take a base backup now: `lifeboat backup base -e {name}`"))
                .hint(push);
            findings.fail("gap in WAL", &lost);
        } else {
            findings.warning("gap in WAL", words, push);
        }
    }
}

/// Whether this host could start a restored cluster (a host that only backs up need not) and export roles.
fn restore(findings: &mut Findings, environment: &Environment, major: Option<i32>) {
    let Some(major) = major.and_then(|major| u32::try_from(major).ok()) else { return };
    let path = std::env::var_os("PATH");
    for (name, program) in [("programs for a restore", tools::SERVER), ("programs for an export", "pg_dumpall")] {
        match tools::program_dir(&environment.postgres, major, program, path.as_deref()) {
            Ok(dir) => findings.ok(name, format!("{program} for PostgreSQL {major} in {}", dir.display())),
            Err(failure) => findings.weak(name, &failure),
        }
    }
    match Account::for_servers(environment.postgres.run_as.as_deref()) {
        Ok(Some(account)) => findings.ok("account for a restore", format!("restored servers run as {}", account.name)),
        Ok(None) => {}
        Err(failure) => findings.weak("account for a restore", &failure),
    }
}

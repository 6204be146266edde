//! Steps that several scenarios share. Commands read variables of the shell that `decide` sets, so that a scenario's
//! blocks work in one terminal, one after the other.

use super::Facts;
use super::model::Step;
use super::recovery_config;
use super::words::{code, quoted_path, within_quotes};

/// What a restored server is called on.
const SOCKET: &str = "-h \"$RESTORED/run\" -p \"$PORT\"";

/// Everything that the other steps refer to; `more` are further variables, their values as they stand within double quotes.
pub(super) fn decide(facts: &Facts<'_>, more: &[(&str, String)]) -> Step {
    let variable = |name: &str, value: String| format!("{name}=\"${{{name}:-{value}}}\"");
    let mut lines = vec![
        variable("RESTORED", within_quotes(&facts.estate.runbook.restored.to_string_lossy())),
        variable("KEY", "/root/recovery.key".to_owned()),
        variable("RECOVERY", "/root/recovery".to_owned()),
        variable("BIN", within_quotes(&facts.bin_dir().to_string_lossy())),
        variable("PORT", "54329".to_owned()),
        variable("ACCOUNT", within_quotes(facts.account())),
        variable("ROLE", "postgres".to_owned()),
        variable("DATABASE", within_quotes(&facts.database())),
    ];
    lines.extend(more.iter().map(|(name, value)| variable(name, value.clone())));
    lines.push("AS=; [ \"$(id -u)\" != 0 ] || AS=\"runuser -u $ACCOUNT --\"".to_owned());
    lines.push("umask 022".to_owned());
    Step::new("Decide, and let the shell remember")
        .text("Read each line; what is set before (`TARGET=… KEY=…`) stays. Everything below is typed into this same shell, as root where files shall belong to the server's account.")
        .run(lines)
        .check("`$KEY` is the recovery key; `$RESTORED` lies on a disk with room for the whole cluster and its attachments, and is absent or empty.")
}

/// What must be on the machine.
pub(super) fn machine(facts: &Facts<'_>) -> Step {
    let mut step = Step::new("Take a machine").text(format!(
        "Any machine that reaches {}: with {}, the `lifeboat` program and the recovery key. The key is {}.",
        code(&facts.estate.repository.url),
        facts.postgresql(),
        facts.key_place()
    ));
    for secret in recovery_config::secrets(facts) {
        step = step.text(format!("Needed: {secret}."));
    }
    let major = facts.held().and_then(|held| held.major).map_or_else(|| "MAJOR".to_owned(), |m| m.to_string());
    step.by_hand([
        format!("apt-get install postgresql-{major} postgresql-client-{major}"),
        "lifeboat --version".to_owned(),
    ])
    .check("The machine's clock is right (`timedatectl`).")
}

/// The configuration of a machine that restores.
pub(super) fn configure(facts: &Facts<'_>) -> Step {
    let mut lines = vec![
        "mkdir -p \"$RECOVERY\"".to_owned(),
        "cp \"$KEY\" \"$RECOVERY/recovery.key\"; chmod 600 \"$RECOVERY/recovery.key\"".to_owned(),
        "cat > \"$RECOVERY/lifeboat.toml\" <<'END'".to_owned(),
    ];
    lines.extend(recovery_config::lines(facts, true));
    lines.push("END".to_owned());
    lines.push("cd \"$RECOVERY\"".to_owned());
    lines.push("lifeboat init".to_owned());
    Step::new("Write the configuration of the recovery")
        .text("Generated from the configuration in force; the whole one is in the estate's own repository of configuration files.")
        .run(lines)
        .check("It says `enrolled this host in the repository` (or that it is a member). A restore works without that, its record does not.")
}

/// What can be restored.
pub(super) fn show(facts: &Facts<'_>) -> Step {
    Step::new("See what can be restored")
        .run([format!("lifeboat show -e {}", facts.environment.name)])
        .check("The first lines say from when to when; the *watermark* is the newest moment at which attachments are complete as well.")
        .check("`PostgreSQL: not reachable` is expected while it is lost. Anything under `THINGS TO LOOK AT` is read before going on.")
}

/// What would happen.
pub(super) fn plan(facts: &Facts<'_>) -> Step {
    Step::new("See what a restore would do")
        .text("`$TARGET` is `latest`, or a time **with its zone** just before the mistake: `2026-11-22 14:01:59+01:00`.")
        .run([restore_command(facts, true)])
        .check("Between *last transaction kept* and *first transaction lost* lies what went wrong. If the second is much later than expected, stop and ask.")
}

fn restore_command(facts: &Facts<'_>, plan: bool) -> String {
    let plan = if plan { " --plan" } else { "" };
    format!(
        "lifeboat restore -e {} --to \"$TARGET\" --pgdata \"$RESTORED/pgdata\" --filestore \"$RESTORED/filestore\" --configuration \"$RESTORED/configuration\"{plan}",
        facts.environment.name
    )
}

/// The restore itself.
pub(super) fn restore(facts: &Facts<'_>) -> Step {
    let mut step = Step::new("Restore")
        .text(format!("Takes {}. Interrupted? The same command again goes on where it was.", facts.expected()))
        .run([
            "mkdir -p \"$RESTORED\"; chmod 755 \"$RESTORED\"".to_owned(),
            "if [ -n \"$AS\" ]; then chown \"$ACCOUNT\" \"$RESTORED\"; fi".to_owned(),
            restore_command(facts, false),
        ])
        .check("It says `exactly where it was meant to`. Exit code 11: attachments are missing, and are named; everything else is there.");
    if facts.held().is_some_and(|held| held.tablespaces) {
        step = step.text("The cluster has tablespaces: where their old places are not free, add `--tablespace-mapping OLD=NEW` for each.");
    }
    step
}

/// The restored server, for nobody else to reach.
pub(super) fn start_privately() -> Step {
    Step::new("Start it where nobody reaches it, and look")
        .text("On a socket in a directory of its own, without network, with the server's settings left aside: to look at the data before anything depends on them.")
        .run([
            "mkdir -p \"$RESTORED/run\"; : > \"$RESTORED/run/postgresql.conf\"; echo 'local all all trust' > \"$RESTORED/run/pg_hba.conf\"; : > \"$RESTORED/run/pg_ident.conf\"",
            "if [ -n \"$AS\" ]; then chown -R \"$ACCOUNT\" \"$RESTORED/run\"; fi",
            "(cd /; $AS \"$BIN/pg_ctl\" -w -D \"$RESTORED/pgdata\" -l \"$RESTORED/run/log\" -o \"-c config_file=$RESTORED/run/postgresql.conf -c data_directory=$RESTORED/pgdata -c hba_file=$RESTORED/run/pg_hba.conf -c ident_file=$RESTORED/run/pg_ident.conf -c listen_addresses='' -c port=$PORT -c unix_socket_directories=$RESTORED/run\" start)",
        ])
        .check("`server started`.")
}

/// Whether the data are right.
pub(super) fn look(facts: &Facts<'_>) -> Step {
    let mut lines = vec![
        format!(
            "\"$BIN/psql\" {SOCKET} -U \"$ROLE\" -d postgres -Atc 'SELECT datname, pg_size_pretty(pg_database_size(datname)) FROM pg_database WHERE datallowconn ORDER BY 1'"
        ),
        format!(
            "\"$BIN/psql\" {SOCKET} -U \"$ROLE\" -d \"$DATABASE\" -Atc 'SELECT pg_is_in_recovery(), count(*) FROM pg_class'"
        ),
    ];
    if !facts.environment.odoo.is_empty() {
        lines.push(format!(
            "\"$BIN/psql\" {SOCKET} -U \"$ROLE\" -d \"$DATABASE\" -Atc \"SELECT key, value FROM ir_config_parameter WHERE key IN ('database.uuid', 'web.base.url')\""
        ));
    }
    Step::new("Check the data")
        .run(lines)
        .check("`f` (it is not in recovery) and every database that you expect; the newest orders and invoices are there (ask the business which).")
}

/// Ends the private server.
pub(super) fn stop_privately() -> Step {
    Step::new("Stop the private server")
        .text("Only when somebody has said that these are the right data.")
        .by_hand(["(cd /; $AS \"$BIN/pg_ctl\" -w -m fast -D \"$RESTORED/pgdata\" stop)"])
}

/// The restored data where the lost ones were.
pub(super) fn put_into_place(facts: &Facts<'_>) -> Vec<Step> {
    let major = facts.held().and_then(|held| held.major).map_or_else(|| "MAJOR".to_owned(), |m| m.to_string());
    let main = format!("/var/lib/postgresql/{major}/main");
    let database = Step::new("Put the database into place")
        .text("As Debian lays it out; elsewhere the service manager's own way. Compare the exported `postgresql.conf` and `pg_hba.conf` with those in place; all but `archive_command`, `primary_conninfo` and `synchronous_standby_names` is taken over.")
        .by_hand([
            format!("systemctl stop postgresql@{major}-main"),
            format!("mv {main} {main}.before-restore"),
            format!("mv \"$RESTORED/pgdata\" {main}"),
            format!("diff \"$RESTORED/configuration/postgresql/postgresql.conf\" /etc/postgresql/{major}/main/postgresql.conf"),
            format!("diff \"$RESTORED/configuration/postgresql/pg_hba.conf\" /etc/postgresql/{major}/main/pg_hba.conf"),
            format!("systemctl start postgresql@{major}-main"),
        ])
        .check("`pg_lsclusters` says `online`; nobody can log in yet but the administrators.");
    let mut filestore = Vec::new();
    let databases = facts.held().map(|held| held.odoo_databases.clone()).unwrap_or_default();
    for odoo in &facts.environment.odoo {
        let home = odoo.data_dir.join("filestore");
        for name in odoo.databases.as_ref().unwrap_or(&databases) {
            let there = quoted_path(&home.join(name));
            filestore.push(format!("mv {there} {there}.before-restore     # if it is there"));
            filestore.push(format!("mkdir -p {}; cp -a \"$RESTORED/filestore/{name}\" {there}", quoted_path(&home)));
            filestore.push(format!("chown -R odoo:odoo {there}"));
        }
    }
    let mut steps = vec![database];
    if !filestore.is_empty() {
        let odoo = Step::new("Put the attachments into place")
            .text("Compare `$RESTORED/configuration/odoo/odoo.conf` with the one in place; the add-ons' revisions are in `$RESTORED/configuration/addons/revisions.json`.")
            .by_hand(filestore);
        steps.push(odoo);
        steps.push(quarantine());
    }
    steps
}

/// The world outside is ahead.
pub(super) fn quarantine() -> Step {
    Step::new("Start Odoo in quarantine")
        .text("The world outside is ahead of the restored data. Start Odoo without scheduled jobs (`--max-cron-threads=0`, no job runner), users kept out by the proxy, and go through this with the business:")
        .check("Outgoing mail and SMS (`mail_mail`, `sms_sms`): what was sent after the restored moment would be sent again.")
        .check("`payment_transaction` in draft, pending, authorized or not post-processed: ask the provider what happened.")
        .check("EDI documents, carrier shipments, `queue_job`; invoice numbers that customers already have.")
        .check("Points of sale: open their browsers, do not clear their storage; they push their orders again.")
        .check("Only then scheduled jobs, then users.")
}

/// Protection for the restored data.
pub(super) fn protect(facts: &Facts<'_>) -> Step {
    let name = &facts.environment.name;
    Step::new("Protect it again")
        .text("Only when the data are accepted: as soon as the new timeline is archived, a time means the new history.")
        .by_hand([
            "sudo -u postgres psql -c 'ALTER SYSTEM RESET archive_mode'     # the restore had set it to off; needs a restart".to_owned(),
            "lifeboat init".to_owned(),
            format!("systemctl start lifeboat-wal-receive@{name}"),
            format!("lifeboat backup all -e {name}"),
            format!("lifeboat show -e {name}"),
        ])
        .check("`wal receive` says `receiving WAL`; `show` has nothing under `THINGS TO LOOK AT`.")
        .check("The recovery key, `identity` in the configuration and `$RESTORED/configuration` (it holds secrets) are gone from the machine.")
}

//! The scenarios: how to recognise each, what it costs, and what to do in order.

use super::Facts;
use super::model::{Scenario, Step};
use super::recovery_config;
use super::steps;
use super::words::{code, keywords, plain, quoted, within_quotes};
use crate::units::Span;

/// Names of all scenarios.
pub const SCENARIOS: [&str; 7] =
    ["total-loss", "single-tenant", "wrong-deletion", "ransomware", "region-loss", "key-loss", "orchestrator-loss"];

/// Every scenario, in the order of [`SCENARIOS`].
pub(super) fn all(facts: &Facts<'_>) -> Vec<Scenario> {
    vec![
        total_loss(facts),
        single_tenant(facts),
        wrong_deletion(facts),
        ransomware(facts),
        region_loss(facts),
        key_loss(facts),
        orchestrator_loss(facts),
    ]
}

fn loses(facts: &Facts<'_>) -> String {
    format!("at most {} of work by the objective", Span(facts.environment.objectives.rpo))
}

fn latest() -> Vec<(&'static str, String)> {
    vec![("TARGET", "latest".to_owned())]
}

fn total_loss(facts: &Facts<'_>) -> Scenario {
    let mut all = vec![
        Step::new("Say it")
            .text(format!("Call {}. From now on somebody writes down times and decisions.", facts.contact())),
        steps::machine(facts),
        steps::decide(facts, &latest()),
        steps::configure(facts),
        steps::show(facts),
        steps::plan(facts),
        steps::restore(facts),
        steps::start_privately(),
        steps::look(facts),
        steps::stop_privately(),
    ];
    all.extend(steps::put_into_place(facts));
    all.push(steps::protect(facts));
    Scenario {
        id: "total-loss",
        title: "Total loss".into(),
        when: "The database host, its disks, perhaps the host of Lifeboat too: gone. What is left is the bucket, a recovery key and this program.".into(),
        outcome: format!("Loses {}; takes {}.", loses(facts), facts.expected()),
        steps: all,
    }
}

fn single_tenant(facts: &Facts<'_>) -> Scenario {
    let environment = facts.environment;
    let name = &environment.name;
    let dsn = within_quotes(&keywords(&environment.postgres.dsn));
    let filestore =
        if environment.odoo.is_empty() { " --no-filestore" } else { " --filestore \"$RESTORED/filestore-$NEW\"" };
    let more = [("TARGET", "latest".to_owned()), ("NEW", "${DATABASE}_restored".to_owned()), ("CLUSTER", dsn)];
    let load = Step::new("Bring it back beside the damaged one")
        .text("The whole cluster is restored aside for this, in `$RESTORED`, and removed again: its room is needed for a while. `$CLUSTER` is where the copy goes, by a role that may create databases; where a password is needed, use the environment's name instead.")
        .run([
            "mkdir -p \"$RESTORED\"; chmod 755 \"$RESTORED\"; if [ -n \"$AS\" ]; then chown \"$ACCOUNT\" \"$RESTORED\"; fi".to_owned(),
            format!("lifeboat restore tenant -e {name} --database \"$DATABASE\" --to \"$TARGET\" --into-cluster \"$CLUSTER\" --as \"$NEW\" --work-dir \"$RESTORED\"{filestore}"),
        ])
        .check("It says `compared with the restored original, no difference`. Exit code 6: it differed, nothing is left of it; report that.");
    let look = Step::new("Look at it")
        .text("The copy is marked as a template, so that no running Odoo lists it and runs its scheduled jobs.")
        .run(["\"$BIN/psql\" \"$CLUSTER dbname=$NEW\" -Atc 'SELECT current_database(), count(*) FROM pg_class'"
            .to_owned()])
        .check("What was lost is there.");
    let exchange = Step::new("Take out what is needed, or exchange the two")
        .text("Some rows: copy them out of the copy (`\\copy`, `postgres_fdw`), then drop it. Everything: with Odoo stopped for this database, exchange them:")
        .by_hand([
            "\"$BIN/psql\" \"$CLUSTER\" -c \"ALTER DATABASE \\\"$DATABASE\\\" RENAME TO \\\"${DATABASE}_damaged\\\"\"",
            "\"$BIN/psql\" \"$CLUSTER\" -c \"ALTER DATABASE \\\"$NEW\\\" RENAME TO \\\"$DATABASE\\\"\"",
            "\"$BIN/psql\" \"$CLUSTER\" -c \"ALTER DATABASE \\\"$DATABASE\\\" WITH IS_TEMPLATE false\"",
        ])
        .check("The attachments of `$RESTORED/filestore-$NEW` are where Odoo's `data_dir` has those of this database.");
    let mut all = vec![
        Step::new("Stop the damage").text(format!(
            "Take this shop's users off, stop its scheduled jobs: every commit from now on makes it harder to choose. Call {}.",
            facts.contact()
        )),
        steps::machine(facts),
        steps::decide(facts, &more),
        steps::configure(facts),
        steps::show(facts),
        Step::new("Find the moment")
            .text("A time with its zone, just before the mistake. All databases of a cluster share one history: the transactions named may be another shop's.")
            .run([format!("lifeboat restore -e {name} --to \"$TARGET\" --pgdata \"$RESTORED/nowhere\" --plan")])
            .check("The mistake lies between *last transaction kept* and *first transaction lost*."),
        load,
        look,
        exchange,
    ];
    if !environment.odoo.is_empty() {
        all.push(steps::quarantine());
    }
    all.push(Step::new("Protect it again").by_hand([format!("lifeboat backup all -e {name}")]));
    Scenario {
        id: "single-tenant",
        title: "One database of several is damaged".into(),
        when: format!(
            "One database (here {}) is wrong; the others on the same cluster go on.",
            code(&facts.database())
        ),
        outcome: format!(
            "Loses what that database wrote after the chosen moment; takes {} and the time to load it.",
            facts.expected()
        ),
        steps: all,
    }
}

fn wrong_deletion(facts: &Facts<'_>) -> Scenario {
    let copy = Step::new("Take out what was deleted")
        .text("Name the table and the rows, look at them, and only then put them into production, in one transaction, with whoever knows the data watching.")
        .by_hand([
            "\"$BIN/psql\" -h \"$RESTORED/run\" -p \"$PORT\" -U \"$ROLE\" -d \"$DATABASE\" -c \"\\\\copy (SELECT * FROM TABLE WHERE CONDITION) TO '/root/rows.csv' CSV HEADER\"",
        ])
        .check("Attachments that were deleted: their files are in `$RESTORED/filestore`, by the name in `ir_attachment.store_fname`.");
    Scenario {
        id: "wrong-deletion",
        title: "Data were deleted or changed by mistake".into(),
        when: "Production runs, and rows, documents or attachments are gone or wrong: a script, an import, a person.".into(),
        outcome: format!("Loses nothing that is taken out of the copy; the copy is there after {}. Production goes on beside it.", facts.expected()),
        steps: vec![
            Step::new("Stop what does the damage").text(format!(
                "The script, the job, the user; users off if it goes on. Ask when it began, **in which time zone**. Call {}.",
                facts.contact()
            )),
            steps::machine(facts),
            steps::decide(facts, &latest()),
            steps::configure(facts),
            steps::show(facts),
            steps::plan(facts),
            steps::restore(facts),
            steps::start_privately(),
            steps::look(facts),
            copy,
            steps::stop_privately(),
            Step::new("Clean up").text("The copy holds customers' data.").by_hand(["rm -r \"$RESTORED\" \"$RECOVERY\""]),
        ],
    }
}

fn ransomware(facts: &Facts<'_>) -> Scenario {
    let name = &facts.environment.name;
    let isolate = Step::new("Cut off, switch nothing off")
        .text(format!("Networks apart, machines on (their memory is evidence). Call {}, then those who must be told by law.", facts.contact()))
        .text("**The backup host's credentials count as stolen.** At the store: revoke its key, and look at deletions. Backups cannot be read with what was on that host; they can be deleted by whoever holds a key that may delete.")
        .check("Object versions or Object Lock of the bucket still hold what was deleted (the store's console says).");
    let judge = Step::new("Judge the backups from a clean machine")
        .text("With the public keys from your own records (`--key`), not those in the bucket: whoever could write there could have put others.")
        .run([
            format!("lifeboat evidence verify -e {name}"),
            format!("lifeboat verify -e {name} --deep"),
        ])
        .check("`proven:` and no problem. Damage is named with what it costs; objects can come back from the bucket's versions.");
    let moment = Step::new("Choose a moment before the break-in")
        .text("Not before the *encryption*: before the attacker came. What changed in the configuration tells of it, setting by setting:")
        .by_hand([format!("lifeboat drift -e {name} --since '2026-01-31 00:00:00Z'"), format!("lifeboat evidence show -e {name}")])
        .check("`pg_hba.conf`, roles, add-ons' revisions and system parameters at that moment are your own.");
    let code = Step::new("Rebuild the code, do not restore it")
        .text("Operating system, Odoo and add-ons from their sources, at the revisions in `$RESTORED/configuration/addons/revisions.json`; configuration from the export, read line by line. Every secret is new: roles, `admin_passwd`, API keys, sessions (`database.secret`), keys of payment and mail.");
    let mut all = vec![
        isolate,
        steps::machine(facts),
        steps::decide(facts, &latest()),
        steps::configure(facts),
        judge,
        moment,
        steps::show(facts),
        steps::plan(facts),
        steps::restore(facts),
        steps::start_privately(),
        steps::look(facts),
        steps::stop_privately(),
        code,
    ];
    all.extend(steps::put_into_place(facts));
    all.push(
        Step::new("New keys, new host")
            .text("A new host of Lifeboat, new credentials of the bucket that may not delete, a new recovery key if the old one was ever on a machine that was reached.")
            .by_hand(["lifeboat init".to_owned(), format!("lifeboat backup all -e {name}")]),
    );
    Scenario {
        id: "ransomware",
        title: "Ransomware, or a break-in".into(),
        when: "Files are encrypted, strangers have an administrator's rights, or somebody deletes backups.".into(),
        outcome: format!("Loses everything since the break-in; takes {}, and days for the rest.", facts.expected()),
        steps: all,
    }
}

fn region_loss(facts: &Facts<'_>) -> Scenario {
    let repository = &facts.estate.repository;
    let copy = facts.estate.runbook.second_copy.as_deref();
    let copy = copy.map_or_else(
        || "No `[runbook] second_copy` says where one is. **If there is none, this scenario ends here**: wait for the region.".to_owned(),
        |place| format!("The second copy: {}.", plain(place)),
    );
    let mut all = vec![
        Step::new("Is it lost, or away?")
            .text(format!("The repository is {}{}. {copy}", code(&repository.url), repository.region.as_ref().map_or_else(String::new, |r| format!(" in region {}", code(r)))))
            .text("Away for hours: nothing is lost. PostgreSQL keeps WAL in its slot as long as its disk has room; watch that.")
            .by_hand([format!("lifeboat show -e {}", facts.environment.name)]),
        steps::machine(facts),
        steps::decide(facts, &latest()),
        steps::configure(facts),
        Step::new("Point it to the copy")
            .text("`url`, `endpoint`, `region` and credentials of the copy. It is read only here: take care that nothing replicates back over it.")
            .by_hand(["\"${EDITOR:-vi}\" \"$RECOVERY/lifeboat.toml\"", "lifeboat doctor"])
            .check("`show` below says up to when the copy has everything: replication was behind by some time."),
        steps::show(facts),
        steps::plan(facts),
        steps::restore(facts),
        steps::start_privately(),
        steps::look(facts),
        steps::stop_privately(),
    ];
    all.extend(steps::put_into_place(facts));
    all.push(steps::protect(facts));
    Scenario {
        id: "region-loss",
        title: "The region of the bucket is lost".into(),
        when: "The store does not answer for hours, or its region is gone.".into(),
        outcome: format!("Loses what had not been copied to the second place; takes {}.", facts.expected()),
        steps: all,
    }
}

fn key_loss(facts: &Facts<'_>) -> Scenario {
    let recipients = &facts.estate.keys.recipients;
    let others = match recipients.len() {
        1 => "There is **one** recipient: without that key no backup can ever be opened. Production is the only copy of the data; treat it so.".to_owned(),
        n => format!("There are {n} recipients; each opens everything. Ask the holders of the others: {}.", recipients.iter().map(|r| code(r)).collect::<Vec<_>>().join(", ")),
    };
    let name = &facts.environment.name;
    Scenario {
        id: "key-loss",
        title: "A key is lost, or in the wrong hands".into(),
        when: "The recovery key cannot be found, does not open, or somebody else has it; or the backup host's own keys are gone.".into(),
        outcome: "Loses nothing while production runs. Without any recovery key every backup so far is lost.".into(),
        steps: vec![
            Step::new("Which key?")
                .text("*Keys of the backup host* (signing and index key in the state directory): made anew from the recovery key, see the loss of the orchestrator. *Password of the bucket*: at the store.")
                .text(format!("*Recovery key*: {} It should be {}.", others, facts.key_place())),
            Step::new("Try every copy of it")
                .by_hand(["grep -c AGE-SECRET-KEY- FILE", &format!("lifeboat restore -e {name} --to latest --pgdata /nowhere --plan")])
                .check("Exit code 10 prints the public half of the key that was tried: compare it with the recipients."),
            Step::new("All are lost: begin again, while production runs")
                .text("A new key, held by two people at least, tried before it is trusted; a new prefix in the bucket; everything backed up anew. The old repository is kept until its retention ends: a key may turn up.")
                .by_hand([
                    "lifeboat keygen -o recovery-new.key".to_owned(),
                    "\"${EDITOR:-vi}\" lifeboat.toml     # recipients: the new ones; url: a new prefix".to_owned(),
                    "lifeboat init".to_owned(),
                    format!("lifeboat backup all -e {name}"),
                    format!("lifeboat drill run -e {name}"),
                ])
                .check("The drill opened the new backup with the new key."),
            Step::new("It is in the wrong hands")
                .text("Whoever has the key **and** can read the bucket reads every backup: take the bucket from them first (new credentials, the store's log of reads). Then begin again as above; report the breach.")
                .check("The old prefix is readable by nobody but those who must."),
        ],
    }
}

fn orchestrator_loss(facts: &Facts<'_>) -> Scenario {
    let environment = facts.environment;
    let name = &environment.name;
    let slot = &environment.postgres.slot;
    let mut lines = vec![
        "mkdir -p \"$HOME_OF_LIFEBOAT\"; cd \"$HOME_OF_LIFEBOAT\"".to_owned(),
        "cp \"$KEY\" recovery.key; chmod 600 recovery.key".to_owned(),
        "cat > lifeboat.toml <<'END'".to_owned(),
    ];
    lines.extend(recovery_config::lines(facts, true));
    lines.push("END".to_owned());
    lines.push("lifeboat init".to_owned());
    let protect = Step::new("Protect again, at once")
        .text(format!("PostgreSQL has kept WAL in the slot {} since the host was lost; how much more it will keep stands in `show`. A base backup brings along the WAL that it needs, whatever became of the slot.", code(slot)))
        .run([format!("lifeboat backup all -e {name}"), format!("lifeboat show -e {name}")])
        .check("`can be restored … to` is now.")
        .check("If the slot is `lost`, the stretch between the last WAL in the repository and this base backup cannot be restored; it is named as a gap.");
    let receive = Step::new("Start what must always run")
        .by_hand([
            format!("systemctl enable --now lifeboat-wal-receive@{name}"),
            format!("systemctl enable --now lifeboat-filestore-watch@{name}"),
        ])
        .check("The journal says `receiving WAL`.");
    let key = Step::new("Take the recovery key away")
        .text("A host that backs up must not be able to read.")
        .by_hand(["sed -i '/^identity/d' \"$HOME_OF_LIFEBOAT/lifeboat.toml\"; rm \"$HOME_OF_LIFEBOAT/recovery.key\""]);
    Scenario {
        id: "orchestrator-loss",
        title: "The host of Lifeboat is lost".into(),
        when: "Production runs, and the machine that backs it up is gone: no WAL is received, no backup taken.".into(),
        outcome: "Loses nothing, as long as production lives and its slot holds. Every minute without a receiver counts against the RPO.".into(),
        steps: vec![
            Step::new("How long is there?")
                .text(format!("On production: how much WAL the slot {} holds back, and how much disk is left.", code(slot)))
                .by_hand([format!("psql {} -c \"SELECT slot_name, active, wal_status, safe_wal_size FROM pg_replication_slots\"", quoted(&environment.postgres.dsn))])
                .check(format!("`wal_status` is `reserved` or `extended`. Call {} if the disk fills.", facts.contact())),
            steps::machine(facts),
            steps::decide(facts, &[("TARGET", "latest".to_owned()), ("HOME_OF_LIFEBOAT", "/etc/lifeboat".to_owned())]),
            Step::new("Make the new host a member")
                .text("The recovery key enrols it: it gets signing and index keys of its own. Nothing of the old host is needed. Schedules and checks come from the estate's own repository of configuration files; this is enough to protect and to prove.")
                .run(lines)
                .check("It says `enrolled this host in the repository`."),
            protect,
            Step::new("Prove it")
                .text("While the recovery key is here: does the new host's backup come back?")
                .run([
                    "mkdir -p \"$RESTORED\"; chmod 755 \"$RESTORED\"; if [ -n \"$AS\" ]; then chown \"$ACCOUNT\" \"$RESTORED\"; fi".to_owned(),
                    format!("lifeboat restore -e {name} --to \"$TARGET\" --pgdata \"$RESTORED/pgdata\" --filestore \"$RESTORED/filestore\" --configuration \"$RESTORED/configuration\""),
                ])
                .check("It says `exactly where it was meant to`."),
            steps::start_privately(),
            steps::look(facts),
            steps::stop_privately(),
            receive,
            key,
        ],
    }
}

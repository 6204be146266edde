//! What the configuration alone tells.

use tokio_postgres::config::{Host, SslMode};

use super::{Bench, Finding};
use crate::config::{PolicyRule, SandboxKind};
use crate::units::Span;

/// Judges what a rule asks of the configuration.
pub(super) fn judge(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let environment = bench.environment;
    let estate = bench.estate;
    let name = &environment.name;
    for (requirement, limit, objective, key) in [
        ("rpo.objective", rule.rpo, environment.objectives.rpo, "rpo"),
        ("rto.objective", rule.rto, environment.objectives.rto, "rto"),
    ] {
        let Some(limit) = limit else { continue };
        bench.find(
            rule,
            requirement,
            Finding {
                holds: Some(objective <= limit),
                should: format!("an objective of {} or less", Span(limit)),
                is: Span(objective).to_string(),
                to_do: format!("lower `{key}` in [environment.objectives] of {name}, and what is built to meet it"),
            },
        );
    }
    if !rule.owners.is_empty() {
        bench.find(
            rule,
            "owner",
            Finding {
                holds: Some(rule.owners.contains(&environment.owner)),
                should: format!("one of {}", rule.owners.join(", ")),
                is: environment.owner.clone(),
                to_do: "name the team that answers for it".to_owned(),
            },
        );
    }
    if rule.classified {
        bench.find(
            rule,
            "data_classes",
            Finding {
                holds: Some(!environment.data_classes.is_empty()),
                should: "the class of its data is said".to_owned(),
                is: if environment.data_classes.is_empty() {
                    "not said".to_owned()
                } else {
                    environment.data_classes.join(", ")
                },
                to_do: format!("set `data_classes` of {name}"),
            },
        );
    }
    recipients(rule, bench);
    if !rule.stores.is_empty() {
        let kind = estate.repository.url.split(':').next().unwrap_or_default();
        bench.find(
            rule,
            "store",
            Finding {
                holds: Some(rule.stores.iter().any(|store| store == kind)),
                should: rule.stores.join(" or "),
                is: kind.to_owned(),
                to_do: "move the repository to such a store".to_owned(),
            },
        );
    }
    if rule.encrypted_connection {
        let (holds, is) = connection(&environment.postgres.dsn);
        bench.find(
            rule,
            "encrypted_connection",
            Finding {
                holds: Some(holds),
                should: "TLS, or a socket of the host".to_owned(),
                is,
                to_do: format!("write sslmode=require (and `tls_root`) into `dsn` of {name}"),
            },
        );
    }
    if rule.approvals {
        let asks = environment.restore.approval;
        bench.find(
            rule,
            "approvals",
            Finding {
                holds: Some(asks),
                should: "a restore needs the approval of a second person".to_owned(),
                is: if asks { "it does" } else { "it does not" }.to_owned(),
                to_do: format!("set `approval = true` in [environment.restore] of {name}"),
            },
        );
    }
    schedules(rule, bench);
    drills(rule, bench);
    if rule.masked_refresh_only {
        bench.find(
            rule,
            "masked_refresh_only.rules",
            Finding {
                holds: Some(!estate.masking.is_empty()),
                should: "masking rules are there".to_owned(),
                is: format!("{} rules", estate.masking.len()),
                to_do: "write [masking]; `lifeboat refresh` says which columns need a rule".to_owned(),
            },
        );
    }
}

fn recipients(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let there = &bench.estate.keys.recipients;
    let short = |key: &String| key.chars().take(12).collect::<String>() + "…";
    if let Some(least) = rule.recipients_at_least {
        bench.find(
            rule,
            "recipients.at_least",
            Finding {
                holds: Some(there.len() >= least),
                should: format!("{least} keys open its backups, held by different people"),
                is: there.len().to_string(),
                to_do: "add recipients under [keys] before the only key is lost".to_owned(),
            },
        );
    }
    if !rule.recipients.is_empty() {
        let missing: Vec<String> = rule.recipients.iter().filter(|key| !there.contains(key)).map(short).collect();
        bench.find(
            rule,
            "recipients.all_of",
            Finding {
                holds: Some(missing.is_empty()),
                should: format!("{} of these recipients", rule.recipients.len()),
                is: if missing.is_empty() {
                    "all are there".to_owned()
                } else {
                    format!("without {}", missing.join(", "))
                },
                to_do: "add them to `recipients` under [keys]".to_owned(),
            },
        );
    }
    if !rule.recipients_only.is_empty() {
        let others: Vec<String> = there.iter().filter(|key| !rule.recipients_only.contains(key)).map(short).collect();
        bench.find(
            rule,
            "recipients.only",
            Finding {
                holds: Some(others.is_empty()),
                should: "no other keys than these".to_owned(),
                is: if others.is_empty() { "none".to_owned() } else { format!("also {}", others.join(", ")) },
                to_do: "find out whose key that is, and take it out of [keys]".to_owned(),
            },
        );
    }
}

fn schedules(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let (estate, name) = (bench.estate, &bench.environment.name);
    if !rule.scheduled.is_empty() {
        let runs = |kind| estate.jobs.iter().any(|job| job.kind == kind && job.environments.contains(name));
        let missing: Vec<&str> = rule.scheduled.iter().filter(|kind| !runs(**kind)).map(|kind| kind.word()).collect();
        bench.find(
            rule,
            "scheduled",
            Finding {
                holds: Some(missing.is_empty()),
                should: rule.scheduled.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", "),
                is: if missing.is_empty() {
                    "all of them".to_owned()
                } else {
                    format!("without {}", missing.join(", "))
                },
                to_do: format!("add a [[job]] for it, for {name}"),
            },
        );
    }
    for effect in &rule.calendars {
        let has = estate.calendars.iter().find(|c| c.effects.contains(effect) && c.environments.contains(name));
        let word = serde_json::to_value(effect).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        bench.find(
            rule,
            "calendars",
            Finding {
                holds: Some(has.is_some()),
                should: format!("a calendar with {word}"),
                is: has.map_or_else(|| "none".to_owned(), |calendar| calendar.name.clone()),
                to_do: format!("add a [[calendar]] with effects = [\"{word}\"] for {name}"),
            },
        );
    }
}

/// Whether data travel encrypted.
fn connection(dsn: &str) -> (bool, String) {
    let Ok(config) = dsn.parse::<tokio_postgres::Config>() else { return (false, "unreadable".to_owned()) };
    let sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    match config.get_ssl_mode() {
        _ if sockets => (true, "a socket of the host".to_owned()),
        SslMode::Require => (true, "sslmode=require".to_owned()),
        SslMode::Disable => (false, "sslmode=disable".to_owned()),
        _ => (false, "sslmode=prefer: not encrypted where the server does not offer it".to_owned()),
    }
}

fn drills(rule: &PolicyRule, bench: &mut Bench<'_>) {
    let Some(duty) = &rule.drill else { return };
    let drill = &bench.environment.drill;
    let name = &bench.environment.name;
    if duty.sealed {
        let holds = drill.sandbox != SandboxKind::None;
        bench.find(
            rule,
            "drill.sealed",
            Finding {
                holds: Some(holds),
                should: "drills run in a sealed sandbox".to_owned(),
                is: match drill.sandbox {
                    SandboxKind::Local => "sandbox = \"local\"",
                    SandboxKind::Container(_) => "sandbox = \"container\"",
                    SandboxKind::None => "sandbox = \"none\": not sealed",
                }
                .to_owned(),
                to_do: format!("remove `sandbox` from [environment.drill] of {name}"),
            },
        );
    }
    if duty.odoo {
        bench.find(
            rule,
            "drill.odoo",
            Finding {
                holds: Some(drill.odoo.is_some()),
                should: "drills start Odoo".to_owned(),
                is: if drill.odoo.is_some() { "it is started" } else { "no [environment.drill.odoo]" }.to_owned(),
                to_do: format!("say in [environment.drill.odoo] of {name} how Odoo is started"),
            },
        );
    }
    if !duty.suites.is_empty() {
        let runs = |suite: &&String| drill.checks.as_ref().is_none_or(|suites| suites.contains(suite));
        let missing: Vec<&str> = duty.suites.iter().filter(|s| !runs(s)).map(String::as_str).collect();
        bench.find(
            rule,
            "drill.suites",
            Finding {
                holds: Some(missing.is_empty()),
                should: duty.suites.join(", "),
                is: if missing.is_empty() {
                    "all of them run".to_owned()
                } else {
                    format!("without {}", missing.join(", "))
                },
                to_do: format!("add them to `checks` in [environment.drill] of {name}"),
            },
        );
    }
    if duty.limits {
        let limits = [
            ("max_disk", drill.max_disk.is_some()),
            ("max_memory", drill.max_memory.is_some()),
            ("max_duration", drill.max_duration.is_some()),
        ];
        let missing: Vec<&str> = limits.iter().filter(|(_, set)| !set).map(|(key, _)| *key).collect();
        bench.find(
            rule,
            "drill.limits",
            Finding {
                holds: Some(missing.is_empty()),
                should: "limits of disk, memory and time".to_owned(),
                is: if missing.is_empty() {
                    "all are set".to_owned()
                } else {
                    format!("without {}", missing.join(", "))
                },
                to_do: format!("set them in [environment.drill] of {name}"),
            },
        );
    }
}

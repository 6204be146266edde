//! `[[environment]]`: turns the raw shape of one environment into validated types.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use super::drill_container::{RawDrillContainer, drill_container};
use super::drill_odoo::drill_odoo;
use super::estate::{
    Assumed, ConfigurationSources, DrillConfig, Environment, Objectives, OdooConfig, PostgresConfig, SandboxKind,
};
use super::raw::{
    Located, RawAssumed, RawConfiguration, RawDrill, RawEnvironment, RawObjectives, RawOdoo, RawPostgres, RawSandbox,
};
use super::repository::{optional_secret, positive};
use super::restore::restore;
use super::retention::retention;
use super::service::environment_service;
use super::source::Source;
use crate::error::Result;
use crate::units::{ByteSize, Span};

/// Names that the repository uses for itself beside the environments.
const RESERVED: [&str; 1] = ["keys"];
const DEFAULT_SLOT: &str = "lifeboat";
/// Unless it is said otherwise, an idle cluster beats four times within its RPO, within these bounds.
const HEARTBEATS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What PostgreSQL accepts as `MAX_RATE`, in bytes per second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32 << 10..=1 << 30;

/// The cluster that a connection string leads to: two strings with equal targets meet the same slots.
pub(super) type Target = Vec<(Host, u16)>;

/// Judges one environment; also tells which cluster it reads.
pub(super) fn environment(source: &Source, raw: RawEnvironment) -> Result<(Environment, Target)> {
    if !is_environment_name(&raw.name.value) {
        return Err(source
            .error(&raw.name.span, "this is not an environment's name")
            .hint("use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter or digit"));
    }
    if RESERVED.contains(&raw.name.value.as_str()) {
        return Err(source
            .error(&raw.name.span, format!("the name \"{}\" is reserved by the repository", raw.name.value))
            .hint("choose another name"));
    }
    let objectives = objectives(source, &raw.objectives)?;
    let heartbeat = heartbeat(source, raw.postgres.heartbeat.as_ref(), objectives)?;
    let (postgres, target) = postgres(source, raw.postgres, heartbeat)?;
    let drill = raw.drill.map(|raw| drill(source, raw)).transpose()?.unwrap_or_default();
    let environment = Environment {
        name: raw.name.value,
        purpose: raw.purpose,
        owner: text(source, "owner", &raw.owner)?,
        data_classes: raw
            .data_classes
            .iter()
            .map(|class| text(source, "data_classes", class))
            .collect::<Result<_>>()?,
        objectives,
        assumed: assumed(source, raw.objectives.assumed.as_ref())?,
        postgres,
        odoo: odoo(source, raw.odoo)?,
        configuration: configuration(source, raw.configuration)?,
        drill,
        retention: raw.retention.map(|raw| retention(source, raw)).transpose()?,
        restore: raw.restore.map(|raw| restore(source, raw)).transpose()?.unwrap_or_default(),
        service: raw.service.map(|raw| environment_service(source, raw)).transpose()?.unwrap_or_default(),
    };
    Ok((environment, target))
}

fn drill(source: &Source, raw: RawDrill) -> Result<DrillConfig> {
    let sandbox = sandbox(source, raw.sandbox.as_ref(), raw.container, raw.odoo.is_some())?;
    Ok(DrillConfig {
        work_dir: raw.work_dir.map(|l| source.resolve(&l.value)),
        report_dir: raw.report_dir.map(|l| source.resolve(&l.value)),
        checks: raw.checks.map(|l| l.value.into_iter().map(|s| s.value).collect()),
        odoo: raw.odoo.map(|odoo| drill_odoo(source, odoo)).transpose()?,
        allow_unneutralised: raw.allow_unneutralised.into_iter().map(|l| l.value).collect(),
        sandbox,
        max_disk: raw.max_disk.map(|l| l.value),
        max_memory: raw.max_memory.map(|l| l.value),
        max_duration: raw.max_duration.map(|l| positive(source, "max_duration", &l)).transpose()?,
    })
}

/// A table of containers may wait for its turn, but it must be right.
fn sandbox(
    source: &Source,
    kind: Option<&Located<RawSandbox>>,
    container: Option<RawDrillContainer>,
    starts_odoo: bool,
) -> Result<SandboxKind> {
    let container = container.map(|raw| drill_container(source, raw)).transpose()?;
    match (kind.map(|kind| (kind, kind.value)), container) {
        (None | Some((_, RawSandbox::Local)), _) => Ok(SandboxKind::Local),
        (Some((_, RawSandbox::None)), _) => Ok(SandboxKind::None),
        (Some((kind, RawSandbox::Container)), None) => Err(source
            .error(&kind.span, "`sandbox = \"container\"` needs to know the engine and the image")
            .hint("add [environment.drill.container] with `socket` and `postgres`, an image by its digest")),
        (Some((kind, RawSandbox::Container)), Some(container)) if starts_odoo && container.odoo.is_none() => {
            Err(source
                .error(&kind.span, "[environment.drill.odoo] says how Odoo is started, but no image holds one")
                .hint("add `odoo` to [environment.drill.container], an image by its digest"))
        }
        (Some((_, RawSandbox::Container)), Some(container)) => Ok(SandboxKind::Container(container)),
    }
}

fn is_environment_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn objectives(source: &Source, raw: &RawObjectives) -> Result<Objectives> {
    let objective = |key, raw: &Located<Span>| {
        positive(source, key, raw).map_err(|e| {
            e.hint(
                "an objective of zero can be neither met nor measured; write the most that is acceptable, e.g. \"1s\"",
            )
        })
    };
    Ok(Objectives { rpo: objective("rpo", &raw.rpo)?, rto: objective("rto", &raw.rto)? })
}

fn assumed(source: &Source, raw: Option<&RawAssumed>) -> Result<Assumed> {
    let Some(raw) = raw else { return Ok(Assumed::default()) };
    let span = |key, raw: &Option<Located<Span>>| {
        let judged = raw.as_ref().map(|raw| positive(source, key, raw)).transpose();
        judged.map_err(|e| e.hint("leave out what takes no time, or what is not known"))
    };
    Ok(Assumed {
        detect: span("detect", &raw.detect)?,
        decide: span("decide", &raw.decide)?,
        cut_over: span("cut_over", &raw.cut_over)?,
        accept: span("accept", &raw.accept)?,
        basis: raw.basis.as_ref().map(|basis| text(source, "basis", basis)).transpose()?,
    })
}

fn heartbeat(source: &Source, raw: Option<&Located<Span>>, objectives: Objectives) -> Result<Duration> {
    let (shortest, longest) = HEARTBEATS;
    let Some(raw) = raw else { return Ok((objectives.rpo / 4).clamp(shortest, longest).min(objectives.rpo)) };
    let heartbeat = positive(source, "heartbeat", raw)?;
    if heartbeat > objectives.rpo {
        return Err(source
            .error(&raw.span, format!("heartbeat {} is longer than rpo {}", raw.value, Span(objectives.rpo)))
            .meaning("whenever the cluster is idle its newest recovery point would be older than the objective")
            .hint("shorten the heartbeat, or leave it out: then it is a quarter of rpo, 1s to 15s"));
    }
    Ok(heartbeat)
}

fn postgres(source: &Source, raw: RawPostgres, heartbeat: Duration) -> Result<(PostgresConfig, Target)> {
    let (tls, target) = dsn(source, &raw.dsn)?;
    if let (SslMode::Disable, Some(root)) = (tls, &raw.tls_root) {
        return Err(source
            .error(&root.span, "`tls_root` is given, but `dsn` says sslmode=disable")
            .hint("write sslmode=require in `dsn`, or remove `tls_root`"));
    }
    let slot = raw.slot.as_ref().map_or(DEFAULT_SLOT, |l| &l.value);
    let slot_ok = (1..=63).contains(&slot.len())
        && slot.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if let (false, Some(raw)) = (slot_ok, &raw.slot) {
        return Err(source
            .error(&raw.span, "this is not the name of a replication slot")
            .hint("use 1 to 63 lower-case letters, digits and underscores"));
    }
    if let Some(rate) = &raw.max_rate
        && !MAX_RATE.contains(&rate.value.0)
    {
        return Err(source
            .error(&rate.span, format!("PostgreSQL cannot limit a base backup to {} per second", rate.value))
            .hint(format!("it accepts {} to {}", ByteSize(*MAX_RATE.start()), ByteSize(*MAX_RATE.end()))));
    }
    if let Some(threads) = &raw.reader_threads
        && !(1..=64).contains(&threads.value)
    {
        return Err(source.error(&threads.span, "a base backup is read by 1 to 64 threads"));
    }
    let run_as = raw.run_as.as_ref().map(|account| text(source, "run_as", account)).transpose()?;
    if let (Some("root"), Some(account)) = (run_as.as_deref(), &raw.run_as) {
        return Err(source
            .error(&account.span, "PostgreSQL refuses to run as root")
            .hint("name an ordinary account, usually \"postgres\""));
    }
    let config = PostgresConfig {
        slot: slot.to_owned(),
        dsn: raw.dsn.value,
        password: optional_secret(source, raw.password)?,
        tls_root: raw.tls_root.map(|l| source.resolve(&l.value)),
        bin_dir: raw.bin_dir.map(|l| source.resolve(&l.value)),
        run_as,
        checkpoint: raw.checkpoint.unwrap_or_default(),
        max_rate: raw.max_rate.map(|l| l.value),
        reader: raw.reader.unwrap_or_default(),
        reader_threads: raw.reader_threads.map(|l| l.value),
        heartbeat,
    };
    Ok((config, target))
}

/// Judges a connection string, which is never repeated: it may hold a password.
fn dsn(source: &Source, raw: &Located<String>) -> Result<(SslMode, Target)> {
    let config: tokio_postgres::Config = raw.value.parse().map_err(|e: tokio_postgres::Error| {
        let reason = std::error::Error::source(&e).map(|r| format!(": {r}")).unwrap_or_default();
        let error = source.error(&raw.span, format!("`dsn` is not a connection string{reason}"));
        match reason.contains("sslrootcert") {
            true => error.hint("name the certificate authority with `tls_root`"),
            false => error.hint("write for example \"host=/run/postgresql port=5432 user=lifeboat dbname=postgres\""),
        }
    })?;
    if config.get_password().is_some() {
        return Err(source
            .error(&raw.span, "`dsn` holds a password; secrets are given by reference, never in the file")
            .hint("take it out and write password = { env = \"…\" }, { file = \"…\" } or { command = [\"…\"] } beside `dsn`")
            .hint("if this file was ever shared or committed, change the password"));
    }
    let mut hosts = config.get_hosts().to_vec();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(|a| Host::Tcp(a.to_string())).collect();
    }
    if hosts.is_empty() {
        return Err(source
            .error(&raw.span, "`dsn` names no host")
            .hint("add host=/run/postgresql for the local socket, or host=NAME"));
    }
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let target = hosts.into_iter().enumerate().map(|(i, host)| (host, port(i))).collect();
    Ok((config.get_ssl_mode(), target))
}

fn odoo(source: &Source, raw: Vec<RawOdoo>) -> Result<Vec<OdooConfig>> {
    let mut instances: Vec<OdooConfig> = Vec::new();
    for raw in raw {
        text(source, "data_dir", &raw.data_dir)?;
        let data_dir = source.resolve(&raw.data_dir.value);
        if let Some(first) = instances.iter().find(|i| i.data_dir == data_dir)
            && (first.databases.is_none() || raw.databases.is_none())
        {
            return Err(source
                .error(
                    &raw.data_dir.span,
                    "this data_dir is named twice in the environment, and not for different databases",
                )
                .hint("keep one [[environment.odoo]] for it, or list `databases` in both"));
        }
        let databases = match raw.databases {
            None => None,
            Some(list) if list.value.is_empty() => {
                return Err(source
                    .error(&list.span, "no database is listed, so nothing of this instance would be backed up")
                    .hint("remove `databases` to take every database with an Odoo schema"));
            }
            Some(list) => {
                let mut names: Vec<String> = Vec::new();
                for name in list.value {
                    let taken = instances.iter().flat_map(|i| i.databases.iter().flatten());
                    if names.iter().chain(taken).any(|n| *n == name.value) {
                        return Err(source.error(
                            &name.span,
                            format!("the database \"{}\" is listed twice in the environment", name.value),
                        ));
                    }
                    names.push(text(source, "databases", &name)?);
                }
                Some(names)
            }
        };
        instances.push(OdooConfig {
            data_dir,
            config_file: raw.config_file.map(|l| source.resolve(&l.value)),
            databases,
            addons_paths: raw.addons_paths.iter().map(|l| source.resolve(&l.value)).collect(),
        });
    }
    Ok(instances)
}

fn configuration(source: &Source, raw: Option<RawConfiguration>) -> Result<ConfigurationSources> {
    let Some(raw) = raw else { return Ok(ConfigurationSources::default()) };
    let mut files = Vec::new();
    for file in &raw.files {
        let path: PathBuf = source.resolve(&text(source, "files", file)?);
        files.push(path.display().to_string());
    }
    Ok(ConfigurationSources { files, process_environment: raw.process_environment.unwrap_or(true) })
}

/// A text that must not be empty, without the spaces around it.
pub(super) fn text(source: &Source, key: &str, raw: &Located<String>) -> Result<String> {
    match raw.value.trim() {
        "" => Err(source.error(&raw.span, format!("`{key}` is empty"))),
        text => Ok(text.to_owned()),
    }
}

//! What a runbook is written from.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::words::{code, plain};
use crate::config::{Environment, Estate};
use crate::evidence::Body;
use crate::evidence::outlook::Outlook;
use crate::evidence::wording::{day, second, span, verdict_word};
use crate::repository::catalogue::Catalogue;
use crate::repository::frontier::Recovery;
use crate::units::{ByteSize, Span};

/// Everything that is known when a runbook is written.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The configuration.
    pub estate: &'a Estate,
    /// The environment.
    pub environment: &'a Environment,
    /// What the repository holds; or why it could not be asked.
    pub held: Result<Held, String>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What the repository holds of an environment.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// What can be restored: from and to, the newest first.
    pub windows: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// Major version of PostgreSQL of the newest base backup.
    pub major: Option<u32>,
    /// The newest base backup: its id, and the cluster's size in bytes.
    pub base: Option<(String, u64)>,
    /// Databases with an Odoo, as captures of their filestores name them.
    pub odoo_databases: Vec<String>,
    /// Databases in the newest base backup that are no templates.
    pub databases: Vec<String>,
    /// Whether the cluster has tablespaces outside its data directory.
    pub tablespaces: bool,
    /// The newest drill: its id, when it ended, its verdict in a word.
    pub drill: Option<(String, DateTime<Utc>, &'static str)>,
    /// The forecast: seconds, and the sentence.
    pub forecast: Option<(f64, String)>,
}

impl Held {
    /// From the catalogue and the outlook of an environment.
    pub fn of(catalogue: &Catalogue, recovery: &Recovery, outlook: &Outlook) -> Self {
        let newest = catalogue.bases().next_back();
        let drill = catalogue.entries.iter().rev().find_map(|entry| match &entry.statement.predicate.body {
            Body::Drill(drill) => Some((drill.id.clone(), drill.finished_at, verdict_word(drill.verdict))),
            _ => None,
        });
        let mut odoo_databases: Vec<String> = Vec::new();
        let alive = |name: &String| newest.is_none_or(|base| base.databases.contains(name));
        for database in catalogue.captures().map(|capture| &capture.database).filter(|name| alive(name)) {
            if !odoo_databases.contains(database) {
                odoo_databases.push(database.clone());
            }
        }
        let template = |name: &&String| !name.starts_with("template") && *name != "postgres";
        let mut windows: Vec<_> = recovery.windows.iter().map(|w| (w.from.time, w.to.time)).collect();
        windows.sort_by_key(|(_, to)| std::cmp::Reverse(*to));
        Self {
            windows,
            major: newest.and_then(|base| major(&base.server_version)),
            base: newest.map(|base| (base.id.clone(), base.logical_bytes)),
            odoo_databases,
            databases: newest.map(|base| base.databases.iter().filter(template).cloned().collect()).unwrap_or_default(),
            tablespaces: newest.is_some_and(|base| base.tablespaces > 0),
            drill,
            forecast: outlook.forecast.as_ref().map(|f| (f.predicted_seconds + f.assumed_seconds, f.sentence.clone())),
        }
    }
}

/// `15` of `15.12 (Debian 15.12-1)`.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

impl Facts<'_> {
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref().ok()
    }

    /// The database that examples are about.
    pub(super) fn database(&self) -> String {
        let named = self.environment.odoo.iter().flat_map(|odoo| odoo.databases.iter().flatten()).next().cloned();
        let held = self.held();
        let found = held.and_then(|held| held.odoo_databases.first().or(held.databases.first()).cloned());
        named.or(found).unwrap_or_else(|| "DATABASE".to_owned())
    }

    /// Directory of PostgreSQL's programs.
    pub(super) fn bin_dir(&self) -> PathBuf {
        let major = self.held().and_then(|held| held.major).map_or_else(|| "MAJOR".to_owned(), |m| m.to_string());
        let usual = || PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        self.environment.postgres.bin_dir.clone().unwrap_or_else(usual)
    }

    /// PostgreSQL with its major version.
    pub(super) fn postgresql(&self) -> String {
        match self.held().and_then(|held| held.major) {
            Some(major) => format!("PostgreSQL {major}"),
            None => "PostgreSQL of the same major version as the lost cluster".to_owned(),
        }
    }

    /// Account of restored servers.
    pub(super) fn account(&self) -> &str {
        self.environment.postgres.run_as.as_deref().unwrap_or("postgres")
    }

    /// How long a restore of everything is expected to take.
    pub(super) fn expected(&self) -> String {
        let objective = Span(self.environment.objectives.rto);
        match self.held().and_then(|held| held.forecast.as_ref()) {
            Some((seconds, _)) => {
                format!("about **{}** by what drills measured (objective {objective})", span(*seconds))
            }
            None => format!("never measured by a drill (objective {objective})"),
        }
    }

    /// Who is called.
    pub(super) fn contact(&self) -> String {
        let owner = &self.environment.owner;
        match self.estate.runbook.contacts.get(owner) {
            Some(contact) => format!("{}: {}", plain(owner), plain(contact)),
            None => format!("{} (how they are reached stands in no `[runbook] contacts`)", plain(owner)),
        }
    }

    /// Where the recovery key is.
    pub(super) fn key_place(&self) -> String {
        match &self.estate.runbook.recovery_key {
            Some(place) => plain(place),
            None => "where its holders keep it (no `[runbook] recovery_key` says where)".to_owned(),
        }
    }
}

/// What is known, for the first page.
pub(super) fn table(facts: &Facts<'_>) -> Vec<(String, String)> {
    let environment = facts.environment;
    let mut rows: Vec<(&str, String)> = vec![
        ("Call", facts.contact()),
        ("Recovery key", facts.key_place()),
        (
            "Recipients (public halves)",
            facts.estate.keys.recipients.iter().map(|r| code(r)).collect::<Vec<_>>().join(", "),
        ),
        ("Repository", code(&facts.estate.repository.url)),
        ("PostgreSQL", format!("{}, reached as {}", facts.postgresql(), code(&environment.postgres.dsn))),
    ];
    for odoo in &environment.odoo {
        let databases = odoo.databases.as_ref().map(|list| list.join(", "));
        let databases = databases.map_or_else(|| "every database with an Odoo schema".to_owned(), |list| code(&list));
        rows.push(("Odoo", format!("data_dir {}, {databases}", code(&odoo.data_dir.to_string_lossy()))));
    }
    let objectives = environment.objectives;
    rows.push((
        "Objectives",
        format!("lose at most {} of work, be back within {}", Span(objectives.rpo), Span(objectives.rto)),
    ));
    match &facts.held {
        Err(why) => rows.push(("Repository", format!("could not be asked when this was written: {}", plain(why)))),
        Ok(held) => {
            let windows: Vec<String> =
                held.windows.iter().take(3).map(|(from, to)| format!("{} to {}", second(*from), second(*to))).collect();
            rows.push((
                "Could be restored",
                if windows.is_empty() { "**nothing**".to_owned() } else { windows.join("; ") },
            ));
            if let Some((id, size)) = &held.base {
                rows.push(("Newest base backup", format!("{}, {} of data", code(id), ByteSize(*size))));
            }
            rows.push(("Expected time", facts.expected()));
            rows.push((
                "Last proof",
                match &held.drill {
                    Some((id, at, verdict)) => {
                        format!("drill {} of {}: {}", code(id), day(*at), verdict.to_lowercase())
                    }
                    None => "**none**: no drill has ever restored this environment".to_owned(),
                },
            ));
            if let Some((_, sentence)) = &held.forecast {
                rows.push(("Forecast", plain(sentence)));
            }
        }
    }
    let assumed = environment.assumed.seconds();
    if assumed > 0.0 {
        let seconds = Span(Duration::try_from_secs_f64(assumed).unwrap_or_default());
        rows.push(("Counted for people", format!("{seconds} to notice, decide and switch over")));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

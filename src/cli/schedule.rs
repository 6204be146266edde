//! `lifeboat schedule preview`: what will run when, and why something will not.
//!
//! The history comes from the ledger; without it (a laptop that has no keys, a store that is away) jobs are shown as if
//! they had never run, and that is said.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Context, Keys};
use super::output::Outcome;
use super::text::{Table, alarm, caution, counted};
use crate::config::{Environment, Job, JobKind};
use crate::error::{self, Result};
use crate::repository::catalogue;
use crate::schedule::preview::{Row, Will, preview};
use crate::schedule::{History, Planner, Situation};
use crate::units::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what will run when, and why something will not
    Preview(PreviewArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArguments {
    /// How far ahead, 1 to 400
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,
    /// Name of an environment [default: all]
    #[arg(short, long = "environment", value_name = "ENV")]
    environment: Option<String>,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let Command::Preview(arguments) = command;
    if !(1..=400).contains(&arguments.days) {
        return Err(error::usage(format!("{} days cannot be shown", arguments.days)).hint("between 1 and 400"));
    }
    let environments: Vec<&Environment> = match &arguments.environment {
        Some(name) => vec![context.environment(name)?],
        None => context.estate.environments.iter().collect(),
    };
    let now = context.runtime.now();
    let until = now + TimeDelta::days(i64::from(arguments.days));
    let (histories, unknown) = histories(context, &environments).await;
    let planner = Planner::new(&context.estate);
    let running = HashSet::new();
    let situation = Situation { now, since: now, histories: &histories, running: &running };
    let rows = preview(&planner, &situation, until);
    let shown = Shown { context, planner: &planner, environments: &environments, rows: &rows, now, until };
    Ok(Outcome::new(shown.json(unknown.as_deref()), shown.text(unknown.as_deref())))
}

/// What became of jobs so far, and why that is not known.
async fn histories(context: &Context, environments: &[&Environment]) -> (HashMap<String, History>, Option<String>) {
    let mut histories: HashMap<String, History> =
        environments.iter().map(|environment| (environment.name.clone(), History::default())).collect();
    let mut unknown = None;
    match context.repository(Keys::Write).await {
        Err(why) => unknown = Some(why.message()),
        Ok(repository) => {
            for (name, history) in &mut histories {
                let entries = match catalogue::ledger(&repository, name).await {
                    Ok(ledger) => ledger.entries().await,
                    Err(why) => Err(why),
                };
                match entries {
                    Ok(entries) => *history = History::of(&entries),
                    Err(why) => unknown = Some(format!("{name}: {}", why.message())),
                }
            }
        }
    }
    (histories, unknown)
}

/// By the clocks of the job's zone.
fn local(job: Option<&Job>, at: DateTime<Utc>) -> String {
    let zone = job.map_or(chrono_tz::Tz::UTC, |job| job.time_zone);
    at.with_timezone(&zone).format("%a %Y-%m-%d %H:%M %Z").to_string()
}

/// The instances that such jobs of an environment are pinned to; `None`: any.
fn hosts<'a>(environments: &[&'a Environment], name: &str, kind: JobKind) -> Option<&'a [String]> {
    let service = &environments.iter().find(|environment| environment.name == name)?.service;
    if kind == JobKind::Drill { service.drill_hosts.as_deref() } else { service.hosts.as_deref() }
}

/// The environments that the configuration gives a job and that have nothing for it: filestores without an Odoo.
fn idle<'a>(context: &'a Context, planner: &Planner, name: &str) -> Vec<&'a str> {
    let planned = planner.job(name).map(|job| job.environments.as_slice()).unwrap_or_default();
    let configured = context.estate.jobs.iter().filter(|job| job.name == name).flat_map(|job| &job.environments);
    configured.filter(|name| !planned.contains(name)).map(String::as_str).collect()
}

fn what(row: &Row) -> &'static str {
    match row.what {
        Will::Run => "runs",
        Will::Deferred => "put off",
        Will::Missed => "missed",
    }
}

/// What is shown.
struct Shown<'a> {
    context: &'a Context,
    planner: &'a Planner,
    environments: &'a [&'a Environment],
    rows: &'a [Row],
    now: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Shown<'_> {
    fn text(&self, unknown: Option<&str>) -> String {
        let Self { planner, environments, rows, until, .. } = self;
        let mut text = String::new();
        if let Some(why) = unknown {
            let known = caution("the history is not known");
            text += &format!("{known}: {why}\n  Jobs are shown as if they had never run.\n\n");
        }
        if planner.jobs().all(|job| job.built_in) {
            text += "No [[job]] is configured: these are the built-in ones.\n\n";
        }
        text += &self.jobs().text("");
        text += &self.places();
        text.push('\n');
        let mut table = Table::new(&["time", "environment", "job", "what", "on", "because"]);
        for row in *rows {
            let job = planner.job(&row.job);
            let word = if row.what == Will::Missed { alarm(what(row)) } else { what(row).to_owned() };
            let late = (row.at - row.scheduled_for).num_minutes() > 0;
            let due = late.then(|| format!("due {}", local(job, row.scheduled_for)));
            let because: Vec<String> = due.into_iter().chain(row.because.clone()).collect();
            let on =
                hosts(environments, &row.environment, row.kind).map_or("any".to_owned(), |hosts| hosts.join(" or "));
            let (at, environment) = (local(job, row.at), row.environment.clone());
            table.row(vec![at, environment, row.job.clone(), word, on, because.join("; ")]);
        }
        text += &table.text("");
        for environment in *environments {
            text += &windows_of(planner, environment, rows, *until);
        }
        text
    }

    fn jobs(&self) -> Table {
        let is_shown = |job: &Job| self.environments.iter().any(|e| job.environments.contains(&e.name));
        let mut jobs = Table::new(&["job", "kind", "when", "zone", "jitter", "environments", "next"]);
        for job in self.planner.jobs().filter(|job| is_shown(job)) {
            let first = self.rows.iter().find(|row| row.job == job.name);
            jobs.row(vec![
                job.name.clone(),
                job.kind.to_string(),
                job.cron.text().to_owned(),
                job.time_zone.name().to_owned(),
                if job.jitter.is_zero() { "none".to_owned() } else { format!("up to {}", Span(job.jitter)) },
                job.environments.join(", "),
                first.map_or_else(|| caution("nothing within this time"), |row| local(Some(job), row.at)),
            ]);
        }
        jobs
    }

    /// Where work is pinned to, and which jobs have nothing to do somewhere.
    fn places(&self) -> String {
        let mut text = String::new();
        for environment in self.environments {
            let pins = [("its jobs", JobKind::Base), ("its drills", JobKind::Drill)];
            for (whose, kind) in pins {
                if let Some(hosts) = hosts(self.environments, &environment.name, kind) {
                    text += &format!(
                        "{}: {whose} run on {} only, and wait while no service is there\n",
                        environment.name,
                        hosts.join(" or ")
                    );
                }
            }
        }
        for job in self.planner.jobs() {
            let idle = idle(self.context, self.planner, &job.name);
            let idle: Vec<&str> =
                idle.into_iter().filter(|name| self.environments.iter().any(|e| e.name == *name)).collect();
            if !idle.is_empty() {
                text += &format!("{} does nothing for {}: no Odoo is configured there\n", job.name, idle.join(", "));
            }
        }
        text
    }
}

/// The calendars that hold within the time shown.
fn windows_of(planner: &Planner, environment: &Environment, rows: &[Row], until: DateTime<Utc>) -> String {
    let Some(from) = rows.first().map(|row| row.at) else { return String::new() };
    let windows = planner.calendars().windows(&environment.name, from, until);
    if windows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{}: {}\n",
        environment.name,
        counted(windows.len() as u64, "window of a calendar", "windows of calendars")
    );
    for window in windows.iter().take(20) {
        let title = window.title.as_ref().map(|title| format!(" ({title})")).unwrap_or_default();
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
        text += &format!("  {}{title}: {} to {}\n", window.calendar, time(window.from), time(window.to));
    }
    if windows.len() > 20 {
        text += &format!("  and {} more\n", windows.len() - 20);
    }
    text
}

impl Shown<'_> {
    fn json(&self, unknown: Option<&str>) -> Value {
        let Self { context, planner, environments, rows, now, until } = self;
        let jobs = planner.jobs().map(|job| {
            json!({
                "name": job.name,
                "kind": job.kind,
                "environments": job.environments,
                "nothing_to_do": idle(context, planner, &job.name),
                "cron": job.cron.text(),
                "words": job.cron.words(),
                "time_zone": job.time_zone.name(),
                "jitter_seconds": job.jitter.as_secs(),
                "deadline_seconds": job.deadline.map(|span| span.as_secs()),
                "timeout_seconds": job.timeout.as_secs(),
                "catch_up": job.catch_up,
                "after": job.after,
                "max_deferral_seconds": job.max_deferral.as_secs(),
                "built_in": job.built_in,
            })
        });
        let rows = rows.iter().map(|row| {
            let mut object = serde_json::to_value(row).expect("a row is plain data");
            object["local"] = local(planner.job(&row.job), row.at).into();
            object["hosts"] = json!(hosts(environments, &row.environment, row.kind));
            object
        });
        let windows = environments.iter().flat_map(|environment| {
            let windows = planner.calendars().windows(&environment.name, *now, *until);
            windows
                .into_iter()
                .map(|window| json!({ "environment": environment.name, "window": window }))
                .collect::<Vec<_>>()
        });
        json!({
            "now": now,
            "until": until,
            "history_unknown": unknown,
            "jobs": jobs.collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
            "windows": windows.collect::<Vec<_>>(),
        })
    }
}

//! `lifeboat hold add|remove|list`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::output::Outcome;
use super::text::{Table, counted, time};
use crate::config::Environment;
use crate::error::{self, Result};
use crate::evidence::bodies_retention::HoldScope;
use crate::repository::Repository;
use crate::repository::catalogue::Catalogue;
use crate::repository::retention::hold::{self, Listed, Wish};
use crate::repository::wal_archive::WalArchive;
use crate::restore::target::Target;
use crate::units::{Lsn, Timeline};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold a recovery point or a span of time: nothing that it needs is deleted, whatever the rules
    Add(AddArguments),
    /// Remove a hold before its time; that is recorded, with the reason
    Remove(RemoveArguments),
    /// List the holds, those that have ended included
    List(EnvironmentArgument),
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(crate) struct AddArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// A recovery point: a time with a zone, lsn:…, name:RESTORE_POINT or backup:ID
    #[arg(long, value_name = "TARGET", group = "what")]
    point: Option<String>,
    /// First moment of a span, a time with a zone
    #[arg(long, value_name = "TIME", group = "what", requires = "to")]
    from: Option<String>,
    /// Last moment of the span
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// Until when: a time with a zone, a day (2027-12-31, to its end in UTC), or `released`
    #[arg(long, value_name = "TIME")]
    until: String,
    /// Why, for whoever reads it in three years
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    which: EnvironmentArgument,
    /// Id of the hold, as `hold list` tells it
    #[arg(value_name = "HOLD")]
    id: String,
    /// Why
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Add(arguments) => {
            let environment = context.environment(&arguments.which.environment)?;
            add(arguments, environment, &context.repository(Keys::Write).await?, context).await
        }
        Command::Remove(arguments) => {
            let environment = &context.environment(&arguments.which.environment)?.name;
            let repository = context.repository(Keys::Write).await?;
            let reason = said(&arguments.reason)?;
            let entry = hold::remove(&repository, environment, &arguments.id, reason, &context.runtime).await?;
            let text =
                format!("{} is released (ledger entry {entry}); what it held goes by the rules again", arguments.id);
            Ok(Outcome::new(json!({ "released": arguments.id, "entry": entry }), text))
        }
        Command::List(which) => {
            let environment = &context.environment(&which.environment)?.name;
            let repository = context.repository(Keys::Write).await?;
            let holds = hold::list(&repository, environment, &context.runtime).await?;
            Ok(Outcome::new(json!({ "holds": holds }), table(&holds, environment)))
        }
    }
}

async fn add(
    arguments: &AddArguments,
    environment: &Environment,
    repository: &Repository,
    context: &Context,
) -> Result<Outcome> {
    let until = until(&arguments.until)?;
    let (scope, requested) = match (&arguments.point, &arguments.from, &arguments.to) {
        (Some(point), ..) => {
            let target: Target = point.parse()?;
            (scope(&target, repository, &environment.name).await?, target.to_string())
        }
        (None, Some(from), Some(to)) => {
            let (from, to) = (moment(from)?, moment(to)?);
            if from > to {
                return Err(error::usage(format!("{} lies after {}", time(from), time(to))));
            }
            (HoldScope::Times { from, to }, format!("{} to {}", Target::Time(from), Target::Time(to)))
        }
        _ => return Err(error::usage("say what to hold: --point, or --from and --to")),
    };
    let wish = Wish { scope, requested, until, reason: said(&arguments.reason)?.to_owned() };
    let rules = environment.retention.as_ref();
    let made = hold::add(repository, &environment.name, rules, wish, &context.runtime).await?;
    let mut text = format!(
        "{} holds {} {}: {} (ledger entry {})\n",
        made.hold.id,
        made.hold.requested,
        made.hold.until.map_or_else(|| "until it is released".to_owned(), |t| format!("until {}", time(t))),
        made.hold.reason,
        made.entry
    );
    text += &format!(
        "{} with their WAL: {}\n",
        counted(made.base_backups.len() as u64, "base backup", "base backups"),
        made.base_backups.join(", ")
    );
    if let Some(entry) = made.revived {
        text += &format!("what had been retired came back (ledger entry {entry})\n");
    }
    Ok(Outcome::new(json!({ "hold": made }), text))
}

fn said(reason: &str) -> Result<&str> {
    match reason.trim() {
        "" => Err(error::usage("the reason is empty")),
        reason => Ok(reason),
    }
}

fn moment(text: &str) -> Result<DateTime<Utc>> {
    match text.parse()? {
        Target::Time(time) => Ok(time),
        _ => {
            Err(error::usage(format!("\"{text}\" is not a time")).hint("write one like \"2026-11-22 20:35:00+01:00\""))
        }
    }
}

fn until(text: &str) -> Result<Option<DateTime<Utc>>> {
    if text == "released" {
        return Ok(None);
    }
    if let Ok(day) = text.parse::<chrono::NaiveDate>() {
        let end = day.and_hms_opt(23, 59, 59).expect("every day has a last second");
        return Ok(Some(end.and_utc()));
    }
    moment(text).map(Some)
}

/// What a target is as a hold. Needs no key that opens data.
async fn scope(target: &Target, repository: &Repository, environment: &str) -> Result<HoldScope> {
    match target {
        Target::Time(time) => Ok(HoldScope::Times { from: *time, to: *time }),
        Target::Backup(id) => Ok(HoldScope::BaseBackup { id: id.clone() }),
        Target::Latest => Err(error::usage("the latest state is another one every second")
            .hint("hold a time: what is the latest now has one, `lifeboat show` tells it")),
        Target::Lsn(lsn) => {
            let catalogue = Catalogue::load(repository, environment).await?;
            Ok(HoldScope::Position { timeline: newest(&catalogue)?, lsn: *lsn })
        }
        Target::Name(name) => {
            let catalogue = Catalogue::load(repository, environment).await?;
            let timeline = newest(&catalogue)?;
            let lsn = restore_point(&catalogue, repository, timeline, name).await?;
            Ok(HoldScope::Position { timeline, lsn })
        }
    }
}

fn newest(catalogue: &Catalogue) -> Result<Timeline> {
    let newest = catalogue.wal.as_ref().and_then(|wal| wal.newest());
    newest.ok_or_else(|| error::not_recoverable(format!("the repository holds no WAL of {}", catalogue.environment)))
}

/// Position of the newest restore point of that name, from captures and the summaries of archived WAL.
async fn restore_point(catalogue: &Catalogue, repository: &Repository, timeline: Timeline, name: &str) -> Result<Lsn> {
    if let Some(capture) = catalogue.captures().rev().find(|c| c.restore_point.name == name) {
        return Ok(capture.restore_point.lsn);
    }
    let archive = WalArchive::new(repository, &catalogue.environment);
    if let Some(wal) = &catalogue.wal {
        let line = wal.line(timeline);
        let numbers =
            line.iter().filter_map(|leg| wal.timelines.get(&leg.timeline)).flat_map(|wal| wal.segments.iter());
        let mut numbers: Vec<u64> = numbers.copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers.into_iter().rev() {
            let Some(segment) = wal.complete(&line, number) else { continue };
            let points = archive.segment_summary(&segment).await?.map(|s| s.restore_points).unwrap_or_default();
            if let Some((_, lsn)) = points.into_iter().rev().find(|(found, _)| found == name) {
                return Ok(lsn);
            }
        }
    }
    Err(error::not_recoverable(format!(
        "no restore point is called \"{name}\" in the archived WAL of {}",
        catalogue.environment
    ))
    .hint("one that was set just now is found when its WAL segment is complete; a time can be held at once"))
}

fn table(holds: &[Listed], environment: &str) -> String {
    if holds.is_empty() {
        return format!("{environment}: there are no holds\n");
    }
    let mut table = Table::new(&["hold", "what", "since", "until", "state", "reason"]);
    for listed in holds {
        let state = match (&listed.released, listed.in_force) {
            (Some(released), _) => format!("released {}: {}", time(released.at), released.reason),
            (None, true) => "in force".to_owned(),
            (None, false) => "ended".to_owned(),
        };
        table.row(vec![
            listed.hold.id.clone(),
            listed.hold.requested.clone(),
            time(listed.since),
            listed.hold.until.map_or_else(|| "released".to_owned(), time),
            state,
            listed.hold.reason.clone(),
        ]);
    }
    table.text("")
}

//! `lifeboat drill coverage`: what drills have proven, what they have not, and how long a restore
//! would take at the worst moment. Needs the keys of a host that backs up, no recovery identity.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::EnvironmentArgument;
use super::context::{Context, Keys};
use super::drill_conduct::look;
use super::output::Outcome;
use super::text::{Table, age, alarm, caution, counted, good, time, time_and_age};
use crate::error::Result;
use crate::evidence::outlook::Outlook;
use crate::evidence::proven::{Last, WindowProof};
use crate::units::Span;

/// Lines of a list that are printed; JSON has them all.
const LISTED: usize = 12;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: EnvironmentArgument,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let environment = context.environment(&arguments.environment.environment)?;
    let repository = context.repository(Keys::Write).await?;
    let outlook = look(context, environment, &repository).await?;
    let now = context.runtime.now();
    let json = json!({
        "environment": environment.name,
        "now": now,
        "coverage": outlook.coverage,
        "forecast": outlook.forecast,
    });
    Ok(Outcome::new(json, describe(&environment.name, &outlook, now)))
}

fn describe(environment: &str, outlook: &Outlook, now: DateTime<Utc>) -> String {
    let proven = &outlook.coverage;
    if proven.windows.is_empty() {
        return format!("{environment}: {}\n", alarm("nothing can be restored, so nothing is proven"));
    }
    let sound = proven.drills.iter().filter(|d| d.sound).count() as u64;
    let all = counted(proven.drills.len() as u64, "drill", "drills");
    let mut text = format!("{environment}: {all} recorded, {sound} of them brought back sound data\n\n");
    for window in &proven.windows {
        text += &describe_window(window, now);
    }
    text += &format!("\n{}\n", proven.random.sentence);
    if proven.random.open > 0 {
        text += &format!(
            "{} not revealed yet: a drill runs, or was abandoned\n",
            counted(proven.random.open, "draw is", "draws are")
        );
    }
    let forecast = outlook
        .forecast
        .as_ref()
        .map_or("No drill was measured yet: how long a restore takes is not known.", |forecast| {
            forecast.sentence.as_str()
        });
    text += &format!("\n{forecast}\n");
    for (what, list) in
        [("timeline", &proven.timelines), ("database", &proven.databases), ("base backup", &proven.bases)]
    {
        text += &describe_last(what, list, now);
    }
    text
}

fn describe_window(window: &WindowProof, now: DateTime<Utc>) -> String {
    let span = |seconds: f64| Span(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let share = if window.seconds > 0.0 { window.proven_seconds / window.seconds * 100.0 } else { 0.0 };
    let share = format!("{share:.0} % of it proven");
    let share = if window.proofs.is_empty() { caution("no drill proved any of it") } else { good(&share) };
    let mut text = format!(
        "{} to {} on timeline {}, {}: {share}\n",
        time(window.from),
        time(window.to),
        window.timeline.0,
        span(window.seconds)
    );
    let mut newest: Vec<_> = window.proofs.iter().collect();
    newest.sort_by_key(|proof| std::cmp::Reverse(proof.proven_at));
    for proof in newest.iter().take(LISTED) {
        text += &format!(
            "  proven {}: {} to {}, from base backup {}\n",
            age(now, proof.proven_at),
            time(proof.from),
            time(proof.to),
            proof.base
        );
    }
    for part in window.unproven.iter().take(LISTED) {
        text += &format!("  {} {} to {}\n", caution("not proven:"), time(part.from), time(part.to));
    }
    let left_out = window.proofs.len().saturating_sub(LISTED) + window.unproven.len().saturating_sub(LISTED);
    if left_out > 0 {
        text += &format!("  … and {left_out} more, with `--format json`\n");
    }
    if let Some(gap) = &window.gap {
        text += &format!("  {}\n", alarm(&format!("ends at a gap: WAL {gap} is missing")));
    }
    text
}

fn describe_last(what: &'static str, list: &[Last], now: DateTime<Utc>) -> String {
    let mut table = Table::new(&[what, "last proven", "by drill"]);
    for last in list.iter().rev().take(LISTED) {
        let when = last.proven_at.map_or_else(|| caution("never"), |at| time_and_age(now, at));
        table.row(vec![last.name.clone(), when, last.drill.clone().unwrap_or_default()]);
    }
    format!("\n{}", table.text(""))
}

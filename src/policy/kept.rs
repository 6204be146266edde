//! How long recovery points are kept, and who could delete them before.

use std::time::Duration;

use super::{Bench, Finding};
use crate::config::{LockDuty, LockMode, PolicyRule, Retention, RetentionDuty};
use crate::units::Span;

const DAY: u64 = 86_400;

/// Judges what a rule asks of retention and locks.
pub(super) fn judge(rule: &PolicyRule, bench: &mut Bench<'_>) {
    if let Some(duty) = &rule.retention {
        retention(rule, duty, bench);
    }
    if let Some(duty) = rule.lock {
        lock(rule, duty, bench);
    }
}

fn retention(rule: &PolicyRule, duty: &RetentionDuty, bench: &mut Bench<'_>) {
    let (environment, name) = (bench.environment, &bench.environment.name);
    // Without rules nothing is ever deleted.
    let kept = environment.retention.as_ref();
    let mut find = |requirement: &str, key: &str, holds: bool, should: String, is: String| {
        let is = if kept.is_some() { is } else { "no [environment.retention]: nothing is ever deleted".to_owned() };
        let holds = Some(kept.is_none() || holds);
        let to_do = format!("raise `{key}` in [environment.retention] of {name}");
        bench.find(rule, requirement, Finding { holds, should, is, to_do });
    };
    if let Some(least) = duty.recent {
        let recent = kept.map_or(Duration::ZERO, |kept| kept.recent);
        let should = format!("every moment of the last {} can be restored", Span(least));
        find("retention.recent", "recent", recent >= least, should, format!("of the last {}", Span(recent)));
    }
    for (key, period, least, reach) in [
        ("daily", "days", duty.daily, days as Reach),
        ("weekly", "weeks", duty.weekly, weeks),
        ("monthly", "months", duty.monthly, months),
        ("yearly", "years", duty.yearly, years),
    ] {
        let Some(least) = least else { continue };
        let reaches = kept.map_or(0, reach);
        let should = format!("a recovery point of each of the last {least} {period}");
        let is = format!("of the last {reaches}, by all rules together");
        find(&format!("retention.{key}"), key, reaches >= u64::from(least), should, is);
    }
    if let Some(least) = duty.base_backups {
        let there = kept.map_or(0, |kept| kept.minimum_base_backups);
        let should = format!("{least} base backups are kept whatever their age");
        find("retention.base_backups", "minimum_base_backups", there >= least, should, there.to_string());
    }
    if let Some(least) = duty.delete_after {
        let pause = kept.map_or(Duration::ZERO, |kept| kept.delete_after);
        let should = format!("what is retired can be taken back for {}", Span(least));
        find("retention.delete_after", "delete_after", pause >= least, should, format!("for {}", Span(pause)));
    }
}

/// How many days, weeks, months or years back each has a recovery point: by its own rule, or by a finer one that reaches
/// as far.
type Reach = fn(&Retention) -> u64;

fn days(kept: &Retention) -> u64 {
    u64::from(kept.daily).max(kept.recent.as_secs() / DAY)
}

fn weeks(kept: &Retention) -> u64 {
    u64::from(kept.weekly).max(days(kept) / 7)
}

/// A month has at most 31 days, which is less than five weeks.
fn months(kept: &Retention) -> u64 {
    u64::from(kept.monthly).max(weeks(kept) / 5).max(days(kept) / 31)
}

fn years(kept: &Retention) -> u64 {
    u64::from(kept.yearly).max(months(kept) / 12).max(weeks(kept) / 53).max(days(kept) / 366)
}

fn lock(rule: &PolicyRule, duty: LockDuty, bench: &mut Bench<'_>) {
    let configured = bench.estate.repository.object_lock;
    let is = match configured {
        Some(lock) => format!("{} for {} d", lock.mode, lock.days),
        None => "objects are not locked".to_owned(),
    };
    let should = match duty.mode {
        LockMode::Compliance => "objects are locked so that nobody can delete them (compliance)",
        LockMode::Governance => "objects are locked so that few can delete them (governance, or compliance)",
    };
    // What nobody may lift is as good as what few may.
    let mode = configured.is_some_and(|lock| lock.mode == duty.mode || lock.mode == LockMode::Compliance);
    let to_do = format!(
        "set `object_lock = {{ mode = \"{}\", days = … }}` under [repository], on s3:// with a bucket that has Object Lock",
        duty.mode
    );
    let finding = Finding { holds: Some(mode), should: should.to_owned(), is: is.clone(), to_do: to_do.clone() };
    bench.find(rule, "lock", finding);
    if let Some(least) = duty.least {
        let locked = configured.map_or(0, |lock| u64::from(lock.days)) * DAY;
        let holds = Some(Duration::from_secs(locked) >= least);
        let should = format!("for {} or longer from when an object is stored", Span(least));
        bench.find(rule, "lock.least", Finding { holds, should, is, to_do });
    }
}

//! Why a target cannot be reached, and what is nearest to it.

use chrono::{DateTime, Utc};

use super::resolve::{Search, Transaction};
use super::target::Target;
use crate::error::{self, Error};
use crate::evidence::entry::BaseBackup;
use crate::repository::catalogue::Catalogue;
use crate::repository::coverage::{Coverage, Gap, Reach};
use crate::repository::window::reaches;
use crate::units::{Lsn, Timeline};

impl Search<'_> {
    /// Names what keeps base backups from being restored.
    fn with_broken(&self, mut error: Error) -> Error {
        let broken = reaches(self.catalogue.bases(), Some(self.wal));
        for base in broken.iter().rev().filter(|b| b.missing.is_some()).take(3) {
            let missing = base.missing.as_deref().unwrap_or_default();
            error = error.hint(format!("base backup {} cannot be restored: WAL segment {missing} is missing", base.id));
        }
        error
    }

    pub(super) fn no_base(&self, target: Option<Lsn>) -> Error {
        let environment = &self.catalogue.environment;
        let Some(oldest) = self.usable().last() else {
            let error = error::not_recoverable(format!("no base backup of {environment} can be restored"))
                .meaning("each lacks WAL that it needs to become consistent, or there is none");
            return self
                .with_broken(error)
                .hint(format!("`lifeboat show -e {environment}` names what is missing"))
                .hint(format!("`lifeboat backup base -e {environment}` makes a new one while the source lives"));
        };
        let target = target.map(|t| format!("lsn:{t}")).unwrap_or_default();
        let error = format!("{target} lies before everything that can be restored of {environment}");
        self.with_broken(error::not_recoverable(error))
            .hint(format!("the earliest possible is `--to backup:{}` ({})", oldest.0.id, oldest.0.stop_lsn))
    }

    pub(super) fn before_everything(&self, time: DateTime<Utc>) -> Error {
        let error = self.with_broken(error::not_recoverable(format!(
            "{} lies before everything that can be restored of {}",
            text(time),
            self.catalogue.environment
        )));
        match self.usable().last() {
            Some((base, _)) => {
                error.hint(format!("the earliest possible is {}: `--to backup:{}`", text(base.stop_time), base.id))
            }
            None => self.no_base(None),
        }
    }

    pub(super) fn after_everything(&self, time: DateTime<Utc>, last: Transaction) -> Error {
        error::not_recoverable(format!(
            "{} lies after the last transaction in the repository of {}, which committed at {}",
            text(time),
            self.catalogue.environment,
            text(last.time)
        ))
        .meaning("what was committed later, if anything, never reached the repository")
        .hint("`--to latest` restores the last transaction there is")
        .hint(format!("the nearest possible time is {}", text(last.time)))
    }

    pub(super) fn in_gap(
        &self,
        time: DateTime<Utc>,
        last: Transaction,
        later: Option<&BaseBackup>,
        reach: Reach,
    ) -> Error {
        let given_up = reach.gap.as_ref().is_some_and(|gap| gap.retired);
        let missing = reach.gap.map_or_else(String::new, |gap| match gap.segments {
            _ if gap.retired => " (retention gave up the WAL in between)".to_owned(),
            1 => format!(" (WAL segment {} is missing)", gap.first),
            n => format!(" ({n} WAL segments are missing: {} to {})", gap.first, gap.last),
        });
        let lies = match later {
            _ if given_up => "lies between two recovery points that were kept",
            Some(_) => "lies in a gap",
            None => "lies in a gap or behind it",
        };
        let error = error::not_recoverable(format!("{} {lies}{missing}", text(time)))
            .hint(format!("the nearest possible before it is {}", text(last.time)));
        after_gap(error, later, given_up)
    }

    /// Everything behind a gap is newer: to stop before it is a loss that somebody has to choose.
    pub(super) fn latest_behind_gap(&self, gap: &Gap, last: Option<Transaction>) -> Error {
        let missing = match gap.segments {
            1 => format!("WAL segment {} is missing", gap.first),
            n => format!("{n} WAL segments are missing: {} to {}", gap.first, gap.last),
        };
        error::not_recoverable(format!("the latest state cannot be reached: {missing}"))
            .meaning("there is newer WAL in the repository, and no base backup behind the gap to replay it from")
            .hint(format!("the nearest possible is `--to lsn:{}`{}", gap.from, committed(last)))
            .hint(HEAL)
            .hint(format!("`lifeboat verify -e {}` names everything that is missing", self.catalogue.environment))
    }

    pub(super) fn position_unreachable(
        &self,
        target: Lsn,
        asked: &Target,
        reach: &Reach,
        last: Option<Transaction>,
        later: Option<&BaseBackup>,
    ) -> Error {
        match &reach.gap {
            Some(gap) => {
                let error = error::not_recoverable(match gap.retired {
                    true => format!("{asked} ({target}) cannot be reached: retention gave up the WAL before it"),
                    false => format!("{asked} ({target}) cannot be reached: WAL segment {} is missing", gap.first),
                });
                let before = format!("the nearest possible before it is `--to lsn:{}`{}", gap.from, committed(last));
                after_gap(error.hint(before), later, gap.retired)
            }
            None => error::not_recoverable(format!(
                "{asked} ({target}) lies behind the last WAL in the repository, which ends at {}",
                reach.end
            ))
            .hint("`--to latest` restores the last transaction there is"),
        }
    }

    pub(super) fn damaged(&self, base: &BaseBackup) -> Error {
        error::integrity(format!(
            "the WAL behind base backup {} holds no complete record up to its end {}",
            base.id, base.stop_lsn
        ))
        .hint(format!("run `lifeboat verify -e {} --deep`", self.catalogue.environment))
    }
}

/// What may still close a gap.
const HEAL: &str = "if the missing segments are still somewhere (the server's pg_wal, another archive), `lifeboat wal push` \
                    them: then nothing is missing any more";

/// Names what is nearest behind a gap.
fn after_gap(error: Error, later: Option<&BaseBackup>, given_up: bool) -> Error {
    let error = match later {
        Some(later) => error.hint(format!(
            "the nearest possible after it is {}: `--to backup:{}`",
            text(later.stop_time),
            later.id
        )),
        None => error.hint("after it nothing can be restored: there is no base backup behind the gap"),
    };
    if given_up { error } else { error.hint(HEAL) }
}

/// The time that belongs to the last place before a gap.
fn committed(last: Option<Transaction>) -> String {
    last.map_or_else(String::new, |last| format!(", whose last transaction committed at {}", text(last.time)))
}

/// A time as targets are written, in UTC to the microsecond.
fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

pub(super) fn nothing(catalogue: &Catalogue) -> Error {
    error::not_recoverable(format!("the repository holds no WAL of {}", catalogue.environment))
        .meaning("there is nothing to recover from")
        .hint(format!("`lifeboat show -e {}` tells what is there", catalogue.environment))
}

pub(super) fn unknown_backup(catalogue: &Catalogue, id: &str) -> Error {
    let known: Vec<&str> = catalogue.bases().rev().take(5).map(|b| b.id.as_str()).collect();
    if let Some(entry) = catalogue.retired_base(id) {
        let error =
            error::not_recoverable(format!("base backup {id} of {} was given up by retention", catalogue.environment));
        return match catalogue.retention.deleted.entries.contains(entry.sequence) {
            true => error.meaning("its objects were deleted").hint(format!("the newest are: {}", known.join(", "))),
            false => error
                .meaning("it is retired, and not deleted yet")
                .hint(format!("`lifeboat hold add -e {} --point backup:{id} …` brings it back", catalogue.environment)),
        };
    }
    error::not_recoverable(format!("{} has no base backup {id}", catalogue.environment))
        .hint(format!("the newest are: {}", known.join(", ")))
}

pub(super) fn unknown_timeline(wal: &Coverage, chosen: Timeline) -> Error {
    let known: Vec<String> = wal.timelines.keys().map(|t| t.0.to_string()).collect();
    error::not_recoverable(format!("the repository holds no WAL of timeline {}", chosen.0))
        .hint(format!("timelines there: {}", known.join(", ")))
}

//! `backup_label` and the backup history file: where recovery from a base backup begins.
//!
//! Written by `build_backup_content` (`src/backend/access/transam/xlogbackup.c`; up to 14
//! `do_pg_stop_backup` in `xlog.c`), read back by `read_backup_label` (`xlogrecovery.c`). The label is
//! free text and may hold line breaks; so what comes before it and behind it is read by place, and
//! nothing within it is taken for a field.

use std::str::FromStr;

use crate::error::{self, Error, Result};
use crate::units::{Lsn, Timeline};

use super::wal::SegmentName;

/// What kind of server a backup was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFrom {
    /// A primary.
    Primary,
    /// A standby.
    Standby,
}

/// The fields of a backup label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Redo position of the checkpoint that the backup began with: the first WAL it needs.
    pub start: Lsn,
    /// The segment that holds it.
    pub start_segment: SegmentName,
    /// Position of the checkpoint record.
    pub checkpoint: Lsn,
    /// `streamed`, or `pg_start_backup` for an exclusive backup (13 and 14).
    pub method: String,
    /// Where it was taken.
    pub from: BackupFrom,
    /// When, in the server's log time zone, as the server wrote it.
    pub start_time: String,
    /// The label given by whoever took the backup.
    pub label: String,
    /// Timeline on which it began.
    pub timeline: Timeline,
    /// Start of the backup that an incremental one (17 and later) builds on, and its timeline.
    pub incremental_from: Option<(Lsn, Timeline)>,
    /// End of the backup; only in a backup history file.
    pub stop: Option<Lsn>,
}

impl FromStr for BackupLabel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const LABEL: &str = "\nLABEL: ";
        const TIMELINE: &str = "\nSTART TIMELINE: ";
        let missing = |field: &str| wrong(&format!("it has no {field}"));
        let (before, rest) = text.split_once(LABEL).ok_or_else(|| missing("LABEL"))?;
        let (label, _) = rest.rsplit_once(TIMELINE).ok_or_else(|| missing("START TIMELINE"))?;
        let after = &rest[label.len()..];
        let field = |part: &str, name: &'static str| {
            part.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(|value| value.trim_end().to_owned())
        };
        let need = |part: &str, name| field(part, name).ok_or_else(|| missing(name));
        let start_line = need(before, "START WAL LOCATION")?;
        let (start, start_segment) = location(&start_line)?;
        let timeline = number(&need(after, "START TIMELINE")?)?;
        if start_segment.timeline != timeline {
            return Err(wrong(&format!("START TIMELINE {} contradicts {start_segment}", timeline.0)));
        }
        let incremental_from = match field(after, "INCREMENTAL FROM LSN") {
            Some(lsn) => Some((position(&lsn)?, number(&need(after, "INCREMENTAL FROM TLI")?)?)),
            None => None,
        };
        Ok(Self {
            start,
            start_segment,
            checkpoint: position(&need(before, "CHECKPOINT LOCATION")?)?,
            method: need(before, "BACKUP METHOD")?,
            from: match need(before, "BACKUP FROM")?.as_str() {
                "primary" | "master" => BackupFrom::Primary,
                "standby" => BackupFrom::Standby,
                other => return Err(wrong(&format!("it was taken from a \"{other}\""))),
            },
            start_time: need(before, "START TIME")?,
            label: label.to_owned(),
            timeline,
            incremental_from,
            stop: field(before, "STOP WAL LOCATION").map(|line| location(&line)).transpose()?.map(|(lsn, _)| lsn),
        })
    }
}

/// `0/2000028 (file 000000010000000000000002)`.
fn location(value: &str) -> Result<(Lsn, SegmentName)> {
    let bad = || wrong(&format!("\"{value}\" is not a position with its file"));
    let (lsn, file) = value.split_once(" (file ").ok_or_else(bad)?;
    let file = file.strip_suffix(')').ok_or_else(bad)?;
    Ok((position(lsn)?, file.parse().map_err(|_| bad())?))
}

fn position(value: &str) -> Result<Lsn> {
    value.parse().map_err(|_| wrong(&format!("\"{value}\" is not a WAL position")))
}

fn number(value: &str) -> Result<Timeline> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(Timeline(number)),
        _ => Err(wrong(&format!("\"{value}\" is not a timeline"))),
    }
}

fn wrong(why: &str) -> Error {
    error::integrity(format!("the backup label cannot be used: {why}"))
        .meaning("recovery would not know where to begin, and the backup cannot be restored with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\n\
        BACKUP FROM: primary\n\
        START TIME: 2026-11-22 20:54:09 UTC\n\
        LABEL: nightly\n\
        START TIMELINE: 1\n";

    #[test]
    fn a_label_as_postgresql_writes_it() {
        let label: BackupLabel = LABEL.parse().expect("valid");
        assert_eq!((label.start, label.checkpoint), (Lsn(0x2000028), Lsn(0x2000060)));
        assert_eq!(label.start_segment.to_string(), "000000010000000000000002");
        assert_eq!((label.method.as_str(), label.from), ("streamed", BackupFrom::Primary));
        assert_eq!((label.label.as_str(), label.timeline), ("nightly", Timeline(1)));
        assert_eq!(label.start_time, "2026-11-22 20:54:09 UTC");
        assert_eq!((label.incremental_from, label.stop), (None, None));
    }

    #[test]
    fn incremental_backups_and_history_files() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n")
            .replace("CHECKPOINT", "STOP WAL LOCATION: 0/2000100 (file 000000010000000000000002)\nCHECKPOINT");
        let label: BackupLabel = text.parse().expect("valid");
        assert_eq!(label.incremental_from, Some((Lsn(0x1000028), Timeline(1))));
        assert_eq!(label.stop, Some(Lsn(0x2000100)));
    }

    #[test]
    fn the_label_cannot_forge_fields() {
        let text = LABEL.replace("nightly", "x\nSTART TIMELINE: 9\nSTART WAL LOCATION: 0/1 (file 0)");
        let label: BackupLabel = text.parse().expect("valid");
        assert_eq!((label.timeline, label.start), (Timeline(1), Lsn(0x2000028)));
        assert!(label.label.starts_with("x\nSTART TIMELINE: 9"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (from, to, says) in [
            ("LABEL: nightly", "", "no LABEL"),
            ("START TIMELINE: 1\n", "", "no START TIMELINE"),
            ("START TIMELINE: 1", "START TIMELINE: 2", "contradicts"),
            ("CHECKPOINT LOCATION: 0/2000060\n", "", "no CHECKPOINT LOCATION"),
            ("0/2000060", "here", "not a WAL position"),
            (" (file", " (pile", "position with its file"),
            ("primary", "tape", "tape"),
        ] {
            let error = LABEL.replace(from, to).parse::<BackupLabel>().expect_err(says);
            assert!(error.message().contains(says), "{error}");
        }
    }
}

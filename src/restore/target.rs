//! Recovery targets as people write them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::error::{self, Error, Result};
use crate::units::Lsn;

/// What to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The last transaction in the repository.
    Latest,
    /// Every transaction that committed at this time or before.
    Time(DateTime<Utc>),
    /// Everything written to WAL before this position.
    Lsn(Lsn),
    /// A restore point, by its name.
    Name(String),
    /// The moment at which a base backup became consistent.
    Backup(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => write!(f, "{}", time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            Self::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Backup(id) => write!(f, "backup:{id}"),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        match text.split_once(':') {
            Some(("lsn", lsn)) => return Ok(Self::Lsn(lsn.parse()?)),
            Some(("name", name)) if !name.is_empty() => return Ok(Self::Name(name.to_owned())),
            Some(("backup", id)) if !id.is_empty() => return Ok(Self::Backup(id.to_owned())),
            _ => {}
        }
        time(text)
    }
}

/// Reads a time with a zone. One without is refused: guessing the zone at 3 a.m. could cost hours of data.
fn time(text: &str) -> Result<Target> {
    let unified = text.trim().replacen(' ', "T", 1).replace(' ', "");
    for candidate in [unified.clone(), format!("{unified}:00"), format!("{unified}00")] {
        for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"] {
            if let Ok(time) = DateTime::parse_from_str(&candidate.replace('Z', "+00:00"), format) {
                return Ok(Target::Time(time.with_timezone(&Utc)));
            }
        }
    }
    let without_zone = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .iter()
        .any(|format| chrono::NaiveDateTime::parse_from_str(&unified, format).is_ok());
    Err(match without_zone {
        true => error::usage(format!("\"{text}\" has no time zone"))
            .meaning("the same clock time in two zones is two different states of the data")
            .hint(format!("write \"{text}Z\" for UTC, or for example \"{text}+01:00\"")),
        false => error::usage(format!("\"{text}\" is not a recovery target")).hint(
            "write latest, a time like \"2026-11-22 20:35:00+01:00\", lsn:16/B374D848, name:RESTORE_POINT or backup:ID",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).expect("time").with_timezone(&Utc);
        let cases = [
            ("latest", Target::Latest),
            ("lsn:0/3000060", Target::Lsn(Lsn(0x300_0060))),
            ("name:before promotion", Target::Name("before promotion".into())),
            ("backup:20261122T203505Z-3f9a", Target::Backup("20261122T203505Z-3f9a".into())),
            ("2026-11-22T20:35:05Z", Target::Time(at("2026-11-22T20:35:05Z"))),
            ("2026-11-22 20:35:05.25+01:00", Target::Time(at("2026-11-22T19:35:05.25Z"))),
            ("2026-11-22 20:35:05+01", Target::Time(at("2026-11-22T19:35:05Z"))),
            ("2026-11-22 20:35 +0100", Target::Time(at("2026-11-22T19:35:00Z"))),
        ];
        for (text, expected) in cases {
            let read: Target = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(read, expected, "{text}");
            assert_eq!(read.to_string().parse::<Target>().expect("prints what it reads"), read);
        }
    }

    #[test]
    fn a_time_without_zone_is_refused_with_what_to_write() {
        let refused = "2026-11-22 20:35:05".parse::<Target>().expect_err("no zone");
        assert!(refused.hints()[0].contains("2026-11-22 20:35:05Z"), "{:?}", refused.hints());
        assert!("yesterday".parse::<Target>().is_err());
        assert!("lsn:now".parse::<Target>().is_err());
    }
}

//! What the library tells while it works. Terminal, JSON lines, logs, page and metrics consume this one
//! stream; the library itself never prints.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Lsn;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A named piece of work began; `total` is its size in bytes where known.
    PhaseStarted {
        /// What is being done, for people: "reading the cluster".
        phase: Cow<'static, str>,
        /// Bytes that will pass, where known.
        total: Option<u64>,
    },
    /// Bytes that passed since the last event of the running phase.
    Progress {
        /// The phase.
        phase: Cow<'static, str>,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// A phase ended.
    PhaseEnded {
        /// The phase.
        phase: Cow<'static, str>,
        /// How long it took.
        #[serde(with = "seconds")]
        took: Duration,
    },
    /// Something a person may want to know; not a problem.
    Note(String),
    /// Something a person should look at, though the work goes on.
    Warning(String),
    /// The store failed and is tried again.
    StoreRetry {
        /// What was tried.
        operation: String,
        /// How it failed.
        reason: String,
        /// When it is tried again.
        #[serde(with = "seconds")]
        after: Duration,
    },
    /// WAL up to here is durable in the store and has been reported to PostgreSQL as flushed.
    WalDurable {
        /// End of the durable bytes.
        lsn: Lsn,
    },
    /// A complete WAL segment or history file was stored.
    WalStored {
        /// File name as in `pg_wal`.
        name: String,
        /// Stored size in bytes.
        stored: u64,
    },
}

/// Spans as numbers of seconds.
mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(span.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_back_from_its_line_of_json() {
        let events = [
            Event::PhaseStarted { phase: "reading the cluster".into(), total: Some(7) },
            Event::Progress { phase: "reading the cluster".into(), bytes: 7 },
            Event::PhaseEnded { phase: "reading the cluster".into(), took: Duration::from_millis(1500) },
            Event::Note("two\nlines".into()),
            Event::Warning("x".into()),
            Event::StoreRetry { operation: "put x".into(), reason: "503".into(), after: Duration::from_secs(2) },
            Event::WalDurable { lsn: Lsn(0x16_B374_D848) },
            Event::WalStored { name: "000000010000000000000001".into(), stored: 9 },
        ];
        for event in events {
            let line = serde_json::to_string(&event).expect("plain data");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).expect("reads back"), event, "{line}");
        }
        let line = serde_json::to_string(&Event::WalDurable { lsn: Lsn(0x16_B374_D848) }).expect("plain data");
        assert_eq!(line, r#"{"wal_durable":{"lsn":"16/B374D848"}}"#);
    }
}

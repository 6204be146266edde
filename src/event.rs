//! What the library tells while it works. Terminal, JSON lines, logs, page and metrics consume this one
//! stream; the library itself never prints.

use std::borrow::Cow;
use std::fmt;
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
    /// A line of a log (`tracing`) of another process, such as a job: for logs, not for people.
    Logged {
        /// How bad it is.
        level: LogLevel,
        /// The part of the program that wrote it.
        target: String,
        /// The line, with its fields.
        message: String,
    },
}

/// How bad a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Somebody should look at it.
    Warn,
    /// Worth knowing.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As it stands in logs.
    pub fn word(self) -> &'static str {
        match self {
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
            LogLevel::Trace => "TRACE",
        }
    }
}

/// Whom an event concerns: what every line of a log carries. All of it is absent where a command has nobody else to
/// tell its events apart from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The environment.
    pub environment: Option<String>,
    /// The worker of the service that tells it: `wal` or `filestore`.
    pub worker: Option<&'static str>,
    /// The job, as ledgers name it: by its name in the schedule, else by its kind.
    pub job: Option<String>,
    /// The run of the job.
    pub run: Option<String>,
    /// The trace that the run is part of, where traces are sent.
    pub trace_id: Option<String>,
}

impl Subject {
    /// An environment as a whole.
    pub fn environment(name: &str) -> Self {
        Self { environment: Some(name.to_owned()), ..Self::default() }
    }

    /// Its parts by the names that they have in logs.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { environment, worker, job, run, trace_id } = self;
        let parts = [
            ("environment", environment.as_deref()),
            ("worker", *worker),
            ("job", job.as_deref()),
            ("run", run.as_deref()),
            ("trace_id", trace_id.as_deref()),
        ];
        parts.into_iter().filter_map(|(name, part)| part.map(|part| (name, part)))
    }
}

/// What stands before a line for people: `production: wal: `.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        [self.environment.as_deref(), self.worker, self.run.as_deref()]
            .into_iter()
            .flatten()
            .try_for_each(|part| write!(f, "{part}: "))
    }
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
            Event::Logged { level: LogLevel::Debug, target: "lifeboat".into(), message: "put size=3".into() },
        ];
        for event in events {
            let line = serde_json::to_string(&event).expect("plain data");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).expect("reads back"), event, "{line}");
        }
        let line = serde_json::to_string(&Event::WalDurable { lsn: Lsn(0x16_B374_D848) }).expect("plain data");
        assert_eq!(line, r#"{"wal_durable":{"lsn":"16/B374D848"}}"#);
    }

    #[test]
    fn a_subject_reads_as_a_place() {
        let wal = Subject { worker: Some("wal"), ..Subject::environment("shop") };
        assert_eq!(wal.to_string(), "shop: wal: ");
        let run = Some("3f0c".to_owned());
        let job = Subject { job: Some("base-daily".to_owned()), run, ..Subject::environment("shop") };
        assert_eq!(job.to_string(), "shop: 3f0c: ");
        assert_eq!(job.parts().collect::<Vec<_>>(), [("environment", "shop"), ("job", "base-daily"), ("run", "3f0c")]);
        assert_eq!(Subject::default().to_string(), "");
    }
}

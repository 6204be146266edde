//! What PostgreSQL reports (errors, warnings), and what an error of it means to whoever runs Lifeboat.
//!
//! Decisions rest on the SQLSTATE, and where that says nothing on the routine in PostgreSQL's source
//! that reported: texts are translated by `lc_messages`, these two are not.

use std::fmt;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};

/// An error or a notice as PostgreSQL reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// `ERROR`, `FATAL`, `WARNING`, …, never translated.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub code: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// The secondary message.
    pub detail: Option<String>,
    /// PostgreSQL's own suggestion.
    pub hint: Option<String>,
    /// The routine in PostgreSQL's source that reported.
    pub routine: Option<String>,
}

impl ServerReport {
    /// Reads the body of an ErrorResponse or a NoticeResponse; fields that it does not know are skipped.
    pub(super) fn parse(body: &Bytes) -> Self {
        let mut report = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else { continue };
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                b'V' => report.severity = value,
                b'C' => report.code = value,
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b'R' => report.routine = Some(value),
                _ => {}
            }
        }
        report
    }
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " [SQLSTATE {}]", self.code)
    }
}

impl std::error::Error for ServerReport {}

/// The report of PostgreSQL at the bottom of an error.
pub fn server_report(error: &Error) -> Option<&ServerReport> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(report) = error.downcast_ref() {
            return Some(report);
        }
        cause = error.source();
    }
    None
}

/// The SQLSTATE at the bottom of an error, when PostgreSQL reported it.
pub fn sqlstate(error: &Error) -> Option<&str> {
    server_report(error).map(|report| report.code.as_str())
}

/// Whether a WAL stream failed because PostgreSQL no longer has the WAL that was asked for: a gap,
/// unless the repository has it. Streaming again from the same position is pointless.
pub fn wal_is_gone(error: &Error) -> bool {
    server_report(error).is_some_and(|report| situation(report) == Situation::WalGone)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// The WAL asked for was removed.
    WalGone,
    /// The slot was invalidated.
    SlotLost,
    /// The position asked for is not in the server's history, or beyond its end.
    NotItsHistory,
    Other,
}

/// Tells apart what PostgreSQL reports under SQLSTATEs that say too little.
fn situation(report: &ServerReport) -> Situation {
    match (report.code.as_str(), report.routine.as_deref()) {
        // CheckXLogRemoved reports under whatever errno happens to be left over: mostly XX000.
        (_, Some("CheckXLogRemoved")) | ("58P01", Some("WalSndSegmentOpen")) => Situation::WalGone,
        ("55000", Some("ReplicationSlotAcquire" | "RaiseSlotInvalidationError")) => Situation::SlotLost,
        ("XX000", Some("StartReplication")) => Situation::NotItsHistory,
        _ => Situation::Other,
    }
}

/// What kind of session an error came from: the same SQLSTATE asks for different advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// An ordinary SQL session.
    Sql,
    /// Connecting to a walsender, or one of its commands.
    Replication,
    /// START_REPLICATION.
    Wal,
    /// BASE_BACKUP.
    Backup,
}

/// Turns a report into the error that the caller returns; `doing` says what failed ("cannot …").
pub(crate) fn explain(report: ServerReport, session: Session, doing: impl Into<String>) -> Error {
    let (kind, meaning, hints) = advice(&report, session);
    let mut error = Error::new(kind, doing);
    if let Some(meaning) = meaning {
        error = error.meaning(meaning);
    }
    for hint in hints {
        error = error.hint(*hint);
    }
    if let Some(hint) = &report.hint {
        error = error.hint(format!("PostgreSQL suggests: {hint}"));
    }
    error.source(report)
}

const FOREIGN: &str = "the repository holds WAL that this server does not have: it was restored to an earlier state, a \
                       standby that was behind took over, or it is not the same cluster; streaming from here would mix \
                       two histories";
const GAP: &str = "WAL that PostgreSQL has already removed can no longer be archived from here: unless it is already in \
                   the repository, the archive has a gap, and no second inside the gap can be restored";

/// Kind, meaning and hints for a report.
fn advice(report: &ServerReport, session: Session) -> (ErrorKind, Option<&'static str>, &'static [&'static str]) {
    let plain = |hints: &'static [&'static str]| (ErrorKind::Source, None, hints);
    match situation(report) {
        Situation::WalGone => {
            return (
                ErrorKind::Source,
                Some(GAP),
                &[
                    "take a base backup now: the time after it is restorable again",
                    "receive through a slot (it makes PostgreSQL keep what is not archived yet), and look at \
                     max_slot_wal_keep_size and wal_keep_size",
                ],
            );
        }
        Situation::SlotLost => {
            return (
                ErrorKind::Source,
                Some(GAP),
                &["drop the slot, let Lifeboat create it anew, and take a base backup now"],
            );
        }
        Situation::NotItsHistory => {
            return (
                ErrorKind::Source,
                Some(FOREIGN),
                &[
                    "compare pg_control_checkpoint() of the server with what `lifeboat show` says, and take a base backup",
                ],
            );
        }
        Situation::Other => {}
    }
    match (report.code.as_str(), session) {
        ("28P01", _) => plain(&["check the user and the password that the DSN refers to"]),
        ("28000", Session::Sql) => {
            plain(&["check that the role exists, may log in, and that pg_hba.conf has a line for it, such as \
             `host all lifeboat 10.0.0.0/8 scram-sha-256`; then run SELECT pg_reload_conf()"])
        }
        ("28000", _) => plain(&[
            "pg_hba.conf needs a replication line (the database name `all` does not include replication), such as \
             `host replication lifeboat 10.0.0.0/8 scram-sha-256` or `local replication lifeboat peer`; then run \
             SELECT pg_reload_conf()",
            "check that the role exists and may log in",
        ]),
        ("42501", Session::Sql) => plain(&["grant the role what the message asks for"]),
        ("42501", _) => plain(&["let the role replicate: ALTER ROLE … REPLICATION"]),
        ("53300", Session::Sql) => plain(&["raise max_connections, or close sessions that nobody needs"]),
        ("53300", _) => plain(&[
            "all walsenders or connections are taken: raise max_wal_senders (and max_connections), which needs a \
                     restart, or end a receiver that nobody needs (pg_stat_replication lists them)",
        ]),
        ("53400", _) => {
            plain(&["all replication slots are taken: raise max_replication_slots, which needs a restart, or \
                                 drop a slot that nobody needs (pg_replication_slots lists them)"])
        }
        ("55006", Session::Replication | Session::Wal) => plain(&[
            "another receiver uses the slot: only one may; pg_replication_slots.active_pid and pg_stat_replication say \
             which",
        ]),
        ("42704", Session::Wal) => plain(&["the slot does not exist; create it before receiving WAL through it"]),
        ("55000", Session::Backup) => plain(&["a base backup needs wal_level = replica or logical"]),
        ("XX001" | "XX002", Session::Backup) => (
            ErrorKind::Integrity,
            Some("pages of the running cluster fail their checksums: the damage is in the source, not in the backup"),
            &["PostgreSQL's log and the warnings of this backup name the files; find the objects, and restore them \
                 from a backup made before the damage"],
        ),
        ("57P01" | "57P02" | "57P03", _) => plain(&["PostgreSQL is starting or stopping; it can be tried again"]),
        _ => plain(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{self, ResultExt};

    #[test]
    fn a_report_is_read_field_by_field() {
        let body = Bytes::from_static(b"SFEHLER\0VERROR\0C58P01\0Mgone\0Dsegment 1\0Hlook\0Fx.c\0\0");
        let report = ServerReport::parse(&body);
        assert_eq!((report.severity.as_str(), report.code.as_str()), ("ERROR", "58P01"));
        assert_eq!(report.to_string(), "gone (segment 1) [SQLSTATE 58P01]");
        assert_eq!(report.hint.as_deref(), Some("look"));
    }

    #[test]
    fn the_sqlstate_is_found_below_other_errors() {
        let report = ServerReport { code: "55006".into(), ..ServerReport::default() };
        let inner = explain(report, Session::Wal, "cannot stream");
        assert_eq!(sqlstate(&inner), Some("55006"));
        let outer = Err::<(), _>(inner).or_err(ErrorKind::Source, || "receiver".into()).expect_err("is an error");
        assert_eq!(sqlstate(&outer), Some("55006"));
        assert_eq!(sqlstate(&error::source("other")), None);
    }

    #[test]
    fn removed_wal_is_known_by_who_reports_it() {
        let report = |code: &str, routine: &str| ServerReport {
            code: code.into(),
            routine: Some(routine.into()),
            ..ServerReport::default()
        };
        let meaning = |report| explain(report, Session::Wal, "x").what_it_means().map(str::to_string);
        for (code, routine) in [("58P01", "WalSndSegmentOpen"), ("XX000", "CheckXLogRemoved")] {
            assert!(wal_is_gone(&explain(report(code, routine), Session::Wal, "x")));
            assert_eq!(meaning(report(code, routine)).as_deref(), Some(GAP));
        }
        assert_eq!(meaning(report("XX000", "StartReplication")).as_deref(), Some(FOREIGN));
        let history = explain(report("58P01", "SendTimeLineHistory"), Session::Replication, "x");
        assert!(!wal_is_gone(&history) && history.what_it_means().is_none());
    }
}

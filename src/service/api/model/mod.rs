//! What the API says of the estate. Times are RFC 3339 in UTC, spans in seconds, sizes in bytes; what is not known is null.

mod approval;
mod estate;
mod jobs;
mod ledger;
mod session;

pub(crate) use approval::{ApprovalList, ApprovalView, Decide, Planned, Wanted};
pub(crate) use estate::{
    Backups, Drill, Drills, EnvironmentDetail, EnvironmentSummary, EstateSummary, Me, Windows, next_drill, word,
};
pub(crate) use jobs::{CalendarView, Due, Job, Jobs, Sample, Schedule, StartJob, StartKind, Started, running};
pub(crate) use ledger::{LedgerPage, LedgerStatement, Row, Verification};
pub(crate) use session::{SessionList, SessionView};

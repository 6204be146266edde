//! The service that keeps an estate safe for years with nobody looking: `lifeboat serve`.
//!
//! ```text
//! supervisor, hearing, answering
//!             ├─ duties ── shares, claim     leases: what is this instance's to do
//!             ├─ crew ─┬─ worker     a thread each: WAL receivers, filestore watchers
//!             │        └─ looks      a task each: what the repository holds, what PostgreSQL says
//!             ├─ jobs ── order, places, child, span     jobs are child processes, and traces
//!             ├─ alerts ── channels   who is told
//!             │    └─ findings        what is wrong: the one judge; page and API ask it by way of `advice`
//!             ├─ repository_keeper   opens the repository, however long that takes
//!             └─ state               the one model that page, API, metrics and alerts read
//! planning                what is due: asks `schedule/`, which decides
//! recorder                what became of jobs, into the ledger
//! control, socket    how others ask the service for something
//! access, look, view what `lifeboat show` uses too: the way in, looking, what was seen
//! ```

pub mod access;
pub mod advice;
pub mod alerts;
mod answering;
mod answers;
pub(crate) mod api;
mod child;
mod claim;
mod control;
mod crew;
mod duties;
pub mod findings;
mod hearing;
pub mod http;
mod initial;
mod jobs;
pub mod look;
mod looks;
pub mod metrics;
mod order;
mod pages;
mod places;
mod planning;
mod recorder;
mod repository_keeper;
mod shares;
pub mod socket;
mod span;
pub mod state;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
mod worker;

pub use claim::Claim;
pub use control::Control;
pub use order::{Order, new_run, time_limit};
pub use span::{JOB_VARIABLE, RUN_VARIABLE, TRACER};
pub use supervisor::{Service, Setup, Sign};

//! When what is due, and what stands against it. Nothing here acts, writes or reads a clock: the service asks, does,
//! records in the ledger, and asks again.
//!
//! ```text
//! planner ── jobs, calendars, history, now ──▶ one decision for each job and environment: run, record, wait
//!   ├─ cron         when a cron expression is due in a time zone, jumps of clocks included
//!   ├─ calendars    what is forbidden, slower or more urgent at an instant; objectives in force
//!   │    └─ windows     rules of windows as intervals
//!   │    └─ in_force    the configuration as calendars make it at an instant
//!   ├─ history      what became of occurrences, from the ledger's `job` entries
//!   └─ preview      the planner, run ahead on the assumption that all goes well
//! ```
//!
//! How the service uses it:
//!
//! ```text
//! planner = Planner::new(&estate)
//! histories[environment].note(entry)          for every ledger entry, at start and as they come
//! plan = planner.plan(&Situation { now, since, histories, running })
//!   Run       start it; when it ended, append Decision::finished(…) to the environment's ledger
//!   Deferred, Missed    append Decision::record(…) at once
//! … note what was appended, plan again; nothing changes by itself before plan.wake_at
//! ```

pub mod calendars;
pub mod cron;
pub mod decision;
pub mod history;
pub mod in_force;
pub mod planner;
pub mod preview;
pub mod windows;

pub use calendars::{Calendars, Forbidden, ObjectivesInForce};
pub use decision::{Decision, What, Why};
pub use history::{History, JobHistory};
pub use in_force::in_force;
pub use planner::{Plan, Planner, Situation};

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod planner_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod year_tests;

//! What is wrong, and who is told.
//!
//! ```text
//! EstateView + Facts ─▶ findings ─▶ conditions (pure) ─▶ engine (pure): fire, group, repeat, silence, resolve ─▶ what to tell whom
//!                                                        ▲                                                      │ channels
//!                                                        └── a notification that failed is itself an alert ◀────┘
//! ```
//!
//! Promises: what is wrong is told within one look and `group_wait`, again after `repeat_interval`, and once more when it is
//! over; what could not be told is tried again and told to the other receivers. Two instances do not tell the same: an
//! environment's alerts are told by the instance that holds its jobs' lease.

mod alarm;
mod alert;
mod channels;
mod conditions;
mod engine;
mod facts;
mod silence;

pub(super) use alarm::{Alarm, Armed};
pub use alert::{Alert, AlertKey, Condition};
pub use channels::{Channels, Notification};
pub use conditions::conditions;
pub use engine::{Engine, Firing, Tell};
pub use facts::{Expiring, Facts, OtherClock};
pub use silence::{Silence, silences};

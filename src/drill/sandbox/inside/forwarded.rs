//! The signals that [`Launch`](crate::postgres::launch::Launch) promises to hand on.

use nix::sys::signal::{SigSet, Signal};

/// SIGINT, SIGQUIT and SIGTERM.
pub(in crate::drill::sandbox) fn forwarded() -> SigSet {
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect()
}

//! What systemd is told; nothing where it did not start this process.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::service::Sign;

/// The status is told again after this long, even when it has not changed.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// The service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    status: Mutex<Option<(String, Instant)>>,
}

impl Manager {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Tells it.
    pub(super) fn tell(&self, sign: &Sign) {
        match sign {
            Sign::Ready => notify(&[NotifyState::Ready]),
            Sign::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => notify(&[NotifyState::Reloading, now]),
                Err(_) => notify(&[NotifyState::Reloading]),
            },
            // systemd drops it where no watchdog was asked for.
            Sign::Alive => notify(&[NotifyState::Watchdog]),
            Sign::Stopping => notify(&[NotifyState::Stopping]),
            Sign::Status(text) => {
                let mut last = self.status.lock().expect("no holder panics");
                if last.as_ref().is_none_or(|(said, at)| said != text || at.elapsed() >= STATUS_EVERY) {
                    *last = Some((text.clone(), Instant::now()));
                    notify(&[NotifyState::Status(text)]);
                }
            }
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing; a manager that went away is no reason to stop.
    let _ = sd_notify::notify(states);
}

//! A bound on the bytes that all reading threads together take in a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Unused allowance is kept for so long.
const BURST: f64 = 0.25;

/// Shared by all threads of one backup.
#[derive(Debug)]
pub(super) struct Throttle(Option<(f64, Mutex<Instant>)>);

impl Throttle {
    /// At most `rate` bytes a second; `None`: no bound. `now` is when it begins.
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self(rate.map(|rate| (rate.max(1) as f64, Mutex::new(now))))
    }

    /// Waits until `bytes` more may be read.
    pub(super) fn take(&self, bytes: u64) {
        let Some((rate, free_at)) = &self.0 else { return };
        let pause = {
            let mut free_at = free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(Duration::from_secs_f64(BURST)).unwrap_or(now);
            *free_at = (*free_at).max(earliest) + Duration::from_secs_f64(bytes as f64 / rate);
            free_at.saturating_duration_since(now)
        };
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_share_one_allowance() {
        let began = Instant::now();
        let throttle = Throttle::new(Some(1 << 20), began);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| throttle.take(32 << 10)));
            }
        });
        // Half a MiB at a MiB per second, less what may be saved up: never faster, whatever the machine does.
        assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    }
}

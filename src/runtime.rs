//! What the library takes from outside instead of reaching for it: the clock, and where events go.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, Utc};

use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::{Event, Subject};

/// Tells the wall-clock time. Durations are measured with `std::time::Instant`.
pub trait Clock: Send + Sync {
    /// The time now, in UTC.
    fn now(&self) -> DateTime<Utc>;

    /// Time since some moment of this process; never goes back, whatever becomes of the wall clock. For what must be
    /// measured under a simulated clock too (leases); all else takes an `Instant`.
    fn ticks(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }
}

/// The clock of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }
}

/// Where events go, and whom they concern.
type Sink = Arc<dyn Fn(&Subject, Event) + Send + Sync>;

/// Clock and event sink of one run of the program; cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    clock: Arc<dyn Clock>,
    sink: Sink,
    subject: Arc<Subject>,
}

impl Runtime {
    /// A runtime with the host's clock that hands every event to `sink`.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self::with_subjects(move |_, event| sink(event))
    }

    /// The same with a `sink` that is told whom each event concerns, too.
    pub fn with_subjects(sink: impl Fn(&Subject, Event) + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(SystemClock), sink: Arc::new(sink), subject: Arc::default() }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same with another place for events.
    #[must_use]
    pub fn telling(&self, sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(move |_, event| sink(event)), ..self.clone() }
    }

    /// The same with somebody who hears every event before it goes where it goes.
    #[must_use]
    pub fn heard_by(&self, ear: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let sink = self.sink.clone();
        let both = move |subject: &Subject, event: Event| {
            ear(&event);
            sink(subject, event);
        };
        Self { sink: Arc::new(both), ..self.clone() }
    }

    /// The same for what concerns `subject`.
    #[must_use]
    pub fn concerning(&self, subject: Subject) -> Self {
        Self { subject: Arc::new(subject), ..self.clone() }
    }

    /// A runtime that drops events, for tests and for callers that do not care.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The clock that only counts ([`Clock::ticks`]).
    pub fn ticks(&self) -> Duration {
        self.clock.ticks()
    }

    /// Tells everybody who listens.
    pub fn emit(&self, event: Event) {
        (self.sink)(&self.subject, event);
    }

    /// Tells everybody who listens something that concerns `subject`.
    pub fn emit_about(&self, subject: &Subject, event: Event) {
        (self.sink)(subject, event);
    }
}

/// Does `work` that blocks (files, hashing, compression) on a thread where it holds up nobody.
///
/// # Errors
/// Those of `work`; internal where it panicked.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.or_err(ErrorKind::Internal, || "a worker ended unexpectedly".to_owned())?
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex, PoisonError};

    use chrono::{DateTime, TimeDelta, Utc};

    use super::Clock;

    /// A wall clock that a test sets; copies show the same time.
    #[derive(Debug, Clone)]
    pub(crate) struct Hand(Arc<Mutex<DateTime<Utc>>>);

    impl Hand {
        pub(crate) fn at(time: DateTime<Utc>) -> Self {
            Self(Arc::new(Mutex::new(time)))
        }

        pub(crate) fn set(&self, time: DateTime<Utc>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
        }

        pub(crate) fn pass(&self, time: TimeDelta) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
        }
    }

    impl Clock for Hand {
        fn now(&self) -> DateTime<Utc> {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

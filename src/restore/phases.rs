//! Timing of named phases, for people while they run and for evidence afterwards.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::event::Event;
use crate::evidence::drill_record::{Basis, Phase};
use crate::runtime::Runtime;

/// Told the name of each phase before it begins; a phase whose name cannot be noted does not begin.
type Notebook = Arc<dyn Fn(&str) -> Result<()> + Send + Sync>;

/// The phases of one restore or drill, in the order in which they ended.
pub struct Phases {
    runtime: Runtime,
    notebook: Option<Notebook>,
    running: Option<(&'static str, DateTime<Utc>, Instant)>,
    measured: Vec<Phase>,
}

impl Phases {
    /// Nothing measured yet.
    pub fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), notebook: None, running: None, measured: Vec::new() }
    }

    /// The same, and every phase is noted before it begins.
    #[must_use]
    pub fn noted(mut self, notebook: impl Fn(&str) -> Result<()> + Send + Sync + 'static) -> Self {
        self.notebook = Some(Arc::new(notebook));
        self
    }

    /// Runs `work` as the phase `name`; `total` is its size in bytes, where known. A phase that fails is
    /// kept too, with a note.
    pub async fn time<T>(
        &mut self,
        name: &'static str,
        total: Option<u64>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if let Some(notebook) = &self.notebook {
            notebook(name)?;
        }
        self.running = Some((name, self.runtime.now(), Instant::now()));
        self.runtime.emit(Event::PhaseStarted { phase: name.into(), total });
        let result = work.await;
        self.end(result.as_ref().err().map(|_| "failed".to_owned()));
        result
    }

    /// Ends the phase whose work was given up, if one was; its name.
    pub fn given_up(&mut self) -> Option<&'static str> {
        let name = self.running.map(|(name, ..)| name);
        self.end(Some("given up".to_owned()));
        name
    }

    fn end(&mut self, note: Option<String>) {
        let Some((name, started_at, began)) = self.running.take() else { return };
        let took = began.elapsed();
        self.runtime.emit(Event::PhaseEnded { phase: name.into(), took });
        self.measured.push(Phase {
            name: name.to_owned(),
            started_at: Some(started_at),
            seconds: took.as_secs_f64(),
            basis: Basis::Measured,
            note,
        });
    }

    /// Says something about the phase that ended last.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Some(last) = self.measured.last_mut() {
            last.note = Some(note.into());
        }
    }

    /// What was measured.
    pub fn measured(&self) -> &[Phase] {
        &self.measured
    }

    /// Sum of the measured phases in seconds.
    pub fn seconds(&self) -> f64 {
        self.measured.iter().map(|p| p.seconds).sum()
    }
}

impl fmt::Debug for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phases").field("running", &self.running).field("measured", &self.measured).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error;

    #[tokio::test]
    async fn what_cannot_be_noted_does_not_begin_and_what_is_given_up_is_kept() {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let notes = noted.clone();
        let mut phases = Phases::new(&Runtime::silent()).noted(move |name| match name {
            "unwritable" => Err(error::internal("disk full")),
            name => {
                notes.lock().expect("unlocked").push(name.to_owned());
                Ok(())
            }
        });
        phases.time("first", None, async { Ok(()) }).await.expect("done");
        let mut begun = false;
        let beginning = async {
            begun = true;
            Ok(())
        };
        phases.time("unwritable", None, beginning).await.expect_err("not noted");
        assert!(!begun);
        let endless = phases.time("endless", None, std::future::pending::<Result<()>>());
        assert!(futures::FutureExt::now_or_never(endless).is_none());
        assert_eq!((phases.given_up(), phases.given_up()), (Some("endless"), None));
        let names: Vec<_> = phases.measured().iter().map(|p| (p.name.as_str(), p.note.as_deref())).collect();
        assert_eq!(names, [("first", None), ("endless", Some("given up"))]);
        assert_eq!(*noted.lock().expect("unlocked"), ["first", "endless"]);
    }
}

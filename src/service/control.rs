//! How others in this process ask the service for something: the API, the page, the socket.

use tokio::sync::{mpsc, oneshot};

use super::order::Order;
use crate::config::JobKind;
use crate::error::{self, Result};

/// Requests that may wait.
const WAITING: usize = 64;

/// What is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Run a job as soon as there is a place.
    Start(Order),
    /// End a job that runs or waits.
    Stop {
        /// Which run.
        run: String,
        /// Who asks.
        who: String,
    },
    /// Load the configuration again.
    Reload,
}

/// A request, and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Result<()>>);

/// Asks the service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(mpsc::Sender<Asked>);

impl Control {
    /// A way to ask, and where the service hears it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Has a job run as soon as there is a place for it; its run's id. `who` asks; `arguments` stand after the
    /// environment on the command line and are the caller's to judge.
    ///
    /// # Errors
    /// Usage, where there is no such environment; denied, where this instance does not do such work for it, the
    /// same is waiting already, or the service is being stopped.
    pub async fn start_job(
        &self,
        kind: JobKind,
        environment: &str,
        arguments: Vec<String>,
        who: &str,
    ) -> Result<String> {
        let order = Order::requested(kind, environment, arguments, who)?;
        let run = order.run.clone();
        self.ask(Request::Start(order)).await.map(|()| run)
    }

    /// Ends a job that runs or waits, in order: SIGTERM, later SIGKILL.
    ///
    /// # Errors
    /// Usage, where no such run waits or runs.
    pub async fn stop_job(&self, run: &str, who: &str) -> Result<()> {
        self.ask(Request::Stop { run: run.to_owned(), who: who.to_owned() }).await
    }

    /// Loads the configuration again.
    ///
    /// # Errors
    /// Config, where it is refused; then the configuration before it stays in force.
    pub async fn reload(&self) -> Result<()> {
        self.ask(Request::Reload).await
    }

    async fn ask(&self, request: Request) -> Result<()> {
        let stopped = || error::denied("the service is being stopped").meaning("nothing was begun");
        let (answer, answered) = oneshot::channel();
        self.0.send((request, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

//! A Unix socket in the state directory, by which the operators of a host ask its service without a network:
//! `lifeboat service status|run|stop|reload`.
//!
//! One JSON object a connection, one JSON object as the answer. Who may write to the socket is who may read the
//! state directory: the account that the service runs as, and root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::control::Control;
use super::state::ServiceState;
use crate::config::JobKind;
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::repository::StateDir;
use crate::runtime::Runtime;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest question.
const LONGEST: u64 = 64 << 10;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// How is everything?
    Status,
    /// Run a job.
    Run {
        /// What it does.
        kind: JobKind,
        /// For which environment.
        environment: String,
        /// Arguments beside the environment.
        arguments: Vec<String>,
        /// Who asks.
        who: String,
    },
    /// End a job.
    Stop {
        /// Which run.
        run: String,
        /// Who asks.
        who: String,
    },
    /// Load the configuration again.
    Reload,
}

/// Where the socket of a host's service is.
pub fn path(state: &StateDir) -> PathBuf {
    state.path().join("service.sock")
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens for questions; whoever has claimed the state directory may.
///
/// # Errors
/// Config, where the socket cannot be made.
pub fn listen(path: &Path, state: ServiceState, control: Control, runtime: &Runtime) -> Result<Listening> {
    let failed = || format!("cannot listen at {}", path.display());
    // What a service that was killed left behind.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).or_err(ErrorKind::Config, failed),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).or_err(ErrorKind::Config, failed)?;
    let listener = UnixListener::bind(path).or_err(ErrorKind::Config, failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).or_err(ErrorKind::Config, failed)?;
    let runtime = runtime.clone();
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (state, control) = (state.clone(), control.clone());
                    tokio::spawn(async move {
                        // Whoever asked may have gone.
                        let _ = timeout(PATIENCE * 2, answer(stream, &state, &control)).await;
                    });
                }
                Err(e) => {
                    runtime.emit(Event::Warning(format!("a question at the socket was lost: {e}")));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(Listening(task.abort_handle()))
}

async fn answer(stream: UnixStream, state: &ServiceState, control: &Control) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(read).take(LONGEST).read_until(b'\n', &mut line).await?;
    let said = match serde_json::from_slice(&line) {
        Ok(question) => said(question, state, control).await,
        Err(e) => Err(error::usage(format!("the question is not understood: {e}"))),
    };
    let answer = said.unwrap_or_else(|e| json!({ "error": Refusal::from(&e) }));
    write.write_all(&serde_json::to_vec(&answer)?).await?;
    write.shutdown().await
}

async fn said(question: Question, state: &ServiceState, control: &Control) -> Result<Value> {
    match question {
        Question::Status => serde_json::to_value(&*state.view())
            .or_err(ErrorKind::Internal, || "the state cannot be written down".to_owned()),
        Question::Run { kind, environment, arguments, who } => {
            control.start_job(kind, &environment, arguments, &who).await.map(|run| json!({ "run": run }))
        }
        Question::Stop { run, who } => control.stop_job(&run, &who).await.map(|()| json!({})),
        Question::Reload => control.reload().await.map(|()| json!({})),
    }
}

/// An error on its way through the socket.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    kind: String,
    message: String,
    meaning: Option<String>,
    hints: Vec<String>,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            kind: format!("{:?}", error.kind()),
            message: error.message(),
            meaning: error.what_it_means().map(str::to_owned),
            hints: error.hints().to_vec(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind.as_str() {
            "Usage" => ErrorKind::Usage,
            "Config" => ErrorKind::Config,
            "Denied" => ErrorKind::Denied,
            _ => ErrorKind::Internal,
        };
        let error = Error::new(kind, refusal.message);
        let error = refusal.meaning.into_iter().fold(error, Error::meaning);
        refusal.hints.into_iter().fold(error, Error::hint)
    }
}

/// Asks the service of a host.
///
/// # Errors
/// Source, where none answers; what it refuses, as it says it.
pub async fn ask(path: &Path, question: &Question) -> Result<Value> {
    let silent = || format!("no service answers at {}", path.display());
    let asking = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(PATIENCE, asking).await {
        Ok(answer) => answer
            .or_err(ErrorKind::Source, silent)
            .map_err(|e| e.hint("start it: `systemctl start lifeboat`, or `lifeboat serve`"))?,
        Err(_) => return Err(error::source(silent()).meaning("it was asked, and said nothing for ten seconds")),
    };
    let mut answer: Value = serde_json::from_slice(&answer).or_err(ErrorKind::Source, silent)?;
    match answer.get_mut("error").map(Value::take) {
        Some(refusal) => {
            let refusal: Refusal = serde_json::from_value(refusal).or_err(ErrorKind::Source, silent)?;
            Err(refusal.into())
        }
        None => Ok(answer),
    }
}

//! A job as a child process: started, listened to, limited, ended.
//!
//! Promises: a child that hangs, panics or eats memory harms nobody else; it is ended when its time is up, and by
//! the kernel when this process ends, however that happens. What it tells arrives as it is told. It relies on
//! every command leaving no half work wherever it is killed.
//!
//! The child gets its configuration on standard input, so that it sees what the service sees; it tells events as
//! JSON lines on standard error and its result on standard output.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::event::Event;

/// What a command prints beyond this is not kept.
const MOST_RESULT: u64 = 8 << 20;
/// A longer line is cut.
const LONGEST_LINE: u64 = 64 << 10;
/// Lines of a job that are kept.
const LOG: usize = 200;
/// How long pipes may stay open behind a child that ended: a process that it left may hold them.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What only concerns the service itself; a restored PostgreSQL would otherwise tell systemd that it is ready.
const OF_THE_SERVICE: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    // A job is part of its own trace, if of any.
    "TRACEPARENT",
    "TRACESTATE",
];

/// What children are made from.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The program; this one.
    pub(super) path: PathBuf,
    /// The configuration file, for messages.
    pub(super) config_file: PathBuf,
    /// What the child reads as its configuration.
    pub(super) configuration: Bytes,
}

impl Program {
    /// Starts a child. Call it on a thread that lives as long as the process: the kernel ends a child when the
    /// *thread* that started it ends, and threads of a pool come and go.
    pub(super) fn start(&self, command: &[String], variables: &[(&str, String)]) -> Result<Child> {
        let mut child = Command::new(&self.path);
        child.arg("-c").arg(&self.config_file).args(["--format", "json", "--events", "json", "--config-from-stdin"]);
        child.arg("--parent").arg(std::process::id().to_string()).args(command);
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        OF_THE_SERVICE.iter().for_each(|name| {
            child.env_remove(name);
        });
        child.envs(variables.iter().map(|(name, value)| (name, value)));
        // A group of its own: a Ctrl-C on the service's terminal is for the service, which ends its jobs in order.
        child.process_group(0).kill_on_drop(true);
        child.spawn().or_err(ErrorKind::Internal, || format!("cannot start lifeboat {}", command.join(" ")))
    }
}

/// How long a child may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From its start until it is asked to end.
    pub(super) time: Duration,
    /// From then until it is killed.
    pub(super) grace: Duration,
}

/// Why a child was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its time was up.
    TimeLimit,
    /// Somebody stopped it.
    Stopped,
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// What the kernel says.
    pub(super) status: Result<ExitStatus>,
    /// Whether it was asked to.
    pub(super) cut: Option<Cut>,
    /// The object that it printed; null where it printed none.
    pub(super) result: Value,
    /// The last lines that it told.
    pub(super) log: Vec<String>,
}

/// Follows a child to its end; `told` gets its events.
pub(super) async fn follow(
    mut child: Child,
    configuration: Bytes,
    limits: Limits,
    stop: CancellationToken,
    told: impl Fn(Event) + Send + Sync + 'static,
) -> Exit {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            // A child that ends before it has read says why itself.
            let _ = stdin.write_all(&configuration).await;
        });
    }
    let printed = child.stdout.take().map(|pipe| tokio::spawn(printed(pipe)));
    let log = std::sync::Arc::new(std::sync::Mutex::new(VecDeque::new()));
    let lines = child.stderr.take().map(|pipe| tokio::spawn(lines(pipe, log.clone(), told)));
    let limit = sleep(limits.time);
    let cut = tokio::select! {
        status = child.wait() => {
            return exit(status, None, printed, lines, &log).await;
        }
        () = limit => Cut::TimeLimit,
        () = stop.cancelled() => Cut::Stopped,
    };
    let signal = |signal| {
        if let Some(group) = pid {
            // It may have ended meanwhile.
            let _ = killpg(group, signal);
        }
    };
    signal(Signal::SIGTERM);
    let status = match timeout(limits.grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            signal(Signal::SIGKILL);
            child.wait().await
        }
    };
    exit(status, Some(cut), printed, lines, &log).await
}

type Task<T> = Option<tokio::task::JoinHandle<T>>;

async fn exit(
    status: std::io::Result<ExitStatus>,
    cut: Option<Cut>,
    printed: Task<Vec<u8>>,
    lines: Task<()>,
    log: &std::sync::Mutex<VecDeque<String>>,
) -> Exit {
    let status = status.or_err(ErrorKind::Internal, || "cannot wait for a job".to_owned());
    let printed = match printed {
        Some(task) => timeout(LAST_WORDS, task).await.ok().and_then(std::result::Result::ok).unwrap_or_default(),
        None => Vec::new(),
    };
    if let Some(task) = lines {
        let _ = timeout(LAST_WORDS, task).await;
    }
    let result = serde_json::from_slice(&printed).unwrap_or(Value::Null);
    let log = log.lock().expect("no holder panics").drain(..).collect();
    Exit { status, cut, result, log }
}

/// What it prints, up to a bound; the rest is read and dropped, so that it does not block.
async fn printed(pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut pipe = pipe.take(MOST_RESULT);
    if pipe.read_to_end(&mut kept).await.is_ok() {
        let _ = tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await;
    }
    kept
}

/// Its events, line by line; a line that is none is kept as a note: a panic, a warning of a library.
async fn lines(
    pipe: impl AsyncRead + Unpin,
    log: std::sync::Arc<std::sync::Mutex<VecDeque<String>>>,
    told: impl Fn(Event),
) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut pipe).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let event = serde_json::from_slice(&line)
            .unwrap_or_else(|_| Event::Note(String::from_utf8_lossy(&line).trim_end().to_owned()));
        if let Some(words) = words(&event) {
            let mut log = log.lock().expect("no holder panics");
            if log.len() == LOG {
                log.pop_front();
            }
            log.push_back(words);
        }
        told(event);
    }
}

/// An event as a line of a log; `None` for what only moves a bar.
pub(super) fn words(event: &Event) -> Option<String> {
    use crate::units::{ByteSize, Span};
    Some(match event {
        Event::PhaseStarted { phase, .. } => format!("{phase} …"),
        Event::PhaseEnded { phase, took } => format!("{phase}: {}", Span(*took)),
        Event::Note(text) => text.clone(),
        Event::Warning(text) => format!("warning: {text}"),
        Event::StoreRetry { operation, reason, after } => {
            format!("the store failed to {operation}: {reason}; trying again after {}", Span(*after))
        }
        Event::WalStored { name, stored } => format!("{name} stored, {}", ByteSize(*stored)),
        Event::Logged { level, target, message } => format!("{} {target}: {message}", level.word()),
        Event::Progress { .. } | Event::WalDurable { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn().expect("a shell")
    }

    async fn run(script: &str, time: Duration, stop: CancellationToken) -> (Exit, Vec<Event>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let told = move |event| sink.lock().expect("lock").push(event);
        let exit = follow(shell(script), Bytes::from_static(b"{}"), Limits { time, grace: GRACE }, stop, told).await;
        let events = events.lock().expect("lock").clone();
        (exit, events)
    }

    const LONG: Duration = Duration::from_secs(600);
    const GRACE: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn result_events_and_stray_lines_arrive() {
        let script =
            r#"cat >/dev/null; echo '{"note":"one"}' >&2; echo 'thread panicked' >&2; echo '{"a": 1}'; exit 11"#;
        let (exit, events) = run(script, LONG, CancellationToken::new()).await;
        assert_eq!(exit.status.expect("waited").code(), Some(11));
        assert_eq!((exit.cut, exit.result), (None, serde_json::json!({ "a": 1 })));
        assert_eq!(events, [Event::Note("one".into()), Event::Note("thread panicked".into())]);
        assert_eq!(exit.log, ["one", "thread panicked"]);
    }

    #[tokio::test]
    async fn one_that_ignores_sigterm_is_killed_with_what_it_started() {
        let stop = CancellationToken::new();
        let directory = tempfile::tempdir().expect("a directory");
        let ready = directory.path().join("ready");
        let script = format!("trap '' TERM; sleep 600 & touch '{}'; while :; do sleep 1; done", ready.display());
        let stopper = stop.clone();
        let stopping = tokio::spawn(async move {
            while !ready.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stopper.cancel();
            std::time::Instant::now()
        });
        let (exit, _) = run(&script, LONG, stop).await;
        let began = stopping.await.expect("stopped");
        assert_eq!(exit.cut, Some(Cut::Stopped));
        assert_eq!(exit.status.expect("waited").code(), None, "a signal ended it");
        assert!(began.elapsed() >= GRACE);
    }

    #[tokio::test]
    async fn one_whose_time_is_up_is_ended_and_its_endless_output_blocks_nobody() {
        let (exit, _) = run("yes", Duration::from_millis(300), CancellationToken::new()).await;
        assert_eq!(exit.cut, Some(Cut::TimeLimit));
        assert_eq!(exit.result, Value::Null);
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipes_does_not_hold_up_the_end() {
        let (exit, _) = run("setsid sleep 4 & exit 0", LONG, CancellationToken::new()).await;
        assert_eq!(exit.status.expect("waited").code(), Some(0));
    }
}

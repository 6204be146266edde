//! The program itself, run as a user would, in an environment of the test's own.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::status_field;

/// Known to integration tests only; the helpers are compiled into unit tests as well.
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_lifeboat");

/// `lifeboat -c CONFIG`, ready to run commands.
#[derive(Debug, Clone)]
pub(crate) struct Lifeboat {
    config: PathBuf,
    environment: Vec<(String, String)>,
    timeout: Duration,
}

impl Lifeboat {
    /// With a configuration file; no time-out beyond two minutes, no environment but the usual paths
    /// and credentials that moto takes.
    pub(crate) fn new(config: impl AsRef<Path>) -> Self {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("LC_ALL", "C.UTF-8"),
            ("RUST_BACKTRACE", "1"),
        ];
        let mut environment: Vec<_> = environment.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Ok(value) = std::env::var(name) {
                environment.push((name.to_owned(), value));
            }
        }
        Self { config: config.as_ref().to_owned(), environment, timeout: Duration::from_secs(120) }
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program's path: that which was built with these tests, or another one (`LIFEBOAT_TEST_PROGRAM`; a release build is
    /// what is measured).
    pub(crate) fn program() -> &'static str {
        static OTHER: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("LIFEBOAT_TEST_PROGRAM").ok());
        OTHER.as_deref().or(PROGRAM).expect("only integration tests are built with the program")
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[impl AsRef<OsStr>]) -> Output {
        self.spawn(args).wait(self.timeout)
    }

    /// Starts a command that runs on.
    #[track_caller]
    pub(crate) fn spawn(&self, args: &[impl AsRef<OsStr>]) -> Running {
        let mut command = Command::new(Self::program());
        command.arg("-c").arg(&self.config).args(args);
        command.env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.current_dir(self.config.parent().filter(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Gathered::new(child.stdout.take().expect("piped"));
        let stderr = Gathered::new(child.stderr.take().expect("piped"));
        Running { what: format!("{command:?}"), child, stdout, stderr, peak_rss: 0 }
    }
}

/// What a process writes, gathered as it comes.
#[derive(Debug)]
struct Gathered {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Gathered {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().expect("no panic while locked").extend_from_slice(&buffer[..n]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no panic while locked")).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}

/// A running `lifeboat`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    what: String,
    child: Child,
    stdout: Gathered,
    stderr: Gathered,
    peak_rss: u64,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.stdout.so_far() + &self.stderr.so_far()
    }

    /// What it wrote to standard output up to now.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it wrote to standard error up to now.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.observe();
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("a child that was not reaped");
    }

    /// Kills it, as a machine that dies would.
    pub(crate) fn kill9(self) -> Output {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10))
    }

    /// Waits for its end; kills it and panics when that does not come within `timeout`.
    #[track_caller]
    pub(crate) fn wait(mut self, timeout: Duration) -> Output {
        let until = Instant::now() + timeout;
        let status = loop {
            self.observe();
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "not done within {timeout:?}: {}\n{}\n{}",
                    self.what,
                    self.stdout.so_far(),
                    self.stderr.so_far()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Output {
            what: std::mem::take(&mut self.what),
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
            peak_rss: self.peak_rss,
        }
    }

    /// Keeps the highest resident size; Linux forgets it with the process.
    fn observe(&mut self) {
        let peak = status_field(self.child.id(), "VmHWM:");
        let kib = peak.and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
        self.peak_rss = self.peak_rss.max(kib.unwrap_or(0) * 1024);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Output {
    what: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Highest resident size in bytes (sampled every few milliseconds).
    pub(crate) peak_rss: u64,
}

impl Output {
    /// The exit code; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Must have ended with `code`.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}: {}\n{}\n{}", self.what, self.status, self.stdout, self.stderr);
        self
    }

    /// Must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.expect_code(0)
    }

    /// Standard output, which must be one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: not JSON ({error}):\n{}\n{}", self.what, self.stdout, self.stderr))
    }
}

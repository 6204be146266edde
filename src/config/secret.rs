//! References to secrets: where a credential is, and how it is fetched when it is needed.
//!
//! Configuration never holds a secret. [`SecretRef::resolve`] fetches it, late, and refuses doubtful
//! ones: an empty value, a file that others can read, a program that fails or does not end.
//! No message ever holds the secret, what a command printed as one, or a command's arguments.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{self, ErrorKind, Result, ResultExt as _};

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file, absolute, that only its owner can read.
    File(PathBuf),
    /// In what a program prints.
    Command(Vec<String>),
}

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// No secret is longer; what prints more is not printing a secret.
const LONGEST: u64 = 64 << 10;

impl SecretRef {
    /// Fetches the secret, without the line end that editors and programs put after it.
    pub fn resolve(&self) -> Result<SecretString> {
        let bytes = match self {
            SecretRef::Env(name) => from_env(name)?,
            SecretRef::File(path) => from_file(path)?,
            SecretRef::Command(words) => from_command(words, COMMAND_LIMIT)?,
        };
        let text =
            std::str::from_utf8(&bytes).map_err(|_| error::config(format!("the secret in {self} is not text")))?;
        let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
        if text.is_empty() {
            return Err(error::config(format!("the secret in {self} is empty")));
        }
        Ok(SecretString::from(text))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "environment variable {name}"),
            SecretRef::File(path) => write!(f, "file {}", path.display()),
            SecretRef::Command(words) => write!(f, "the output of {}", words.first().map_or("", |w| w)),
        }
    }
}

type Secret = Zeroizing<Vec<u8>>;

fn from_env(name: &str) -> Result<Secret> {
    match std::env::var_os(name) {
        Some(value) => Ok(Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))),
        None => Err(error::config(format!("the environment variable {name}, which should hold a secret, is not set"))
            .hint(format!("set {name} for this process, for example with EnvironmentFile= in its systemd unit"))),
    }
}

fn from_file(path: &Path) -> Result<Secret> {
    let cannot = || format!("cannot read the secret in file {}", path.display());
    let file = File::open(path).or_err(ErrorKind::Config, cannot)?;
    let metadata = file.metadata().or_err(ErrorKind::Config, cannot)?;
    if !metadata.is_file() {
        return Err(error::config(format!("{}, which should hold a secret, is not a file", path.display())));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(error::config(format!(
            "the secret in file {} is open to other accounts (mode {mode:03o})",
            path.display()
        ))
        .hint(format!("chmod 600 {}", path.display()))
        .hint("if others may have read it, replace the secret"));
    }
    read_bounded(file).or_err(ErrorKind::Config, cannot)
}

/// Reads to the end, but never more than a secret can be long.
fn read_bounded(from: impl Read) -> std::io::Result<Secret> {
    // Reserved at once: growing would leave copies of the secret in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LONGEST {
        true => Err(std::io::Error::other(format!("it is longer than {LONGEST} bytes"))),
        false => Ok(bytes),
    }
}

/// What the threads that watch a command report; the command has ended when all three did.
enum Report {
    Output(std::io::Result<Secret>),
    Complaint(String),
    Ended,
}

fn from_command(words: &[String], limit: Duration) -> Result<Secret> {
    let program = words.first().expect("a command has a program: checked when the file was read");
    let failed = |what: String| error::config(format!("the command {program}, which should print a secret, {what}"));
    let mut child = Command::new(program)
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| {
            failed("cannot be started".into()).source(e).hint("is it installed, and on this process's PATH?")
        })?;
    let reports = watch(&mut child);
    let (mut output, mut complaint) = (None, String::new());
    let deadline = Instant::now() + limit;
    for _ in 0..3 {
        match reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Report::Output(bytes)) => output = Some(bytes),
            Ok(Report::Complaint(text)) => complaint = text,
            Ok(Report::Ended) => {}
            Err(_) => {
                // Its own process group: what it started and left holding the pipes ends too. It is
                // not reaped yet, so the number is still its own.
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                return Err(failed(format!("did not end within {limit:?} and was stopped"))
                    .hint("does it wait for a passphrase or for the network?"));
            }
        }
    }
    let status = child.wait().or_err(ErrorKind::Internal, || format!("cannot wait for {program}"))?;
    if !status.success() {
        let said = if complaint.is_empty() { "and said nothing".to_owned() } else { format!("and said: {complaint}") };
        return Err(failed(format!("failed with {status} {said}")));
    }
    let output = output.expect("three reports came, one of them the output");
    output.map_err(|e| failed("printed something unusable".into()).source(e))
}

/// Starts the threads that read what a command prints and await its end, without reaping it.
fn watch(child: &mut Child) -> mpsc::Receiver<Report> {
    let (sender, reports) = mpsc::channel();
    let pid = Pid::from_child(child);
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (to_output, to_complaint) = (sender.clone(), sender.clone());
    // A receiver that gave up no longer listens; then there is nobody to tell.
    std::thread::spawn(move || to_output.send(Report::Output(read_bounded(stdout))));
    std::thread::spawn(move || {
        let text = read_bounded(stderr).map(|b| String::from_utf8_lossy(&b).trim().to_owned());
        to_complaint.send(Report::Complaint(text.unwrap_or_default()))
    });
    std::thread::spawn(move || {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        sender.send(Report::Ended)
    });
    reports
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn command(script: &str) -> SecretRef {
        SecretRef::Command(vec!["sh".into(), "-c".into(), script.into()])
    }

    fn message(secret: &SecretRef) -> String {
        let error = secret.resolve().expect_err("must be refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        format!("{} {}", error.message(), error.hints().join(" "))
    }

    #[test]
    fn one_line_end_is_trimmed_and_nothing_else() {
        for (printed, expected) in [("a b\\n", "a b"), ("a\\n\\n", "a\n"), ("a\\r\\n", "a"), (" a", " a")] {
            let secret = command(&format!("printf '{printed}'")).resolve().expect("resolves");
            assert_eq!(secret.expose_secret(), expected);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("key");
        std::fs::write(&path, "hunter2\n").expect("written");
        let secret = SecretRef::File(path.clone());
        for mode in [0o644, 0o640, 0o604, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let message = message(&secret);
            assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
            assert!(!message.contains("hunter2"));
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(secret.resolve().expect("resolves").expose_secret(), "hunter2");
        }
    }

    #[test]
    fn absent_and_empty_secrets_are_refused() {
        let unset = SecretRef::Env("LIFEBOAT_TEST_NEVER_SET".into());
        assert!(message(&unset).contains("LIFEBOAT_TEST_NEVER_SET, which should hold a secret, is not set"));
        assert!(message(&SecretRef::File("/nowhere/key".into())).contains("/nowhere/key"));
        assert!(message(&SecretRef::File("/".into())).contains("is not a file"));
        assert!(message(&command("true")).contains("is empty"));
        assert!(message(&command("printf '\\377'")).contains("is not text"));
        let path = SecretRef::Env("PATH".into()).resolve().expect("PATH is set");
        assert_eq!(path.expose_secret(), std::env::var("PATH").expect("PATH is set"));
    }

    #[test]
    fn a_failing_command_is_named_with_its_complaint_but_never_its_output() {
        let message = message(&command("echo hunter2; echo 'no such entry' >&2; exit 3"));
        assert!(message.contains("exit status: 3 and said: no such entry"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        let absent = SecretRef::Command(vec!["/nowhere/pass".into()]);
        assert!(absent.resolve().expect_err("absent").message().contains("/nowhere/pass"));
    }

    #[test]
    fn a_command_that_prints_without_end_is_refused() {
        assert!(message(&command("yes | head -c 200000; exit 0")).contains("longer than"));
    }

    #[test]
    fn a_command_that_does_not_end_is_stopped_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("temp dir");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        // The grandchild keeps the fifo open for writing; its end of file proves that it is gone.
        let script = format!("sleep 60 > {} & sleep 60", fifo.display());
        let words = ["sh".to_owned(), "-c".to_owned(), script];
        let (ended, end_of_file) = mpsc::channel();
        std::thread::spawn(move || ended.send(std::fs::read(fifo)));
        let error = from_command(&words, Duration::from_millis(500)).expect_err("does not end");
        assert!(error.message().contains("did not end within 500ms"), "{error}");
        let read = end_of_file.recv_timeout(Duration::from_secs(20)).expect("the grandchild is gone");
        assert!(read.expect("fifo").is_empty());
    }

    #[test]
    fn a_description_never_shows_arguments() {
        let secret = SecretRef::Command(vec!["vault".into(), "--token=hunter2".into()]);
        assert_eq!(secret.to_string(), "the output of vault");
    }
}

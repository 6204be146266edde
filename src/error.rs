//! The one error type of the library.
//!
//! An error says what happened and to what (`what`), what that means for the user's data
//! (`meaning`), and what to do next (`hint`). Its [`ErrorKind`] decides the exit code, in one
//! exhaustive match in `main.rs`. Errors are returned, never logged and returned.

use std::fmt;

/// Result of every fallible library function.
pub type Result<T> = std::result::Result<T, Error>;

/// The classes of failure that a caller (and a script reading exit codes) tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The repository proves that the object asked for does not exist (`wal fetch` only).
    Absent,
    /// The command line asks for something that makes no sense.
    Usage,
    /// A configuration file, a secret reference or a key file is wrong.
    Config,
    /// PostgreSQL, the filestore or another source is unavailable or refuses.
    Source,
    /// The object store cannot be reached or refuses.
    Repository,
    /// Bytes differ from what they must be: damage, tampering, a foreign or cloned cluster.
    Integrity,
    /// The recovery target cannot be reached with what the repository holds.
    NotRecoverable,
    /// A drill or one of its checks failed.
    CheckFailed,
    /// RPO or RTO missed.
    ObjectiveMissed,
    /// A key, an approval, a lock or a blackout forbids it.
    Denied,
    /// Done, with damage named.
    Partial,
    /// A bug or an unexpected state of the host (disk full while restoring, no memory).
    Internal,
    /// Stopped by a signal.
    Interrupted,
}

/// What went wrong, to what, what it means, and what to do next.
pub struct Error {
    kind: ErrorKind,
    what: String,
    meaning: Option<String>,
    hints: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` is a sentence fragment that names the object concerned.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), meaning: None, hints: Vec::new(), source: None }
    }

    /// Says what the failure means for the user's data.
    #[must_use]
    pub fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    /// Adds one thing to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Keeps the underlying error.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what the caller was doing in front: "while …: what".
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, with the causes, in one line.
    pub fn message(&self) -> String {
        let mut line = self.what.clone();
        let mut cause = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }

    /// What it means for the user's data, where that is not obvious.
    pub fn what_it_means(&self) -> Option<&str> {
        self.meaning.as_deref()
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// Shorthand constructors, one per class: `error::config("…")`.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(what: impl Into<String>) -> Error {
            Error::new(ErrorKind::$kind, what)
        }
    )*};
}

constructors! {
    /// Proven absent.
    absent => Absent;
    /// Wrong use of the command line.
    usage => Usage;
    /// Wrong configuration.
    config => Config;
    /// Source unavailable or refusing.
    source => Source;
    /// Object store unavailable or refusing.
    repository => Repository;
    /// Bytes are not what they must be.
    integrity => Integrity;
    /// Target cannot be reached.
    not_recoverable => NotRecoverable;
    /// Drill or check failed.
    check_failed => CheckFailed;
    /// RPO or RTO missed.
    objective_missed => ObjectiveMissed;
    /// Forbidden.
    denied => Denied;
    /// Done, with damage named.
    partial => Partial;
    /// Bug or unexpected state of the host.
    internal => Internal;
    /// Stopped by a signal.
    interrupted => Interrupted;
}

/// Attaches a class and a description to a foreign error.
pub trait ResultExt<T> {
    /// `kind` and `what` for the error, which is kept as the cause.
    fn or_err(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E> ResultExt<T> for std::result::Result<T, E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn or_err(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(kind, what()).source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_every_cause_once() {
        let io = std::io::Error::other("disk on fire");
        let error = source("cannot read /x").source(io).context("while taking a base backup");
        assert_eq!(error.message(), "while taking a base backup: cannot read /x: disk on fire");
        assert_eq!(error.kind(), ErrorKind::Source);
    }
}

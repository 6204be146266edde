//! What a failure of an object store means.
//!
//! It promises that [`Failure::Absent`] is *proof*: PostgreSQL ends a recovery when `wal fetch`
//! reports "absent", so a lost mount, a missing bucket or a proxy's 404 page must never look like an
//! absent object. It relies on the error codes in the body of S3, Azure and GCS answers, and on the
//! wording of `object_store`'s HTTP errors, because their types are private; the contract suite over
//! real HTTP fails when that wording changes.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use object_store::client::HttpError;

use crate::error::{Error, ErrorKind};

/// The classes of failure that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The store says that it has no object of this name.
    Absent,
    /// "Not found", without saying what: an answer to HEAD, or not from an object store at all.
    AbsenceUnproven,
    /// The bucket or container does not exist.
    NoBucket,
    /// An object of this name exists, or writers are in each other's way.
    Exists,
    /// The requested bytes lie beyond the object's end.
    OutOfRange,
    /// Wrong or missing credentials, or a policy forbids it.
    Refused,
    /// Disk or quota is full.
    Full,
    /// The folder may not be written or read by this account.
    Unwritable,
    /// The disk could not confirm that what it shows is durable.
    NotDurable,
    /// The store does not know this operation.
    Unsupported,
    /// Trying again cannot help, for another reason.
    Permanent,
    /// Trying again may help.
    Transient,
}

impl Failure {
    /// Failures that trying again cannot cure.
    pub(super) fn is_permanent(self) -> bool {
        !matches!(self, Failure::Transient | Failure::AbsenceUnproven)
    }
}

/// The disk shows an object that it could not confirm as durable.
#[derive(Debug)]
pub(super) struct NotDurable {
    pub(super) path: String,
    pub(super) cause: String,
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is visible, but the disk did not confirm that it is durable: {}", self.path, self.cause)
    }
}

impl StdError for NotDurable {}

/// What `object_store` writes before status and body of an HTTP answer.
const STATUS: &str = "Server returned non-2xx status code: ";

/// What it writes when S3 redirects without a place to go, which is how S3 answers for a wrong region.
const BARE_REDIRECT: &str = "Received redirect without LOCATION";

/// S3 error codes of 4xx answers that trying again may cure: the request was damaged or cut on its way.
const CURABLE_CODES: [&str; 7] = [
    "<Code>RequestTimeout</Code>",
    "<Code>IncompleteBody</Code>",
    "<Code>BadDigest</Code>",
    "<Code>XAmzContentSHA256Mismatch</Code>",
    "<Code>SlowDown</Code>",
    "<Code>OperationAborted</Code>",
    "<Code>ServerBusy</Code>",
];

/// Sorts a failure into its class.
pub(super) fn classify(failure: &object_store::Error) -> Failure {
    use object_store::Error as E;
    let text = causes(failure);
    if let Some((_, answer)) = text.split_once(STATUS) {
        return classify_answer(failure, answer);
    }
    if find::<HttpError>(failure).is_some() {
        return Failure::Transient; // no answer at all, or one that broke off
    }
    if text.contains(BARE_REDIRECT) {
        return Failure::Permanent;
    }
    if find::<NotDurable>(failure).is_some() {
        return Failure::NotDurable;
    }
    match failure {
        E::NotFound { .. } => Failure::Absent,
        E::AlreadyExists { .. } => Failure::Exists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Failure::Refused,
        E::NotImplemented { .. } | E::NotSupported { .. } => Failure::Unsupported,
        E::Generic { .. } | E::JoinError { .. } => {
            let kind = find::<io::Error>(failure).map(io::Error::kind);
            match kind {
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
                    Failure::Full
                }
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => Failure::Unwritable,
                Some(io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory) => Failure::Permanent,
                // `DeleteObjects` reports refusals one by one inside a successful answer.
                _ if text.contains("(code: AccessDenied)") => Failure::Refused,
                // The local file system's error type for this is private.
                None if text.contains("Wanted range starting at") => Failure::OutOfRange,
                _ => Failure::Transient,
            }
        }
        _ => Failure::Permanent,
    }
}

/// `answer` is "404 Not Found: <body>".
fn classify_answer(failure: &object_store::Error, answer: &str) -> Failure {
    let (status, body) = answer.split_at_checked(3).unwrap_or_default();
    let says = |codes: &[&str]| codes.iter().any(|code| body.contains(code));
    if says(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]) {
        return Failure::NoBucket;
    }
    if says(&["<Code>NotImplemented</Code>"]) {
        return Failure::Unsupported;
    }
    match status.parse::<u16>().unwrap_or_default() {
        404 if says(&["NoSuchKey", "BlobNotFound", "NoSuchObject", "No such object"]) => Failure::Absent,
        404 => Failure::AbsenceUnproven,
        409 | 412 if matches!(failure, object_store::Error::AlreadyExists { .. }) => Failure::Exists,
        416 => Failure::OutOfRange,
        401 | 403 => Failure::Refused,
        405 | 501 => Failure::Unsupported,
        408 | 409 | 425 | 429 => Failure::Transient,
        300..=499 if says(&CURABLE_CODES) => Failure::Transient,
        300..=499 => Failure::Permanent,
        _ => Failure::Transient,
    }
}

/// The texts of all causes; some layers do not repeat those below.
fn causes(failure: &object_store::Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The first cause of type `T`.
fn find<T: StdError + 'static>(failure: &object_store::Error) -> Option<&T> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(failure);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether a store that deletes many at once refused one object and would again.
pub(super) fn is_refusal(failure: &object_store::Error) -> bool {
    const PASSING: [&str; 6] =
        ["InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ServerBusy"];
    let text = causes(failure);
    let code = text.split_once("(code: ").and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
    classify(failure) == Failure::Refused || code.is_some_and(|code| !PASSING.contains(&code))
}

/// Why the store refused, in its own words.
pub(super) fn refusal(failure: &object_store::Error) -> String {
    let text = causes(failure);
    let message = text.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    message.map_or(text.clone(), |(message, _)| message.to_owned()).chars().take(200).collect()
}

/// The failure of an operation as the program reports it.
pub(super) fn describe(operation: &str, key: &str, url: &str, failure: object_store::Error, tried: Duration) -> Error {
    let class = classify(&failure);
    let skewed = causes(&failure).contains("RequestTimeTooSkewed");
    let error = Error::new(ErrorKind::Repository, format!("cannot {operation} {key} in {url}"));
    let error = match class {
        Failure::Refused if skewed => error
            .meaning("the store refuses requests because this host's clock is wrong; nothing was changed")
            .hint("set this host's clock (NTP), then run the same command again"),
        Failure::Refused => error
            .meaning("the store refuses these credentials; nothing was changed")
            .hint("check access_key_id, secret_access_key and the bucket's policy, then run `lifeboat doctor`"),
        Failure::Full => error
            .meaning("the repository's disk or quota is full; nothing half-written is visible")
            .hint("free or add space, then run the same command again"),
        Failure::Unwritable => error
            .meaning("this account may not use the repository's folder; nothing was changed")
            .hint("check owner and mode of the folder, and that it is not mounted read-only"),
        Failure::NotDurable => error
            .meaning("the object may be lost at the next power failure, so it is not reported as safe")
            .hint("look for disk errors (`dmesg`), then run the same command again: it will compare and confirm"),
        Failure::NoBucket => error
            .meaning("the bucket does not exist, or the endpoint is another one; nothing was changed")
            .hint("check repository.url and repository.endpoint; Lifeboat never creates buckets"),
        Failure::Unsupported => error
            .meaning("the store does not know an operation that Lifeboat needs; nothing was changed")
            .hint("see docs/providers.md for stores that work"),
        Failure::Permanent => error
            .meaning("the store refused the request as wrong, so it was not tried again")
            .hint("check repository.url, endpoint and region, then run `lifeboat doctor`"),
        _ => Error::new(
            ErrorKind::Repository,
            format!("cannot {operation} {key} in {url} (tried for {} s)", tried.as_secs()),
        )
        .meaning("nothing was reported as safe that is not known to be in the repository")
        .hint("check that the store is reachable, then run `lifeboat doctor`"),
    };
    error.source(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, body: &str) -> Failure {
        let source = format!("Error performing GET http://x/y in 5ms - {STATUS}{status}: {body}");
        let not_found = status.starts_with("404");
        classify(&match not_found {
            true => object_store::Error::NotFound { path: "y".into(), source: source.into() },
            false => object_store::Error::Generic { store: "S3", source: source.into() },
        })
    }

    #[test]
    fn only_an_answer_about_the_object_proves_absence() {
        assert_eq!(answer("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"), Failure::Absent);
        assert_eq!(answer("404 Not Found", "<Error><Code>BlobNotFound</Code></Error>"), Failure::Absent);
        assert_eq!(answer("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>"), Failure::NoBucket);
        assert_eq!(answer("404 Not Found", ""), Failure::AbsenceUnproven);
        assert_eq!(answer("404 Not Found", "<html>nginx</html>"), Failure::AbsenceUnproven);
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (status, body) in [
            ("500 Internal Server Error", ""),
            ("503 Service Unavailable", "<Code>SlowDown</Code>"),
            ("429 Too Many Requests", ""),
            ("400 Bad Request", "<Code>RequestTimeout</Code>"),
            ("400 Bad Request", "<Code>BadDigest</Code>"),
        ] {
            assert_eq!(answer(status, body), Failure::Transient, "{status} {body}");
        }
        assert_eq!(answer("403 Forbidden", "<Code>AccessDenied</Code>"), Failure::Refused);
        assert_eq!(answer("400 Bad Request", "<Code>InvalidArgument</Code>"), Failure::Permanent);
        assert_eq!(answer("301 Moved Permanently", "<Code>PermanentRedirect</Code>"), Failure::Permanent);
        assert_eq!(answer("501 Not Implemented", "<Code>NotImplemented</Code>"), Failure::Unsupported);
        assert_eq!(answer("416 Range Not Satisfiable", "<Code>InvalidRange</Code>"), Failure::OutOfRange);
    }
}

//! From the class of an error to the exit code: the one place where they meet (DESIGN, "Exit codes").

use crate::error::ErrorKind;

/// The exit code for a class of failure.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Absent => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Config => 3,
        ErrorKind::Source => 4,
        ErrorKind::Repository => 5,
        ErrorKind::Integrity => 6,
        ErrorKind::NotRecoverable => 7,
        ErrorKind::CheckFailed => 8,
        ErrorKind::ObjectiveMissed => 9,
        ErrorKind::Denied => 10,
        ErrorKind::Partial => 11,
        ErrorKind::Internal => 70,
        ErrorKind::Interrupted => 130,
    }
}

/// The exit code of `wal fetch`: PostgreSQL reads 1 to 125 as "no such file, end of WAL, promote" and
/// only what is above as a failure (`src/common/wait_error.c`), so every failure but a proven absence
/// is lifted above 125.
pub(crate) fn fetch_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Absent => 1,
        other => code(other).saturating_add(128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proven_absence_lets_postgresql_end_recovery() {
        assert_eq!(fetch_code(ErrorKind::Absent), 1);
        for kind in
            [ErrorKind::Usage, ErrorKind::Config, ErrorKind::Repository, ErrorKind::Integrity, ErrorKind::Interrupted]
        {
            assert!(fetch_code(kind) > 125, "{kind:?}");
        }
    }
}

//! From the class of an error to the exit code: the one place where they meet (DESIGN, "Exit codes").

use std::ffi::OsString;

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

/// The exit code for a command line that was not understood; PostgreSQL must not take a misspelt
/// `restore_command` for the end of WAL.
pub(crate) fn refused_arguments(code: u8, arguments: impl Iterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.collect();
    let said = |word: &str| arguments.iter().any(|a| a == word);
    if (said("wal") && said("fetch") || said("wal-hand-over")) && code != 0 { code.saturating_add(128) } else { code }
}

/// A panic would end the program with 101, which PostgreSQL takes for the end of WAL.
pub(crate) fn guard_restore_command() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(i32::from(fetch_code(ErrorKind::Internal)));
    }));
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

    #[test]
    fn a_misspelt_restore_command_does_not_end_recovery() {
        let refused = |line: &str| refused_arguments(2, line.split(' ').map(OsString::from));
        assert_eq!(refused("lifeboat wal fetch --enviroment production x y"), 130);
        assert_eq!(refused("lifeboat wal --format json fetch"), 130);
        assert_eq!(refused("lifeboat wal push"), 2);
        assert_eq!(refused_arguments(0, ["wal", "fetch", "--help"].map(OsString::from).into_iter()), 0);
    }
}

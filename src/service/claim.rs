//! The state directory as the own of one service: two would do everything twice on one host.
//!
//! The lock is the kernel's and ends with the process, however that ends. So whoever holds it knows that the services
//! before it on this state directory are dead, and that leases which still stand under their names are nobody's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::StateDir;

/// Dead services that are remembered: each may have left leases that have not expired yet.
const REMEMBERED: usize = 8;

/// A claimed state directory; it is free again when this is dropped.
#[derive(Debug)]
pub struct Claim {
    file: File,
    /// A random name of this run of the service.
    pub process: String,
    /// Names of runs before it that may not have given up their leases.
    pub dead: Vec<String>,
}

impl Claim {
    /// Claims the state directory.
    ///
    /// # Errors
    /// Config, where another service has it or it cannot be written.
    pub fn take(state: &StateDir) -> Result<Self> {
        let path = state.path().join("service.lock");
        let failed = || format!("cannot use {}", path.display());
        std::fs::create_dir_all(state.path()).or_err(ErrorKind::Config, failed)?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.or_err(ErrorKind::Config, failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(error::config(format!("another service uses {}", state.path().display()))
                    .meaning("two services may share a repository, but not a state directory; nothing was begun")
                    .hint("`lifeboat service status` asks the other one")
                    .hint("stop it, or give each its own `[keys] state_dir`"));
            }
            Err(TryLockError::Error(e)) => return Err(e).or_err(ErrorKind::Config, failed),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).or_err(ErrorKind::Config, failed)?;
        let dead: Vec<String> = text.lines().take(REMEMBERED).map(str::to_owned).collect();
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| error::internal("the operating system gives no random numbers"))?;
        let mut claim = Self { file, process: hex::encode(id), dead };
        let names: Vec<String> = std::iter::once(&claim.process).chain(&claim.dead).cloned().collect();
        match claim.write(&names) {
            // It serves, and should it die, the next one waits for the end of its leases.
            Err(full) if full.kind() == std::io::ErrorKind::StorageFull => {}
            written => written.or_err(ErrorKind::Config, failed)?,
        }
        Ok(claim)
    }

    /// Notes that this run has given up all leases: the next one owes it nothing.
    pub fn end(mut self) {
        // Otherwise the next one finds leases of ours that were given up, which is no harm.
        let _ = self.write(&[]);
    }

    fn write(&mut self, names: &[String]) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        names.iter().try_for_each(|name| writeln!(self.file, "{name}"))?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_at_a_time_and_the_next_knows_who_died() {
        let folder = tempfile::tempdir().expect("folder");
        let state = StateDir::new(folder.path());
        let first = Claim::take(&state).expect("free");
        assert_eq!(Claim::take(&state).expect_err("taken").kind(), ErrorKind::Config);
        let name = first.process.clone();
        drop(first);
        let second = Claim::take(&state).expect("free again");
        assert_eq!(second.dead, [name]);
        second.end();
        assert!(Claim::take(&state).expect("free").dead.is_empty(), "it ended in order");
    }
}

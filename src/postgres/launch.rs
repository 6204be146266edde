//! How the programs of a restored copy are started: as they are, or inside a sandbox.
//!
//! Whoever starts PostgreSQL, its tools or Odoo on restored data asks a [`Launch`] for the command and
//! adds arguments, environment and working directory. The command's process stands for the program:
//! it ends when the program ends, with its exit code, and SIGINT, SIGQUIT and SIGTERM reach the program.

use std::fmt::Debug;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::account::Account;

/// Starts programs on restored data.
pub trait Launch: Debug + Send + Sync {
    /// A command that runs `program` (absolute) as the unprivileged account of restored servers, with an
    /// environment that holds nothing but `LC_ALL`, `PATH` and `TZ` until the caller adds to it.
    fn command(&self, program: &Path) -> Command;

    /// Whether `program` is there, where it would be started.
    fn has(&self, program: &Path) -> bool {
        program.exists()
    }
}

/// On this host, beside everything else that runs there.
#[derive(Debug, Clone)]
pub struct OnHost {
    /// The account to switch to; `None` stays the running one.
    pub account: Option<Account>,
}

impl Launch for OnHost {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        bare_environment(&mut command);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

/// Leaves of the environment what every program of a restored copy needs, and nothing of production's.
pub fn bare_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
}

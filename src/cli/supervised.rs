//! Options by which `lifeboat serve` runs commands as its jobs; hidden, because nobody types them.

use clap::{Args, ValueEnum};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::logs::{self, LogFormat};
use super::{Format, event_lines, terminal};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::runtime::Runtime;

// Groups of arguments are named after their types, and that of the program is called so too.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// How the program that started this one is told what happens, on standard error
    #[arg(long, global = true, hide = true, value_enum)]
    events: Option<EventFormat>,

    /// The process that started this one; this one ends with it
    #[arg(long, global = true, hide = true, value_name = "PID")]
    parent: Option<i32>,

    /// Take the configuration from standard input, as the program that started this one has it
    #[arg(long, global = true, hide = true)]
    config_from_stdin: bool,
}

/// How events are told to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventFormat {
    /// One JSON object a line
    Json,
}

impl Arguments {
    /// Has the kernel kill this process when the thread that started it ends, and fails where its process is gone
    /// already. SIGKILL, because a job that hangs must end too; every command can be killed anywhere.
    pub(super) fn bind(&self) -> Result<()> {
        let Some(parent) = self.parent else { return Ok(()) };
        set_pdeathsig(Signal::SIGKILL)
            .or_err(ErrorKind::Internal, || "cannot bind this process to its parent".to_owned())?;
        // It may have ended before the kernel was asked.
        match getppid().as_raw() == parent {
            true => Ok(()),
            false => Err(error::interrupted(format!("process {parent}, which started this one, is gone"))
                .meaning("nothing was done")),
        }
    }

    /// The runtime of the command: where its events go.
    pub(super) fn runtime(&self, format: Format, log: LogFormat) -> Runtime {
        match (self.events, log) {
            (Some(EventFormat::Json), _) => event_lines::runtime(),
            (None, LogFormat::Json) => logs::runtime(),
            (None, LogFormat::Text) => terminal::runtime(format),
        }
    }

    /// Whether its events are read by a program.
    pub(super) fn is_read(&self) -> bool {
        self.events.is_some()
    }

    /// Whether the configuration comes from standard input.
    pub(super) fn config_from_stdin(&self) -> bool {
        self.config_from_stdin
    }
}

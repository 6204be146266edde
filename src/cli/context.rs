//! What most commands begin with: the estate, its store, its repository.

use std::path::{Path, PathBuf};

use crate::config::{ConfigText, Effect, Environment, Estate};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::evidence::Fence;
use crate::postgres::block_files::BlockFiles;
use crate::repository::{Repository, StateDir};
use crate::runtime::Runtime;
use crate::schedule::{Calendars, in_force};
use crate::service::access;
use crate::storage::{self, Location, Store};
use crate::vault::RecoveryIdentity;

/// Where the configuration is looked for when none is named.
const DEFAULT_FILES: [&str; 2] = ["lifeboat.toml", "/etc/lifeboat/lifeboat.toml"];

/// The estate that a command works on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) estate: Estate,
    pub(crate) runtime: Runtime,
}

/// Whether somebody wants what a calendar forbids, and by which option that is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Despite<'a> {
    pub(crate) option: &'a str,
    pub(crate) given: bool,
}

/// Which keys a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Those of a host that backs up.
    Write,
    /// The recovery identity.
    Read,
}

impl Context {
    /// Loads the configuration, as calendars make it now: for commands that end.
    pub(crate) fn load(file: Option<&Path>, runtime: Runtime) -> Result<Self> {
        let estate = Estate::load(&config_file(file)?)?;
        Ok(Self { estate: in_force(estate, runtime.now()), runtime })
    }

    /// Loads the configuration as it is written: for the service, which outlives what calendars make of it now.
    pub(crate) fn as_written(file: Option<&Path>, runtime: Runtime) -> Result<Self> {
        Ok(Self { estate: Estate::load(&config_file(file)?)?, runtime })
    }

    /// Refuses to do what a calendar forbids now. `despite` says that it shall be done all the same; then the
    /// calendar is only told about.
    pub(crate) fn allowed(&self, environment: &Environment, effect: Effect, despite: Despite<'_>) -> Result<()> {
        let calendars = Calendars::new(&self.estate);
        let Some(found) = calendars.forbidden(&environment.name, effect, self.runtime.now()) else { return Ok(()) };
        let title = found.title.map(|title| format!(" ({title})")).unwrap_or_default();
        let what = if effect == Effect::ForbidDrills { "drills" } else { "restores" };
        let until =
            found.until.map(|until| format!(" until {}", until.format("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
        let told = format!("the calendar {}{title} forbids {what} of {}{until}", found.calendar, environment.name);
        match despite.given {
            true => {
                self.runtime.emit(Event::Warning(format!("{told}; `{}` was given", despite.option)));
                Ok(())
            }
            false => Err(error::denied(told)
                .meaning("nothing was touched")
                .hint(format!("wait, or give `{}` if it must be now", despite.option))),
        }
    }

    /// Takes the configuration from standard input, as the service that started this command has it; what has
    /// become of the files since does not matter.
    pub(crate) fn from_stdin(runtime: Runtime) -> Result<Self> {
        let text: ConfigText = serde_json::from_reader(std::io::stdin().lock())
            .or_err(ErrorKind::Config, || "standard input holds no configuration".to_owned())?;
        let estate = Estate::from_text(&text)?;
        Ok(Self { estate: in_force(estate, runtime.now()), runtime })
    }

    /// The environment called `name`.
    pub(crate) fn environment(&self, name: &str) -> Result<&Environment> {
        self.estate.environment(name)
    }

    /// Where the repository is, credentials fetched.
    pub(crate) fn location(&self) -> Result<Location> {
        access::location(&self.estate.repository)
    }

    /// Opens the store.
    pub(crate) async fn store(&self) -> Result<Store> {
        storage::open(&self.location()?, &self.runtime).await
    }

    /// Opens the repository with the keys that the command needs.
    pub(crate) async fn repository(&self, keys: Keys) -> Result<Repository> {
        let store = self.store().await?;
        let recovery = match keys {
            Keys::Write => None,
            Keys::Read => Some(self.recovery()?.ok_or_else(|| {
                error::denied("no recovery identity is configured, so data in the repository cannot be read")
                    .meaning("a host that only backs up holds no key that opens backups; that is by design")
                    .hint("set `[keys] identity = { file = \"recovery.key\" }` on the host that restores")
            })?),
        };
        Ok(Repository::open(&store, &self.state_dir(), recovery.as_ref()).await?.fenced(fence()?))
    }

    /// Opens the repository to look at what is not data: with the keys of this host where it has them, so that a recovery
    /// key that is not there is no obstacle; else with the recovery identity.
    pub(crate) async fn readable(&self) -> Result<Repository> {
        match self.repository(Keys::Write).await {
            Err(without) if without.kind() == ErrorKind::Config => match self.recovery()? {
                Some(recovery) => Repository::open(&self.store().await?, &self.state_dir(), Some(&recovery)).await,
                None => Err(without),
            },
            other => other,
        }
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> StateDir {
        StateDir::new(&self.estate.keys.state_dir)
    }

    /// Where this host keeps which blocks of an environment change.
    pub(crate) fn block_files(&self, environment: &Environment) -> BlockFiles {
        BlockFiles::new(&self.state_dir(), &environment.name, &self.runtime)
    }

    /// The recovery identity, where one is configured.
    pub(crate) fn recovery(&self) -> Result<Option<RecoveryIdentity>> {
        access::recovery(&self.estate)
    }

    /// zstd level of packs and WAL.
    pub(crate) fn level(&self) -> i32 {
        self.estate.repository.compression_level
    }
}

/// Tells a command under which lease of the service it runs: `production/jobs:7`.
pub(crate) const FENCE: &str = "LIFEBOAT_FENCE";

/// The lease under which this command runs, where the service started it.
fn fence() -> Result<Option<Fence>> {
    match std::env::var(FENCE) {
        Ok(text) => text.parse().map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(other) => Err(error::usage(format!("{FENCE} cannot be read")).source(other)),
    }
}

/// The configuration file that a command uses.
pub(crate) fn config_file(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = named {
        return Ok(file.to_owned());
    }
    DEFAULT_FILES.iter().map(PathBuf::from).find(|f| f.exists()).ok_or_else(|| {
        error::config("there is no configuration: neither ./lifeboat.toml nor /etc/lifeboat/lifeboat.toml exists")
            .hint("name one with `-c FILE`; lifeboat.example.toml is an annotated example")
            .hint("or see everything work first: `lifeboat demo`")
    })
}

/// Name of this host, for people.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".into(), |n| n.to_string_lossy().into_owned())
}

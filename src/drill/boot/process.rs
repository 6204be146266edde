//! The running Odoo: started through the sandbox's `Launch`, watched by its log, ended in any case.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::log::{self, Told};
use super::settings::Settings;
use crate::disk::failed;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::postgres::account::hand_over;

const POLL: Duration = Duration::from_millis(50);
/// How long an Odoo that was asked to stop may take.
const PARTING: Duration = Duration::from_secs(20);

/// A started Odoo; killed when dropped.
#[derive(Debug)]
pub(super) struct Odoo {
    child: Child,
    log: PathBuf,
    began: Instant,
}

/// How waiting for it ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Start {
    /// Its registry is loaded, after so many seconds.
    Loaded(f64),
    /// It will not come up: why.
    Failed(String),
}

impl Odoo {
    /// Writes what it needs and starts it on `database`.
    pub(super) fn start(settings: &Settings<'_>, database: &str, series: u32, config: &str) -> Result<Self> {
        prepare(settings)?;
        let (file, log) = (settings.config_file(database), settings.log(database));
        write_for(&file, config, settings)?;
        write_for(&log, "", settings)?;
        let open = || File::options().append(true).open(&log).map_err(|e| failed("cannot open", &log, e));
        let mut command = settings.around.launch.command(settings.odoo.program());
        command.args(settings.arguments(database, series)).current_dir(settings.data_dir());
        // Nothing of production's: Odoo 19 would read ODOO_* and PG* too. Python needs UTF-8 for its files.
        command.env("LC_ALL", "C.UTF-8").env("HOME", settings.data_dir()).env("PYTHONUNBUFFERED", "1");
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.process_group(0).stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = command
            .spawn()
            .or_err(ErrorKind::Config, || format!("cannot start {}", settings.odoo.program().display()))?;
        Ok(Self { child, log, began: Instant::now() })
    }

    /// Its log up to now.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What its log amounts to up to now.
    pub(super) fn told(&self) -> Told {
        log::read(&self.text())
    }

    /// Waits until the registry is loaded, or never will be.
    pub(super) async fn ready(&mut self, limit: Duration) -> Result<Start> {
        loop {
            let ended = self.child.try_wait().or_err(ErrorKind::Internal, || "cannot watch Odoo".to_owned())?;
            let told = self.told();
            if let Some(status) = ended {
                let why = told.gave_up.map_or_else(String::new, |why| format!(": {why}"));
                return Ok(Start::Failed(format!("Odoo ended before its registry was loaded ({status}){why}")));
            }
            if let Some(why) = told.gave_up {
                return Ok(Start::Failed(why));
            }
            if told.is_loaded {
                return Ok(Start::Loaded(self.began.elapsed().as_secs_f64()));
            }
            if self.began.elapsed() > limit {
                return Ok(Start::Failed(format!(
                    "Odoo did not load its registry within {} s and was ended",
                    limit.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks it to stop, and ends it when it does not.
    pub(super) async fn stop(&mut self) -> Result<()> {
        // It may have ended already; then there is nobody to ask.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT);
        let asked = Instant::now();
        while self.child.try_wait().or_err(ErrorKind::Internal, || "cannot watch Odoo".to_owned())?.is_none() {
            if asked.elapsed() > PARTING {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Odoo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Makes the directories that Odoo writes to; the restored filestore is where it looks for it.
fn prepare(settings: &Settings<'_>) -> Result<()> {
    let data = settings.data_dir();
    for directory in [settings.around.home, &data, settings.around.filestore] {
        if !directory.exists() {
            std::fs::create_dir_all(directory).map_err(|e| failed("cannot create", directory, e))?;
        }
    }
    // Odoo may pass through its home and write below it only: code of the copy must not be able to put a link
    // where Lifeboat writes for the next database.
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(settings.around.home, passable)
        .map_err(|e| failed("cannot open", settings.around.home, e))?;
    hand_over(&data, settings.around.account)?;
    hand_over(settings.around.filestore, settings.around.account)?;
    let link = data.join("filestore");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(settings.around.filestore, &link).map_err(|e| failed("cannot create", &link, e))?;
    }
    Ok(())
}

/// Writes a file for Odoo alone.
fn write_for(path: &Path, text: &str, settings: &Settings<'_>) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| failed("cannot write", path, e))?;
    hand_over(path, settings.around.account)
}

/// The error of an Odoo that could not even be tried.
pub(super) fn not_started(what: &str) -> error::Error {
    error::config(what).meaning("the restored data was not tried with Odoo")
}

//! The journal of a restore: which of its steps are done, so that an interrupted one goes on.
//!
//! It lies in the data directory being restored and is replaced atomically after each step. A
//! directory that holds a journal of the *same* plan may be continued; any other non-empty directory
//! is refused.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::occupied;
use super::plan::Plan;
use crate::disk::{failed, require_empty, sync_dir};
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::repository::coverage::Coverage;

pub(super) const NAME: &str = "lifeboat-restore.json";

/// A step that leaves something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// All files of the base backup are written and durable.
    Files,
    /// Recovery ended at the intended place.
    Recovery,
    /// Attachments are written.
    Filestore,
    /// The configuration is written.
    Configuration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Text {
    plan: String,
    /// A target that resolves to the same place later on, when `latest` is another.
    again: String,
    /// The cluster that is being restored: until it is whole, nothing else in the directory tells.
    #[serde(default)]
    system_id: String,
    done: Vec<Step>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    pgdata: PathBuf,
    text: Text,
    continued: bool,
    took_over: bool,
}

impl Journal {
    /// Opens the journal of an interrupted restore of the same plan with the same directories, or starts
    /// one where every target directory is empty. A delta restore also starts one where an interrupted restore
    /// of the same cluster left off, and where `occupied::admit` accepts what lies in the data directory.
    pub fn open(plan: &Plan, tablespaces: &HashMap<String, PathBuf>, wal: Option<&Coverage>) -> Result<Self> {
        let path = plan.pgdata.join(NAME);
        let identity = identity(plan, tablespaces);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text: Text = serde_json::from_slice(&bytes)
                    .or_err(ErrorKind::Internal, || format!("{} does not parse", path.display()))?;
                if text.plan != identity && plan.delta && (text.system_id == plan.base.system_id || plan.force) {
                    return Self::fresh(plan, identity, true);
                }
                if text.plan != identity {
                    return Err(error::usage(format!(
                        "{} holds an unfinished restore of something else",
                        plan.pgdata.display()
                    ))
                    .meaning("nothing was written")
                    .hint(format!("to finish it, repeat it with the same directories and `--to {}`", text.again))
                    .hint("to begin anew, name another directory, or let `--delta` use what is there"));
                }
                Ok(Self { pgdata: plan.pgdata.clone(), text, continued: true, took_over: false })
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                if plan.delta {
                    let system_id = plan.base.system_id.parse();
                    let system_id = system_id.or_err(ErrorKind::Integrity, || {
                        format!("base backup {} has no system identifier", plan.base.id)
                    })?;
                    occupied::admit(&plan.pgdata, system_id, wal, plan.force)?;
                }
                Self::fresh(plan, identity, false)
            }
            Err(e) => Err(failed("cannot read", &path, e)),
        }
    }

    fn fresh(plan: &Plan, identity: String, took_over: bool) -> Result<Self> {
        for target in plan.targets() {
            require_empty(target).map_err(|e| match target == plan.pgdata {
                true => e.hint(
                    "`--delta` makes a stopped copy of this cluster equal to the backup, and keeps what is right",
                ),
                false => e,
            })?;
        }
        let system_id = plan.base.system_id.clone();
        let text = Text { plan: identity, again: plan.again(), system_id, done: Vec::new() };
        Ok(Self { pgdata: plan.pgdata.clone(), text, continued: false, took_over })
    }

    /// Whether a step was done before.
    pub fn is_done(&self, step: Step) -> bool {
        self.text.done.contains(&step)
    }

    /// Whether nothing was begun before.
    pub fn is_fresh(&self) -> bool {
        !self.continued
    }

    /// Whether an interrupted restore of something else is given up for this one.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// Writes the journal down before the first step: the directory is ours from here on.
    pub fn begin(&self) -> Result<()> {
        std::fs::create_dir_all(&self.pgdata).map_err(|e| failed("cannot create", &self.pgdata, e))?;
        self.save()
    }

    /// Notes that a step is done.
    pub fn done(&mut self, step: Step) -> Result<()> {
        if !self.is_done(step) {
            self.text.done.push(step);
        }
        self.save()
    }

    /// Removes the journal: the restore is complete.
    pub fn finish(self) -> Result<()> {
        let path = self.pgdata.join(NAME);
        std::fs::remove_file(&path).map_err(|e| failed("cannot remove", &path, e))?;
        sync_dir(&self.pgdata)
    }

    fn save(&self) -> Result<()> {
        let (path, new) = (self.pgdata.join(NAME), self.pgdata.join(format!("{NAME}.new")));
        let bytes = serde_json::to_vec(&self.text).expect("a journal is plain data");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|e| failed("cannot write", &path, e))?;
        sync_dir(&self.pgdata)
    }
}

/// What must be equal for a restore to be the same. Every directory counts: only those of the journal's
/// own restore were found empty, and may be written over.
fn identity(plan: &Plan, tablespaces: &HashMap<String, PathBuf>) -> String {
    let target = &plan.target;
    let place = (&plan.environment, &plan.base.id, target.timeline, target.stop_record);
    let tablespaces: BTreeMap<_, _> = tablespaces.iter().collect();
    let directories = (&plan.pgdata, &plan.filestore, &plan.configuration, tablespaces);
    serde_json::to_string(&(place, &plan.steps, directories)).expect("plain data")
}

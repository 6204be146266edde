//! What a container sandbox is like, and what its processes are told on their command lines.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::DrillContainer;
use crate::drill::sandbox::inside::{Door, Programs};
use crate::drill::sandbox::seal::Part;

/// Directory of Lifeboat's program with its loader and libraries, in the drill's directory.
const RUNTIME: &str = "runtime";
/// Directory of the sandbox's own files of `/etc`, in the drill's directory.
const SETTINGS: &str = "etc";
/// Socket that the sandbox's processes report to, among the drill's sockets.
const LINE: &str = "line";

/// What a container sandbox is like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Id of the drill: in the names of its containers, and their label.
    pub drill: String,
    /// The drill's directory; seen inside at its own path, and written.
    pub root: PathBuf,
    /// Its directory for sockets; the same.
    pub short: PathBuf,
    /// Directory in `root` that is `/tmp` inside.
    pub temporary: PathBuf,
    /// Files and directories of this host that are read inside, at their own paths.
    pub readable: Vec<PathBuf>,
    /// Name of the account inside.
    pub account: String,
    /// Its user id, inside and outside.
    pub uid: u32,
    /// Its group id, inside and outside.
    pub gid: u32,
    /// Ways in.
    pub doors: Vec<Door>,
    /// Where attempts to connect out are written, in a directory that programs do not see.
    pub egress: PathBuf,
    /// Size of each of the file systems in memory (`/dev/shm`), in bytes.
    pub memory_files: u64,
    /// Bytes of memory that the engine lets each container have; `None`: no limit.
    pub memory: Option<u64>,
    /// Limits of each program.
    pub programs: Programs,
    /// The engine and the images.
    pub config: DrillContainer,
    /// Major version of PostgreSQL that the image must hold; `None`: any.
    pub major: Option<u32>,
}

impl Spec {
    pub(super) fn runtime(&self) -> PathBuf {
        self.root.join(RUNTIME)
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.root.join(SETTINGS)
    }

    pub(super) fn line(&self) -> PathBuf {
        self.short.join(LINE)
    }

    /// Where the agent of a part listens.
    pub(super) fn agent(&self, part: Part) -> PathBuf {
        self.short.join(part.name())
    }

    /// Directory of what programs do not see.
    pub(super) fn hidden(&self) -> Option<&Path> {
        self.egress.parent()
    }

    /// Name of one of its containers.
    pub(super) fn name(&self, part: &str) -> String {
        format!("lifeboat-{}-{part}", self.drill)
    }

    pub(super) fn gate(&self) -> GateSpec {
        let Self { uid, gid, doors, egress, .. } = self.clone();
        GateSpec { line: self.line(), uid, gid, doors, egress }
    }
}

/// What the gate is told. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GateSpec {
    /// Where it reports, and whose end is its end.
    pub(super) line: PathBuf,
    /// Becomes this user once everything is bound.
    pub(super) uid: u32,
    /// And this group.
    pub(super) gid: u32,
    /// Ways in.
    pub(super) doors: Vec<Door>,
    /// Where attempts are written.
    pub(super) egress: PathBuf,
}

/// What an agent is told. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgentSpec {
    /// Where it reports, and whose end is its end.
    pub(super) line: PathBuf,
    /// Where it listens.
    pub(super) socket: PathBuf,
}

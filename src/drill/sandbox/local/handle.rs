//! The local sandbox as Lifeboat holds it: starts it, launches programs in it, ends it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::enter::Entry;
use super::spec::{Ready, Spec, Told};
use crate::disk::failed;
use crate::drill::sandbox::inside::Refusal;
use crate::drill::sandbox::place::PROGRAM_FILE;
use crate::drill::sandbox::processes;
use crate::drill::sandbox::seal::{Facts, Part, Seal};
use crate::error::{self, Error, ErrorKind, Result, ResultExt};
use crate::postgres::launch::{Launch, bare_environment};
use crate::restore::messenger::place_program;
use crate::runtime::blocking;

/// What the sandbox's own processes say.
const LOG: &str = "sandbox.log";

/// A sandbox that stands; ends when it is dropped.
#[derive(Debug)]
pub struct Local {
    spec: Spec,
    ready: Ready,
    pid: u32,
    /// Holds the PID namespace: while it is open, no other sandbox gets its number in `/proc`.
    _namespace: File,
    started: Mutex<Option<Child>>,
}

impl Local {
    /// Starts a sandbox. `program` is this program; the directories of `spec` must be there. Where this process
    /// is root, the sandbox belongs to the account that `spec` names.
    ///
    /// # Errors
    /// A configuration error where the host does not allow it.
    pub async fn start(program: &Path, spec: Spec) -> Result<Self> {
        let program = program.to_owned();
        blocking(move || Self::start_blocking(&program, spec)).await
    }

    fn start_blocking(program: &Path, spec: Spec) -> Result<Self> {
        let placed = spec.root.join(PROGRAM_FILE);
        place_program(program, &placed)?;
        let log = spec.root.join(LOG);
        let said = File::create(&log).map_err(|e| failed("cannot create", &log, e))?;
        let mut command = as_account(&placed, &spec);
        command.arg(super::START).arg(spec.to_argument()).current_dir("/");
        // A group of its own: a ^C at the terminal is for Lifeboat.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().map_err(|e| {
            error::config(format!("cannot start {}", placed.display())).source(e).hint(format!(
                "`work_dir` in [environment.drill] must not be mounted noexec, and the account {} must be able to pass through the directories above it",
                spec.account
            ))
        })?;
        let out = child.stdout.take().expect("piped");
        let (mut pid, mut ready) = (None, None);
        for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Told::Started(number)) => pid = Some(number),
                Ok(Told::Ready(facts)) => ready = Some(facts),
                Ok(Told::Refused(refusal)) => {
                    drop(child.stdin.take());
                    let _ = child.wait();
                    return Err(refused(&refusal));
                }
                Err(_) => {}
            }
            if pid.is_some() && ready.is_some() {
                break;
            }
        }
        match (pid, ready) {
            (Some(pid), Some(ready)) => {
                let namespace = File::open(format!("/proc/{pid}/ns/pid"));
                let namespace = namespace.or_err(ErrorKind::Internal, || "the sandbox ended at once".to_owned())?;
                Ok(Self { spec, ready, pid, _namespace: namespace, started: Mutex::new(Some(child)) })
            }
            _ => {
                drop(child.stdin.take());
                let _ = child.wait();
                let words = std::fs::read_to_string(&log).unwrap_or_default();
                Err(error::internal(format!("the sandbox did not start: {}", words.trim())))
            }
        }
    }

    /// What it is like.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    fn pid_namespace(&self) -> &str {
        self.ready.namespaces.get("pid").map_or("", String::as_str)
    }

    /// Closes the pipe, so that PID 1 ends; gives who is to be waited for.
    fn let_go(&self) -> Option<Child> {
        let mut child = self.started.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        drop(child.stdin.take());
        Some(child)
    }
}

#[async_trait]
impl Seal for Local {
    fn launch(&self, _part: Part) -> Arc<dyn Launch> {
        let (spec, pid) = (self.spec.clone(), self.pid);
        Arc::new(Inside { entry: Entry { spec, pid, pid_namespace: self.pid_namespace().to_owned() } })
    }

    fn facts(&self) -> Facts {
        Facts {
            kind: "local",
            sealed: true,
            account: self.spec.account.clone(),
            network: "a loopback interface of its own, to which every address leads; no other interface, no route out"
                .into(),
            namespaces: self.ready.namespaces.keys().cloned().collect(),
            landlock_abi: self.ready.confinement.landlock_abi,
            ..Facts::default()
        }
    }

    fn way_in(&self, port: u16) -> Option<PathBuf> {
        self.spec.doors.iter().find(|door| door.port == port).map(|door| door.socket.clone())
    }

    fn processes(&self) -> Vec<u32> {
        processes::of_pid_namespace(self.pid_namespace())
    }

    async fn end(&self) -> Result<()> {
        if let Some(mut child) = self.let_go() {
            // PID 1 may be too busy to see the end of the pipe.
            processes::end(|| self.processes()).await?;
            blocking(move || {
                child.wait().map(drop).or_err(ErrorKind::Internal, || "cannot wait for the sandbox's end".to_owned())
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(mut child) = self.let_go() {
            let _ = child.wait();
        }
    }
}

/// Starts programs in a sandbox.
#[derive(Debug)]
struct Inside {
    entry: Entry,
}

impl Launch for Inside {
    fn command(&self, program: &Path) -> Command {
        let spec = &self.entry.spec;
        let mut command = as_account(&spec.root.join(PROGRAM_FILE), spec);
        let entry = serde_json::to_string(&self.entry).expect("plain data");
        command.arg(super::ENTER).arg(entry).arg(program);
        command
    }
}

/// A command that runs as the sandbox's account, which may be the running one.
fn as_account(program: &Path, spec: &Spec) -> Command {
    let mut command = Command::new(program);
    bare_environment(&mut command);
    if nix::unistd::Uid::effective().is_root() {
        command.uid(spec.uid).gid(spec.gid);
    }
    command
}

/// What to do on a host that does not allow a sandbox.
fn refused(refusal: &Refusal) -> Error {
    if !refusal.policy {
        return error::config(format!("the local sandbox cannot be set up: {}: {}", refusal.what, refusal.why))
            .hint("the account of restored servers must be able to read what the sandbox shows, and to pass through the directories above it")
            .hint("`lifeboat doctor` tries a sandbox alone");
    }
    let what = format!("this host does not allow the local sandbox: {}: {}", refusal.what, refusal.why);
    let mut error = error::config(what)
        .meaning("nothing was restored: a copy of production is not started where nothing keeps it in");
    let says = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    if says("/proc/sys/user/max_user_namespaces") == "0" {
        error = error.hint("allow user namespaces: `sysctl -w user.max_user_namespaces=15000`, and in /etc/sysctl.d/");
    }
    if says("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        error =
            error.hint("allow user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1`, and in /etc/sysctl.d/");
    }
    if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        error = error.hint(
            "allow them to Lifeboat: an AppArmor profile with `userns,` for its program and its drills' work_dir, or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    error
        .hint("inside a container, let it make user namespaces (`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`), or run drills on a host or virtual machine")
        .hint("or set `sandbox = \"none\"` in [environment.drill]: PostgreSQL then runs unsealed beside everything else, Odoo is not started, and the report says so")
}

//! `sandbox:program`: the last process before a program of the sandbox. It gives up what PID 1's user
//! namespace gives (a nested one has no capability over it), hides Lifeboat's own notes, limits resources,
//! forbids new privileges, lets Landlock forbid writing outside the drill's directories, and becomes the program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::chdir;

use super::spec::{Confinement, Spec};
use super::{start, view};
use crate::drill::sandbox::inside::{Refusal, argument};

/// Becomes the program: arguments are the specification, the working directory, the program, its arguments.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let refusal = match become_program(arguments) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    };
    eprintln!("lifeboat: {}: {}", refusal.what, refusal.why);
    ExitCode::from(if refusal.what.starts_with("cannot run") { 127 } else { 125 })
}

/// Confines itself as a program is, and tells how that went.
pub(super) fn probe(arguments: &[OsString]) -> ExitCode {
    let confined = argument::<Spec>(arguments, 0).map_err(|e| unclear(e.message())).and_then(|spec| confine(&spec));
    let say = |value: Option<String>| value.expect("plain data");
    match confined {
        Ok(confinement) => {
            println!("{}", say(serde_json::to_string(&confinement).ok()));
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            eprintln!("{}", say(serde_json::to_string(&refusal).ok()));
            ExitCode::from(125)
        }
    }
}

fn become_program(arguments: &[OsString]) -> Result<std::convert::Infallible, Refusal> {
    let spec: Spec = argument(arguments, 0).map_err(|e| unclear(e.message()))?;
    let [_, directory, program, rest @ ..] = arguments else { return Err(unclear("no program is named".into())) };
    confine(&spec)?;
    chdir(Path::new(directory))
        .map_err(|e| Refusal::new(format!("{} is not in the sandbox", Path::new(directory).display()), e))?;
    SigSet::all().thread_unblock().map_err(|e| Refusal::new("signals cannot be let through", e))?;
    let failure = Command::new(program).args(rest).exec();
    Err(Refusal::io(format!("cannot run {}", Path::new(program).display()), &failure))
}

fn confine(spec: &Spec) -> Result<Confinement, Refusal> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|e| Refusal::new("a nested user namespace cannot be made", e))?;
    start::map(spec.uid, 0, spec.gid, 0)?;
    if let Some(hidden) = spec.hidden() {
        view::hide(hidden)?;
    }
    limit(spec)?;
    // Whoever was started by a process that was killed goes with it.
    set_pdeathsig(Signal::SIGKILL).map_err(|e| Refusal::new("the end of the parent cannot be awaited", e))?;
    set_no_new_privs().map_err(|e| Refusal::new("new privileges cannot be forbidden", e))?;
    let landlock_abi = landlock(spec).map_err(|e| unclear(format!("Landlock: {e}")))?;
    Ok(Confinement { landlock_abi })
}

fn limit(spec: &Spec) -> Result<(), Refusal> {
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_NOFILE, Some(spec.programs.files)),
        (Resource::RLIMIT_NPROC, Some(spec.programs.processes)),
        (Resource::RLIMIT_FSIZE, spec.programs.file_size),
    ];
    for (resource, limit) in wanted {
        let Some(limit) = limit else { continue };
        let failed = |e| Refusal::new("a limit cannot be set", e);
        // What the host allows less of stays as it is.
        let (_, most) = getrlimit(resource).map_err(failed)?;
        setrlimit(resource, limit.min(most), limit.min(most)).map_err(failed)?;
    }
    Ok(())
}

/// Writing, making and removing only below the drill's directories; no signal and no abstract socket to anybody
/// outside this program and its children. What the kernel cannot do is left out; the interface's version tells.
fn landlock(spec: &Spec) -> Result<Option<u32>, RulesetError> {
    const KNOWN: ABI = ABI::V6;
    let writable: Vec<PathBuf> = std::iter::once(spec.root.clone())
        .chain(spec.writable.iter().cloned())
        .chain(["/tmp", "/var/tmp", "/run", "/dev"].map(PathBuf::from))
        .collect();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(KNOWN)))?
        .add_rules(path_beneath_rules(["/proc"], AccessFs::from_read(KNOWN) | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(KNOWN)))?
        .restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(effective_abi as u32),
        _ => None,
    })
}

fn unclear(why: String) -> Refusal {
    Refusal { what: "the program cannot be confined".into(), why, policy: false }
}

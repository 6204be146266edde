//! Whether drills of an environment can be sealed on this host: a sandbox is started and ended.

use super::Findings;
use crate::cli::context::Context;
use crate::cli::drill_conduct::work_dir;
use crate::config::{Environment, SandboxKind};
use crate::drill::sandbox::trial;
use crate::error::{ErrorKind, ResultExt};
use crate::postgres::account::Account;

const NAME: &str = "sandbox for drills";

/// A host that only backs up need not run drills; a warning tells that this one cannot.
pub(super) async fn examine(findings: &mut Findings, context: &Context, environment: &Environment) {
    if environment.drill.sandbox == SandboxKind::None {
        return findings.warning(
            NAME,
            "none: drills run beside everything else, and start no Odoo",
            "set `sandbox = \"local\"` in [environment.drill] where the host allows it",
        );
    }
    let account = Account::for_servers(environment.postgres.run_as.as_deref());
    // A missing account has a finding of its own; a directory that a drill would make is not made here.
    let Ok(account) = account else { return };
    let parent = Some(work_dir(environment)).filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir);
    let program = std::env::current_exe().or_err(ErrorKind::Internal, || "cannot find this program's file".to_owned());
    let tried = match program {
        Ok(program) => {
            let engine = match &environment.drill.sandbox {
                SandboxKind::Container(config) => Some(config),
                SandboxKind::Local | SandboxKind::None => None,
            };
            trial(&program, &parent, account.as_ref(), engine, context.runtime.now()).await
        }
        Err(e) => Err(e),
    };
    match tried {
        Ok(facts) => {
            let more = match (facts.engine, facts.landlock_abi) {
                (Some(engine), _) => engine,
                (None, Some(abi)) => format!("Landlock {abi}"),
                (None, None) => "no Landlock in this kernel".to_owned(),
            };
            findings.ok(NAME, format!("works, as {}: {}; {more}", facts.account, facts.network));
            if !facts.warnings.is_empty() {
                findings.warning(
                    NAME,
                    format!("the engine warns: {}", facts.warnings.join("; ")),
                    "see to it that limits can be enforced",
                );
            }
        }
        Err(failure) => findings.weak(NAME, &failure),
    }
}

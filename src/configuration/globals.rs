//! Roles, memberships, role settings and tablespaces as SQL, by `pg_dumpall --globals-only`.
//!
//! The password travels in the child's environment, never on a command line; the child inherits
//! nothing else, so no `PG*` variable of Lifeboat's own environment redirects it. A role that may
//! not read password hashes still gets everything else, and the export says that they are missing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio_postgres::{Client, Config};

use super::cluster::value;
use super::export::{Collector, ConfigFile};
use crate::postgres::libpq::environment;

const NAME: &str = "postgresql/globals.sql";
const PROGRAM: &str = "pg_dumpall";
const PATIENCE: Duration = Duration::from_secs(120);

/// Collects `globals.sql` from the cluster that `dsn` and `client` both lead to.
pub(crate) async fn collect(
    client: &Client,
    dsn: &Config,
    more_environment: &[(String, String)],
    bin_dir: &Path,
    into: &mut Collector,
) {
    let may = "SELECT pg_catalog.to_jsonb(pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT'))";
    let with_passwords = value(client, may, &[]).await == Ok(serde_json::Value::Bool(true));
    let program = bin_dir.join(PROGRAM);
    let mut command = Command::new(&program);
    command.args(["--globals-only", "--no-password"]);
    if !with_passwords {
        command.arg("--no-role-passwords");
    }
    if let Some(database) = dsn.get_dbname() {
        command.arg(format!("--database={database}"));
    }
    command.env_clear().envs(environment(dsn)).envs(more_environment.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let origin = format!("{PROGRAM} --globals-only, from {}", bin_dir.display());
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            into.add(ConfigFile { name: NAME.into(), origin, mode: None, content: output.stdout });
            if !with_passwords {
                let reason = "role passwords are left out: only superusers may read their hashes";
                into.missing(NAME, "pg_authid", reason);
            }
        }
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            into.missing(NAME, origin, format!("{}: {}", output.status, said.trim()));
        }
        Ok(Err(error)) => into.missing(NAME, origin, format!("cannot run it: {error}")),
        Err(_) => into.missing(NAME, origin, format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

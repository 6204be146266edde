//! Roles, memberships, role settings and tablespaces as SQL, by `pg_dumpall --globals-only`.
//!
//! The password travels in the child's environment, never on a command line; the child inherits
//! nothing else, so no `PG*` variable of Lifeboat's own environment redirects it. A role that may
//! not read password hashes still gets everything else, and the export says that they are missing.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config};

use super::cluster::value;
use super::export::{Collector, ConfigFile};

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

/// A connection configuration as libpq's variables.
fn environment(dsn: &Config) -> Vec<(&'static str, OsString)> {
    let mut set: Vec<(&'static str, OsString)> = vec![
        ("LC_ALL", "C".into()),
        ("PGAPPNAME", "lifeboat".into()),
        ("PGCONNECT_TIMEOUT", dsn.get_connect_timeout().map_or(30, |t| t.as_secs().max(2)).to_string().into()),
        ("PGSSLMODE", ssl_mode(dsn.get_ssl_mode()).into()),
    ];
    let hosts = dsn.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => OsString::from(name),
        Host::Unix(dir) => dir.as_os_str().to_owned(),
    });
    let hosts: Vec<OsString> = hosts.collect();
    if !hosts.is_empty() {
        set.push(("PGHOST", hosts.join(&OsString::from(","))));
    }
    let mut list = |name, values: Vec<String>| {
        if !values.is_empty() {
            set.push((name, values.join(",").into()));
        }
    };
    list("PGHOSTADDR", dsn.get_hostaddrs().iter().map(ToString::to_string).collect());
    list("PGPORT", dsn.get_ports().iter().map(ToString::to_string).collect());
    list("PGUSER", dsn.get_user().map(str::to_owned).into_iter().collect());
    list("PGOPTIONS", dsn.get_options().map(str::to_owned).into_iter().collect());
    if dsn.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
        set.push(("PGTARGETSESSIONATTRS", "read-write".into()));
    }
    if let Some(password) = dsn.get_password() {
        use std::os::unix::ffi::OsStringExt;
        set.push(("PGPASSWORD", OsString::from_vec(password.to_vec())));
    }
    set
}

fn ssl_mode(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Require => "require",
        _ => "prefer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_the_environment_as_it_is() {
        let mut dsn = Config::new();
        dsn.host("a").host_path("/run/pg").port(5433).user("o'dd").password("p:a\\s s'\"wörd=,");
        let set = environment(&dsn);
        let get = |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_str().expect("UTF-8"));
        assert_eq!(get("PGPASSWORD"), Some("p:a\\s s'\"wörd=,"));
        assert_eq!(get("PGHOST"), Some("a,/run/pg"));
        assert_eq!(get("PGPORT"), Some("5433"));
        assert_eq!(get("PGUSER"), Some("o'dd"));
        assert_eq!(get("PGHOSTADDR"), None);
    }
}

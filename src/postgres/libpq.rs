//! What PostgreSQL's own client programs are told about a connection: environment variables, so that no password
//! and no odd database name stands on a command line.

use std::ffi::OsString;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// A connection configuration as libpq's variables; the database only where the configuration names one.
pub fn environment(dsn: &Config) -> Vec<(&'static str, OsString)> {
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
    list("PGDATABASE", dsn.get_dbname().map(str::to_owned).into_iter().collect());
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

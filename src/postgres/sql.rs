//! Ordinary SQL sessions: tokio-postgres with the TLS and the error texts of the replication client.

use std::fmt::Display;

use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::replication::{ServerReport, Session, TlsTrust, client_config, connect_timeout, unreachable};
use crate::error::{self, Error, ErrorKind, Result};

/// [`connect_sql_with`], trusting as `sslmode=prefer` and `require` do.
pub async fn connect_sql(dsn: &Config) -> Result<Client> {
    connect_sql_with(dsn, &TlsTrust::Unverified).await
}

/// Connects to the first host of the DSN that answers. The session ends when the client is dropped;
/// its traffic runs in a task of its own. Each host may take `connect_timeout`, 10 seconds by default.
pub async fn connect_sql_with(dsn: &Config, trust: &TlsTrust) -> Result<Client> {
    let mut dsn = dsn.clone();
    let limit = connect_timeout(&dsn);
    dsn.connect_timeout(limit);
    if dsn.get_application_name().is_none() {
        dsn.application_name("lifeboat");
    }
    let local = !dsn.get_hosts().is_empty() && dsn.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if local {
        // PostgreSQL has no TLS on its local socket; libpq ignores sslmode there, tokio-postgres does not.
        dsn.ssl_mode(SslMode::Disable);
    } else if *trust != TlsTrust::Unverified {
        if dsn.get_ssl_mode() == SslMode::Disable {
            return Err(error::config(
                "the PostgreSQL DSN says sslmode=disable, but its certificate is to be verified",
            ));
        }
        dsn.ssl_mode(SslMode::Require);
    }
    if dsn.get_hosts().is_empty() {
        // The name for TLS; without one, tokio-postgres refuses a server that offers TLS.
        for address in dsn.get_hostaddrs().to_vec() {
            dsn.host(address.to_string());
        }
    }
    let place = Place(&dsn);
    let hosts = u32::try_from(dsn.get_hosts().len().max(1)).unwrap_or(u32::MAX);
    let tls = MakeRustlsConnect::new(client_config(trust)?);
    let limit = limit.saturating_mul(hosts);
    let (client, connection) = match timeout(limit, dsn.connect(tls)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) if error.as_db_error().is_some() => {
            return Err(explain(error, format!("PostgreSQL at {place} refuses the session")));
        }
        Ok(Err(error)) => return Err(unreachable(&place, error)),
        Err(_) => return Err(unreachable(&place, format!("no answer within {} seconds", limit.as_secs_f64()))),
    };
    // Its error reaches every query of the client as "connection closed".
    tokio::spawn(connection);
    Ok(client)
}

/// The error of a failed query; `doing` says what failed ("cannot …").
pub fn explain(error: tokio_postgres::Error, doing: impl Into<String>) -> Error {
    match error.as_db_error() {
        Some(report) => super::replication::explain(
            ServerReport {
                severity: report.severity().into(),
                code: report.code().code().into(),
                message: report.message().into(),
                detail: report.detail().map(Into::into),
                hint: report.hint().map(Into::into),
                routine: report.routine().map(Into::into),
            },
            Session::Sql,
            doing,
        ),
        None => Error::new(ErrorKind::Source, doing).source(error),
    }
}

/// Where a DSN leads, for people.
pub fn place(dsn: &Config) -> String {
    Place(dsn).to_string()
}

/// The hosts of a DSN, for people; never its password.
struct Place<'a>(&'a Config);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = self.0.get_ports();
        for (i, host) in self.0.get_hosts().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(f, "{name}:{port}")?,
                Host::Unix(dir) => write!(f, "{}", dir.join(format!(".s.PGSQL.{port}")).display())?,
            }
        }
        Ok(())
    }
}

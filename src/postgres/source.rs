//! An environment's PostgreSQL cluster, ready to be connected to.

use std::ffi::OsString;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_postgres::{Client, Config};

use super::libpq;
use super::replication::{ConnectOptions, ReplicationConnection, TlsTrust};
use super::sql::{connect_sql_with, explain};
use crate::config::PostgresConfig;
use crate::error::{ErrorKind, Result, ResultExt};

/// How to reach a cluster: address, role, password, TLS.
#[derive(Clone)]
pub struct Source {
    dsn: Config,
    tls: TlsTrust,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.dsn.get_hosts())
    }
}

impl Source {
    /// The cluster of a configured environment; fetches its password.
    pub fn new(config: &PostgresConfig) -> Result<Self> {
        let mut dsn: Config = config.dsn.parse().or_err(ErrorKind::Config, || "the dsn does not parse".to_owned())?;
        if let Some(password) = &config.password {
            dsn.password(password.resolve()?.expose_secret());
        }
        if dsn.get_application_name().is_none() {
            dsn.application_name("lifeboat");
        }
        // A cut network must be noticed on idle SQL sessions too.
        dsn.keepalives_idle(Duration::from_secs(30));
        let tls = config.tls_root.clone().map_or(TlsTrust::Unverified, TlsTrust::RootFile);
        Ok(Self { dsn, tls })
    }

    /// A cluster that no configuration names.
    pub fn of(mut dsn: Config, tls: TlsTrust) -> Self {
        if dsn.get_application_name().is_none() {
            dsn.application_name("lifeboat");
        }
        dsn.keepalives_idle(Duration::from_secs(30));
        Self { dsn, tls }
    }

    /// How programs of PostgreSQL are told to reach a database of it.
    pub fn libpq(&self, database: &str) -> Vec<(&'static str, OsString)> {
        let mut dsn = self.dsn.clone();
        dsn.dbname(database);
        let mut set = libpq::environment(&dsn);
        if let TlsTrust::RootFile(root) = &self.tls {
            set.retain(|(name, _)| *name != "PGSSLMODE");
            set.push(("PGSSLMODE", "verify-full".into()));
            set.push(("PGSSLROOTCERT", root.as_os_str().to_owned()));
        }
        set
    }

    /// The connection parameters, password included.
    pub fn dsn(&self) -> &Config {
        &self.dsn
    }

    /// An SQL session in the configured database.
    pub async fn sql(&self) -> Result<Client> {
        connect_sql_with(&self.dsn, &self.tls).await
    }

    /// An SQL session in another database of the cluster.
    pub async fn sql_in(&self, database: &str) -> Result<Client> {
        let mut dsn = self.dsn.clone();
        dsn.dbname(database);
        connect_sql_with(&dsn, &self.tls).await
    }

    /// The name under which sessions show up in the server, and by which `synchronous_standby_names` knows the
    /// WAL receiver.
    pub fn application_name(&self) -> &str {
        self.dsn.get_application_name().unwrap_or_default()
    }

    /// A replication session.
    pub async fn replication(&self) -> Result<ReplicationConnection> {
        self.connect(&self.dsn).await
    }

    /// A replication session that receives WAL for a base backup. It goes by another name, because it begins where
    /// the backup does: no commit may take it for the receiver, whose WAL has no hole before.
    pub async fn backup_replication(&self) -> Result<ReplicationConnection> {
        let mut dsn = self.dsn.clone();
        dsn.application_name(format!("backup_{}", self.application_name()));
        self.connect(&dsn).await
    }

    async fn connect(&self, dsn: &Config) -> Result<ReplicationConnection> {
        let options = ConnectOptions { tls: self.tls.clone(), ..Default::default() };
        ReplicationConnection::connect_with(dsn, &options).await
    }
}

/// Names of the databases that can be connected to, templates left out.
pub async fn databases(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1", &[])
        .await
        .map_err(|e| explain(e, "cannot list the databases"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

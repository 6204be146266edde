//! A restored cluster for tests: one of Lifeboat's private servers, on the files of a cluster that a test filled.

use std::path::PathBuf;
use std::time::Duration;

use crate::postgres::account::Account;
use crate::postgres::launch::OnHost;
use crate::postgres::server::{PrivateServer, ServerSpec};
pub(super) use crate::test_common as common;
use crate::test_common::{Cluster, Scratch};

/// A cluster whose server is one of Lifeboat's private servers.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) scratch: Scratch,
    pub(super) server: PrivateServer,
    /// Add-ons of the test's own.
    pub(super) addons: PathBuf,
    pub(super) account: Option<Account>,
}

impl Copy {
    /// Fills a cluster, then starts the private server on its files.
    pub(super) async fn new(scratch: Scratch, fill: impl FnOnce(&Cluster)) -> Self {
        let mut cluster = Cluster::builder(&scratch).start();
        fill(&cluster);
        cluster.stop();
        let addons = scratch.join("addons");
        std::fs::create_dir_all(&addons).expect("a directory");
        let account = Account::for_servers(None).expect("an account");
        let launch = OnHost { account: account.clone() };
        let work = scratch.join("private");
        let spec = ServerSpec {
            bin_dir: cluster.bin_dir(),
            pgdata: cluster.data_dir(),
            work_dir: &work,
            account: account.as_ref(),
            launch: &launch,
            settings: vec![("fsync".into(), "off".into())],
            major: cluster.major(),
        };
        let mut server = PrivateServer::start(&spec, "postgres").expect("started");
        server.ready(Some(Duration::from_secs(60))).await.expect("ready");
        Self { scratch, server, addons, account }
    }

    /// A module with a manifest and, perhaps, a script.
    pub(super) fn module(&self, name: &str, script: Option<&str>) {
        let directory = self.addons.join(name);
        std::fs::create_dir_all(directory.join("data")).expect("a directory");
        std::fs::write(directory.join("__manifest__.py"), "{'name': 'x'}").expect("a manifest");
        if let Some(script) = script {
            std::fs::write(directory.join("data/neutralize.sql"), script).expect("a script");
        }
    }

    pub(super) async fn psql(&self, database: &str, sql: &str) {
        let told = self.server.sql(database).await.expect("a session").batch_execute(sql).await;
        told.unwrap_or_else(|e| panic!("{sql}: {:?}", e.as_db_error()));
    }

    pub(super) async fn ask(&self, database: &str, sql: &str) -> String {
        let row = self.server.sql(database).await.expect("a session").query_one(sql, &[]).await.expect("a row");
        row.get(0)
    }
}

//! An estate with one small Odoo, captured by the program and restored by the library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat::evidence::drill_record::MissingCause;
use lifeboat::evidence::entry::{Body, FilestoreCapture};
use lifeboat::filestore::restore::{self, FilestoreRestored, Request, Verified};
use lifeboat::filestore::{live, referenced};
use lifeboat::repository::catalogue::Catalogue;
use lifeboat::repository::{Repository, StateDir};
use lifeboat::runtime::Runtime;
use lifeboat::storage::{self, Location};
use lifeboat::vault::RecoveryIdentity;
use serde_json::Value;
use sha1::{Digest, Sha1};

use crate::common::{Cluster, Lifeboat, ODOO_TABLES, Output, Scratch, blocking};

/// An estate with one environment, `production`, and one Odoo database, `shop`.
pub(super) struct Estate {
    pub(super) scratch: Scratch,
    pub(super) cluster: Cluster,
    pub(super) data_dir: PathBuf,
    pub(super) recovery: RecoveryIdentity,
    pub(super) lifeboat: Lifeboat,
}

impl Estate {
    pub(super) fn new() -> Self {
        let estate = Self::without_database();
        estate.create("shop");
        estate
    }

    pub(super) fn without_database() -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(&scratch).start();
        let data_dir = scratch.server_dir("odoo");
        let recovery = RecoveryIdentity::generate();
        let lifeboat = Lifeboat::new(scratch.join("lifeboat.toml"));
        let estate = Self { scratch, cluster, data_dir, recovery, lifeboat };
        estate.configure(&estate.cluster.dsn(), "databases = [\"shop\"]", "");
        estate.run("init").ok();
        estate
    }

    pub(super) fn configure(&self, dsn: &str, odoo: &str, configuration: &str) {
        let text = format!(
            "[repository]\nurl = \"file://{repository}\"\n[keys]\nrecipients = [\"{recipient}\"]\nstate_dir = \"state\"\n\
             [[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
             [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n\
             [environment.postgres]\ndsn = \"{dsn}\"\n\
             [[environment.odoo]]\ndata_dir = \"{data_dir}\"\n{odoo}\n\
             [environment.configuration]\nprocess_environment = false\n{configuration}\n",
            repository = self.scratch.join("repository").display(),
            recipient = self.recovery.recipients()[0],
            data_dir = self.data_dir.display(),
        );
        self.scratch.write("lifeboat.toml", text);
    }

    pub(super) fn create(&self, database: &str) {
        self.cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        self.cluster.psql(database, ODOO_TABLES);
    }

    pub(super) fn run(&self, command: &str) -> Output {
        let mut args: Vec<&str> = command.split(' ').collect();
        if args[0] == "backup" {
            args.extend(["-e", "production", "--format", "json"]);
        }
        self.lifeboat.run(&args)
    }

    /// `backup filestore`, which must end with `code`; the capture of the one database.
    #[track_caller]
    pub(super) fn capture(&self, code: i32) -> Value {
        let json = self.run("backup filestore").expect_code(code).json();
        let captures = json["filestore_captures"].as_array().expect("a list");
        assert_eq!(captures.len(), 1, "{json:#}");
        captures[0].clone()
    }

    pub(super) fn filestore(&self) -> PathBuf {
        self.data_dir.join("filestore/shop")
    }

    /// What Odoo does for an upload: the file, then the row. Returns its name.
    pub(super) fn attach(&self, content: &[u8]) -> String {
        let name = self.put(content);
        self.refer(&name, content.len());
        name
    }

    pub(super) fn put(&self, content: &[u8]) -> String {
        let digits = hex::encode(Sha1::digest(content));
        let name = format!("{}/{digits}", &digits[..2]);
        self.write(&name, content);
        name
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) {
        let path = self.filestore().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        fs::write(path, content).expect("written");
    }

    pub(super) fn refer(&self, name: &str, size: usize) {
        let sql = format!(
            "INSERT INTO ir_attachment (name, res_model, res_id, store_fname, file_size)
             VALUES ('x', 'sale.order', 42, '{name}', {size})"
        );
        self.cluster.psql("shop", &sql);
    }

    pub(super) async fn repository(&self, recovery: Option<&RecoveryIdentity>) -> Repository {
        let location = Location::new(format!("file://{}", self.scratch.join("repository").display()));
        let store = storage::open(&location, &Runtime::silent()).await.expect("store");
        Repository::open(&store, &StateDir::new(&self.scratch.join("state")), recovery).await.expect("repository")
    }

    pub(super) async fn captures(&self, repository: &Repository) -> Vec<FilestoreCapture> {
        let catalogue = Catalogue::load(repository, "production").await.expect("catalogue");
        assert!(catalogue.ledger_problems.is_empty(), "{:?}", catalogue.ledger_problems);
        catalogue.captures().cloned().collect()
    }

    /// Restores what the live database refers to into a new directory, and reads it again.
    pub(super) fn restore(&self, into: &str) -> (FilestoreRestored, Verified) {
        let directory = self.scratch.join(into);
        let (restored, verified) = blocking(async {
            let repository = self.repository(Some(&self.recovery)).await;
            let captures = self.captures(&repository).await;
            let client = self.cluster.connect("shop").await;
            let stop = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("LSN");
            let (live, damaged) = live::index(&repository, "production", "shop", None).await.expect("pieces");
            let request = Request {
                environment: "production",
                live: live.map(Arc::new),
                live_damaged: !damaged.is_empty(),
                captures: captures.iter().filter(|c| c.database == "shop").collect(),
                stop: stop.get::<_, String>(0).parse().expect("LSN"),
                directory: &directory,
                owner: None,
            };
            let wanted = referenced(&client).await.expect("query");
            let restored = restore::restore(&repository, &request, wanted, &Runtime::silent()).await.expect("restored");
            let verified = restore::verify(&directory, referenced(&client).await.expect("query")).await;
            (restored, verified.expect("verified"))
        });
        let files = files_below(&directory);
        assert_eq!(files.len() as u64, restored.present, "nothing else is left in the directory: {files:?}");
        (restored, verified)
    }

    pub(super) fn causes(&self, into: &str) -> Vec<(String, MissingCause)> {
        let mut missing: Vec<_> = self.restore(into).0.missing.into_iter().map(|m| (m.store_fname, m.cause)).collect();
        missing.sort_by(|a, b| a.0.cmp(&b.0));
        missing
    }

    pub(super) fn packs(&self) -> BTreeSet<String> {
        files_below(&self.scratch.join("repository/production/data"))
    }

    pub(super) fn failures(&self) -> Vec<(String, String)> {
        blocking(async {
            let catalogue = Catalogue::load(&self.repository(None).await, "production").await.expect("catalogue");
            let failed = |body: &Body| match body {
                Body::Failure(f) => Some((f.attempted.clone(), f.error_kind.clone())),
                _ => None,
            };
            catalogue.entries.iter().filter_map(|e| failed(&e.statement.predicate.body)).collect()
        })
    }
}

pub(super) fn files_below(directory: &Path) -> BTreeSet<String> {
    let entries = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let files = entries.filter(|e| e.file_type().is_file());
    files.map(|e| e.path().strip_prefix(directory).expect("below").to_string_lossy().into_owned()).collect()
}

pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    aws_lc_rs::rand::fill(&mut content).expect("random");
    content
}

#[track_caller]
pub(super) fn clean((restored, verified): &(FilestoreRestored, Verified), files: u64) {
    assert!(restored.missing.is_empty(), "{:?}", restored.missing);
    assert_eq!((restored.referenced, restored.present, restored.verified), (files, files, files));
    assert_eq!((verified.looked_for, verified.verified, verified.bytes), (files, files, restored.bytes));
    assert_eq!(restored.sizes_differ, 0);
}

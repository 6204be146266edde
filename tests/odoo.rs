//! The real Odoo 19 of the fixtures: restored to a second between two known commits, database,
//! attachments and configuration, from a folder and from an S3 store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha1::{Digest, Sha1};

use crate::common::{Cluster, Estate, Moto, Scratch, fixture_odoo, load_fixture, skip, wait_until};

/// Files that attachments refer to, in the fixture.
const FILES: usize = 906;

/// SHA-1 of each file below `directory`, by its path there; markers of Odoo's own collection left out.
fn digests(directory: &Path) -> BTreeMap<String, String> {
    let files = walkdir::WalkDir::new(directory).into_iter().map(|e| e.expect("readable"));
    let files = files.filter(|e| e.file_type().is_file()).map(|entry| {
        let name = entry.path().strip_prefix(directory).expect("below").display().to_string();
        (name, hex::encode(Sha1::digest(fs::read(entry.path()).expect("readable"))))
    });
    files.filter(|(name, _)| !name.starts_with("checklist")).collect()
}

fn restored_to_the_second(scratch: &Scratch, repository: Option<String>) {
    let Some(fixture) = fixture_odoo() else { skip!("no fixtures (LIFEBOAT_TEST_FIXTURES)") };
    let mut cluster = Cluster::builder(scratch).start();
    let data_dir = scratch.join("odoo");
    load_fixture(&fixture, &cluster, "retail", &data_dir);
    fs::create_dir_all(scratch.join("restore-tests")).expect("a directory");
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/odoo-hard.toml");
    fs::copy(suite, scratch.join("restore-tests/odoo-hard.toml")).expect("the suite");
    let drills = scratch.server_dir("drills");
    let tables = format!(
        "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"retail\"]\n[environment.drill]\nwork_dir = \"{}\"",
        data_dir.display(),
        drills.display()
    );
    let mut builder = Estate::builder(scratch, &cluster).include("restore-tests/*.toml").tables(&tables);
    let remote = repository.is_some();
    if let Some(repository) = repository {
        builder = builder.repository(&repository);
    }
    let estate = builder.init();
    let receiver = estate.receive(&cluster);
    estate.run(&["backup", "all"]).ok();

    let second = || cluster.psql("retail", "SELECT date_trunc('second', clock_timestamp())::text");
    cluster.psql("retail", "UPDATE res_partner SET ref = 'first ' || id");
    let first = second();
    wait_until("a second has passed", std::time::Duration::from_secs(5), || second() != first);
    let target = cluster.psql(
        "retail",
        "SELECT to_char(date_trunc('second', clock_timestamp()) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    let now = second();
    wait_until("a second has passed", std::time::Duration::from_secs(5), || second() != now);
    cluster.psql("retail", "UPDATE res_partner SET ref = 'second'; DELETE FROM mail_message");
    let digest = "SELECT count(*), md5(string_agg(id || coalesce(body, ''), ',' ORDER BY id)) FROM mail_message";
    estate.caught_up(&cluster);
    let originals = digests(&data_dir.join("filestore/retail"));

    // Once is enough: what a drill reads comes through the same door.
    if !remote {
        let passed =
            estate.run(&["drill", "run", "--to", &target, "--report", scratch.path().to_str().expect("UTF-8")]);
        let record = passed.ok().json()["drill"].clone();
        let checks = record["checks"].as_array().expect("checks");
        let hard = |result: &str| checks.iter().filter(|c| c["severity"] == "hard" && c["result"] == result).count();
        assert_eq!((hard("failed"), hard("error")), (0, 0), "{record}");
        assert!(hard("passed") >= 15, "only {} hard checks apply", hard("passed"));
        assert_eq!(record["attachments"][0]["missing"], serde_json::json!([]));
    }

    // Everything is lost.
    receiver.kill9();
    cluster.kill9();
    fs::remove_dir_all(scratch.join("pg")).expect("the cluster");
    fs::remove_dir_all(&data_dir).expect("the filestore");
    let place = estate.place("r");
    let filestore = scratch.join("r/filestore");
    let configuration = scratch.join("r/configuration");
    let directories =
        ["--filestore", filestore.to_str().expect("UTF-8"), "--configuration", configuration.to_str().expect("UTF-8")];
    let done = estate.restore(&target, &place, &directories).ok().json();
    assert_eq!(done["restore"]["missing_attachments"], serde_json::json!([]), "{done}");
    let copy = Cluster::adopt(scratch, &place, cluster.major());
    let refs = "SELECT count(*) FILTER (WHERE ref = 'first ' || id) = count(*), count(*) > 40 FROM res_partner";
    assert_eq!(copy.psql("retail", refs), "t|t", "not the state between the two commits");
    assert_ne!(copy.psql("retail", digest).split('|').next(), Some("0"), "the second commit is there");
    let restored = digests(&filestore.join("retail"));
    assert_eq!(restored.len(), FILES);
    for (name, digest) in &restored {
        assert!(name.ends_with(digest.as_str()), "{name} holds {digest}");
        assert_eq!(originals.get(name), Some(digest), "{name}");
    }
    let referenced = copy.psql("retail", "SELECT count(DISTINCT store_fname) FROM ir_attachment");
    assert_eq!(referenced, FILES.to_string());
    assert!(walkdir::WalkDir::new(&configuration).into_iter().count() > 3, "no configuration was written");
}

#[test]
fn odoo_comes_back_to_a_second_from_a_folder() {
    restored_to_the_second(&Scratch::new(), None);
}

#[test]
fn odoo_comes_back_to_a_second_from_s3() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto (LIFEBOAT_TEST_MOTO)") };
    moto.create_bucket("backups");
    restored_to_the_second(&scratch, Some(Estate::s3("backups", &moto.endpoint())));
}

//! Attachments that no capture covers, several data directories, unchanged directories.

use std::fs;
use std::time::Duration;

use super::estate::{Estate, clean};
use crate::common::wait_until;

#[test]
fn attachments_in_object_stores_are_counted_and_named_everywhere() {
    let estate = Estate::new();
    estate.attach(b"in the filestore");
    estate.cluster.psql(
        "shop",
        "INSERT INTO ir_attachment (name, type, store_fname, file_size, url) VALUES
         ('a', 'binary', 's3://acme-odoo/12/3456', 1000, NULL), ('b', 'binary', 's3://acme-odoo/12/3457', 24, NULL),
         ('c', 'binary', 'fs_docs://abc', 5, NULL), ('d', 'binary', 'nonsense', 5, NULL),
         ('e', 'cloud_storage', NULL, NULL, 'https://acme.blob.core.windows.net/c/x'),
         ('f', 'url', NULL, NULL, 'https://example.com')",
    );
    let capture = estate.capture(0);
    let expected = serde_json::json!([
        { "storage": "cloud_storage", "attachments": 1, "bytes": 0, "place": "acme.blob.core.windows.net" },
        { "storage": "fs_docs", "attachments": 1, "bytes": 5, "place": null },
        { "storage": "s3", "attachments": 2, "bytes": 1024, "place": "acme-odoo" },
        { "storage": "unknown", "attachments": 1, "bytes": 0, "place": null },
    ]);
    assert_eq!(capture["filestore_capture"]["not_covered"], expected);
    let words = "2 attachments (1.0 KiB) in s3 at acme-odoo";
    for command in [&["backup", "filestore", "-e", "production"][..], &["show", "-e", "production"], &["doctor"]] {
        let said = estate.lifeboat.run(command);
        assert!(said.stdout.contains(words), "{command:?}: {}", said.stdout);
    }
}

#[test]
fn a_database_belongs_to_one_of_several_data_directories_and_doctor_says_what_does_not_fit() {
    let estate = Estate::new();
    estate.attach(b"in the first data directory");
    let second = estate.scratch.server_dir("odoo2");
    estate.create("second");
    estate.cluster.psql("second", "UPDATE ir_config_parameter SET value = '99999999-2222-3333-4444-555555555555'");
    let odoo = |databases: &str| format!("[[environment.odoo]]\ndata_dir = \"{}\"\n{databases}", second.display());
    estate.configure(&estate.cluster.dsn(), &odoo(""), "");
    fs::rename(estate.filestore(), estate.scratch.join("kept")).expect("moved");
    fs::create_dir_all(second.join("filestore/second/ab")).expect("created");
    fs::create_dir_all(second.join("filestore/dropped")).expect("created");
    let doctor = || {
        let json = estate.lifeboat.run(&["--format", "json", "doctor"]).json();
        let findings = json["findings"].as_array().expect("a list").clone();
        let told = |f: &serde_json::Value| {
            (f["name"] == "filestores")
                .then(|| format!("{} {}", f["state"].as_str().expect("text"), f["words"].as_str().expect("text")))
        };
        findings.iter().filter_map(told).collect::<Vec<_>>().join("\n")
    };
    let said = doctor();
    assert!(said.contains("fail shop refers to files, but there is no directory"), "{said}");
    assert!(said.contains("filestore/dropped belongs to no database"), "{said}");
    assert!(said.contains("ok second: its files are in"), "{said}");

    // The same files below the other data directory: found there, where no list says otherwise.
    fs::rename(estate.scratch.join("kept"), second.join("filestore/shop")).expect("moved");
    let json = estate.run("backup filestore").ok().json();
    let captures = json["filestore_captures"].as_array().expect("a list");
    let shop = captures.iter().find(|c| c["filestore_capture"]["database"] == "shop").expect("captured");
    assert_eq!(shop["filestore_capture"]["data_dir"], second.to_str().expect("UTF-8"));
    assert_eq!((captures.len(), &shop["filestore_capture"]["files_new"]), (2, &1.into()));
    assert!(!doctor().contains("fail"), "{}", doctor());
}

#[test]
fn directories_that_did_not_change_are_not_listed_and_the_others_are() {
    let estate = Estate::new();
    let names: Vec<String> = (0..40).map(|n| estate.attach(format!("file {n}").as_bytes())).collect();
    // A directory that was just touched is listed again, so wait until none is.
    let settled = || estate.cluster.psql("postgres", "SELECT extract(epoch FROM clock_timestamp())");
    let from: f64 = settled().parse().expect("seconds");
    wait_until("the directories are older than the margin", Duration::from_secs(10), || {
        settled().parse::<f64>().expect("seconds") > from + 2.5
    });
    estate.capture(0);
    // Seen without a listing: a capture that lists would take this for a file of its directory.
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!(
        (&entry["files_present"], &entry["files_new"], &entry["files_disappeared"]),
        (&40.into(), &0.into(), &0.into())
    );
    let torn = estate.attach(b"torn, then whole");
    estate.write(&torn, b"torn");
    estate.capture(11);
    fs::remove_file(estate.filestore().join(&names[7])).expect("removed");
    estate.cluster.psql("shop", &format!("DELETE FROM ir_attachment WHERE store_fname = '{}'", names[7]));
    let added = estate.attach(b"added");
    // Made whole in place: its directory does not change, and yet it is read.
    estate.write(&torn, b"torn, then whole");
    let entry = estate.capture(0)["filestore_capture"].clone();
    assert_eq!(
        (&entry["files_new"], &entry["files_disappeared"], &entry["files_present"]),
        (&2.into(), &1.into(), &41.into())
    );
    clean(&estate.restore("r"), 41);
    let again = estate.capture(0)["filestore_capture"].clone();
    assert_eq!((&again["files_present"], &again["files_disappeared"]), (&41.into(), &0.into()), "{added}");
}

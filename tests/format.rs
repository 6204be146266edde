//! Another program, which knows what `docs/format.md` says and shares no code, reads what Lifeboat wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Cluster, Lifeboat, Scratch, skip};

/// Content of an attachment, and its name: the SHA-1 of the content.
const ATTACHMENT: (&str, &str) = ("lifeboat\n", "6f/6ffb92623c16ef3fba80a16bb3167b59f1d6e3ea");

/// The Python that `deploy/test.sh` prepared, or else the machine's, where it has what is needed.
pub(crate) fn python() -> Option<String> {
    let candidates = [std::env::var("LIFEBOAT_TEST_PYTHON").ok(), Some("python3".to_owned())];
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let python = candidates.into_iter().flatten().find(|p| works(p, &["-c", "import cryptography"]))?;
    (works("age", &["--version"]) && works("zstd", &["--version"])).then_some(python)
}

/// As `sha256sum` prints it: a program that nobody here wrote judges.
fn sha256sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a digest").to_owned()
}

#[test]
fn an_independent_reader_gives_back_the_same_bytes() {
    let Some(python) = python() else { skip!("needs python3 with cryptography, age and zstd") };
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = estate(&scratch, &cluster);
    // More than 1 MiB of WAL pages, zero pages in a relation, an attachment, something to commit after.
    cluster.psql(
        "postgres",
        &format!(
            "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i;
             CREATE TABLE ir_config_parameter (key text, value text);
             CREATE TABLE ir_module_module (name text, state text, latest_version text);
             CREATE TABLE ir_attachment (id serial, name text, res_model text, res_field text, res_id int, \
                 store_fname text, checksum text, file_size bigint, mimetype text, type text, url text, \
                 write_date timestamp, create_date timestamp);
             INSERT INTO ir_config_parameter VALUES ('database.uuid', '3f0f7a9e-0000-4000-8000-000000000001');
             INSERT INTO ir_attachment (name, store_fname, file_size, type) VALUES ('a', '{}', 9, 'binary')",
            ATTACHMENT.1
        ),
    );
    estate.run(&["backup", "base", "-e", "production"]).ok();
    estate.run(&["backup", "filestore", "-e", "production"]).ok();
    let configuration = estate.run(&["backup", "configuration", "-e", "production"]);
    assert!([Some(0), Some(11)].contains(&configuration.code()), "{configuration:?}");
    let segment = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    cluster.psql("postgres", "CREATE TABLE later (i int); SELECT pg_switch_wal(); CREATE TABLE last (i int)");
    let until = cluster.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
    let live = cluster.psql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    estate.run(&["wal", "receive", "-e", "production", "--until-lsn", &until]).ok();
    let restored = scratch.join("restored");
    let to = ["--to", "latest", "--pgdata", restored.to_str().expect("UTF-8"), "--no-start"];
    let configuration = scratch.join("restored-configuration");
    let beside = ["--configuration", configuration.to_str().expect("UTF-8")];
    estate.run(&[&["restore", "-e", "production"], &to[..], &beside].concat()).ok();

    let out = scratch.join("out");
    let relation = cluster.psql("postgres", "SELECT pg_relation_filepath('t')");
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format_reader.py");
    let mut read = Command::new(python);
    read.arg(reader).arg(scratch.join("repository")).arg(scratch.join("recovery.key")).arg("production");
    read.arg("--out").arg(&out).args(["--wal", &segment, "--wal", &live, "--attachment", ATTACHMENT.1]);
    for file in ["PG_VERSION", "global/pg_control", "backup_label", &relation] {
        read.args(["--file", file]);
    }
    read.args(["--config", "postgresql/globals.sql"]);
    let output = read.output().expect("Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for kind in ["base_backup", "wal_range", "filestore_capture", "configuration_export", "restore"] {
        assert!(said.contains(kind), "{kind} in {said}");
    }
    for file in ["PG_VERSION", "global/pg_control", "backup_label", &relation] {
        assert_eq!(sha256sum(&out.join(file)), sha256sum(&restored.join(file)), "{file}");
    }
    let globals = "postgresql/globals.sql";
    assert_eq!(sha256sum(&out.join(globals)), sha256sum(&configuration.join(globals)));
    let source = cluster.data_dir().join("pg_wal").join(&segment);
    assert_eq!(sha256sum(&out.join(&segment)), sha256sum(&source), "a complete segment");
    let (piece, whole) =
        (fs::read(out.join(&live)).expect("read"), fs::read(source.with_file_name(&live)).expect("WAL"));
    assert!(!piece.is_empty() && whole.starts_with(&piece), "{} bytes of pieces", piece.len());
    assert_eq!(fs::read_to_string(out.join(ATTACHMENT.1)).expect("read"), ATTACHMENT.0);
}

/// An estate with a repository in a folder and an Odoo with one attachment.
fn estate(scratch: &Scratch, cluster: &Cluster) -> Lifeboat {
    let bare = Lifeboat::new(scratch.write("none.toml", ""));
    let key = scratch.join("recovery.key");
    let made = bare.run(&["--format", "json", "keygen", "-o", key.to_str().expect("UTF-8")]).ok();
    let recipient = made.json()["recipient"].as_str().expect("a recipient").to_owned();
    let attachment = scratch.join("odoo/filestore/postgres").join(ATTACHMENT.1);
    fs::create_dir_all(attachment.parent().expect("below odoo")).expect("a folder");
    fs::write(&attachment, ATTACHMENT.0).expect("written");
    let config = format!(
        "[repository]\nurl = \"file://{}\"\n[keys]\nrecipients = [\"{recipient}\"]\nidentity = {{ file = \"recovery.key\" }}\n\
         state_dir = \"state\"\n[[environment]]\nname = \"production\"\npurpose = \"production\"\nowner = \"test\"\n\
         [environment.objectives]\nrpo = \"60s\"\nrto = \"1h\"\n[environment.postgres]\ndsn = \"{}\"\n\
         [[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"postgres\"]\n",
        scratch.join("repository").display(),
        cluster.dsn(),
        scratch.join("odoo").display(),
    );
    fs::create_dir_all(scratch.join("repository")).expect("a folder");
    let lifeboat = Lifeboat::new(scratch.write("lifeboat.toml", config));
    lifeboat.run(&["init"]).ok();
    lifeboat
}

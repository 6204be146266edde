//! Real Odoo databases with their filestores: that of Odoo 19 in `../shared/fixtures`, where a checkout has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cluster::{Cluster, run_tool, tool};
use super::scratch::own;

/// A small Odoo: the tables that a capture looks at.
pub(crate) const ODOO_TABLES: &str = "
    CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, type varchar DEFAULT 'binary', res_model varchar,
        res_id int, res_field varchar, store_fname varchar, url varchar, db_datas bytea, file_size int, checksum varchar,
        create_date timestamp DEFAULT (now() AT TIME ZONE 'UTC'), write_date timestamp DEFAULT (now() AT TIME ZONE 'UTC'));
    CREATE TABLE ir_config_parameter (key varchar, value text);
    CREATE TABLE ir_module_module (id serial, name varchar, state varchar, latest_version varchar, author varchar,
        license varchar);
    CREATE TABLE ir_cron (id serial, cron_name varchar, active boolean, nextcall timestamp);
    INSERT INTO ir_module_module (name, state, latest_version) VALUES ('sale', 'installed', '19.0.1.0');
    INSERT INTO ir_config_parameter VALUES ('database.uuid', '11111111-2222-3333-4444-555555555555')";

/// Where the fixture's two files are.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) dump: PathBuf,
    pub(crate) filestore: PathBuf,
}

/// The fixture, in `LIFEBOAT_TEST_FIXTURES` or `../shared/fixtures` beside the checkout.
pub(crate) fn fixture_odoo() -> Option<Fixture> {
    fixture_of(19)
}

/// The database and filestore of one series, there or beside the Odoos of `LIFEBOAT_TEST_ODOO`.
pub(crate) fn fixture_of(series: u32) -> Option<Fixture> {
    let told = ["LIFEBOAT_TEST_FIXTURES", "LIFEBOAT_TEST_ODOO"].map(|name| std::env::var_os(name).map(PathBuf::from));
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let places = told.into_iter().flatten().chain([beside]);
    let directories = places.map(|place| place.join(format!("odoo{series}-retail")));
    let mut fixtures = directories
        .map(|directory| Fixture { dump: directory.join("db.dump"), filestore: directory.join("filestore.tar.zst") });
    fixtures.find(|fixture| fixture.dump.exists() && fixture.filestore.exists())
}

/// Loads it as database `name` and as `data_dir/filestore/<name>`, which belongs to the servers' account.
pub(crate) fn load_fixture(fixture: &Fixture, cluster: &Cluster, name: &str, data_dir: &Path) {
    cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
    let pg_restore = tool(cluster.major(), "pg_restore").expect("pg_restore of a version not older than the server");
    // The archive is opened here: the servers' account may not reach the checkout.
    let mut restore = Command::new(pg_restore);
    restore
        .args(["--no-owner", "--no-privileges", "--exit-on-error", "-d", &cluster.dsn_for(name, "postgres")])
        .arg(&fixture.dump);
    super::scratch::run(restore.current_dir("/"));

    let filestores = data_dir.join("filestore");
    fs::create_dir_all(&filestores).expect("a directory");
    let mut unpack = Command::new("zstd");
    unpack.args(["-q", "-d", "-c"]).arg(&fixture.filestore).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut unpack = unpack.spawn().expect("zstd");
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner", "-C"]).arg(&filestores).stdin(unpack.stdout.take().expect("piped"));
    super::scratch::run(&mut tar);
    assert!(unpack.wait().expect("a child").success(), "zstd could not unpack {}", fixture.filestore.display());
    if name != "retail" {
        fs::rename(filestores.join("retail"), filestores.join(name)).expect("the fixture's directory is named retail");
    }
    own(data_dir);
    run_tool(Path::new("/bin/sh"), &["-c", &format!("test -r '{}'", filestores.join(name).display())]);
}

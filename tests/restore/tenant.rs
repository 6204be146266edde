//! One database of a cluster, restored alone: beside the living ones, as Odoo's archive, and without leaving anything
//! behind when it cannot be done.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha1::{Digest, Sha1};

use super::approval::second_person;
use super::{PATIENCE, refused};
use crate::common::{
    Cluster, Estate, Scratch, as_server, fixture_odoo, load_fixture, own, server_bin, skip, tool, wait_until,
};

/// A database with Odoo's tables, an index on `unaccent(…)` as Odoo makes it, and `files` attachments.
fn small_odoo(cluster: &Cluster, data_dir: &Path, name: &str, files: usize) {
    cluster.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"));
    cluster.psql(
        name,
        "CREATE EXTENSION unaccent; CREATE EXTENSION pg_trgm; ALTER FUNCTION unaccent(text) IMMUTABLE;
         CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key varchar UNIQUE, value text);
         CREATE TABLE ir_module_module (id serial PRIMARY KEY, name varchar, state varchar, latest_version varchar);
         INSERT INTO ir_module_module (name, state, latest_version)
             VALUES ('base', 'installed', '19.0.1.3'), ('sale', 'installed', '19.0.1.2'), ('crm', 'uninstalled', NULL);
         CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, res_model varchar, res_id int, res_field varchar,
             type varchar NOT NULL DEFAULT 'binary', url varchar, store_fname varchar, db_datas bytea, file_size int, checksum varchar(40),
             create_date timestamp DEFAULT now(), write_date timestamp DEFAULT now());
         CREATE TABLE res_partner (id serial PRIMARY KEY, name varchar NOT NULL, email varchar, phone varchar(20),
             vat varchar, ref jsonb, parent_id int REFERENCES res_partner ON DELETE SET NULL, CHECK (name <> ''));
         CREATE INDEX partner_search ON res_partner USING gin (unaccent(name) gin_trgm_ops);
         CREATE VIEW companies AS SELECT id, upper(name) AS name FROM res_partner WHERE parent_id IS NULL;
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.ref = to_jsonb(now()); RETURN NEW; END';
         CREATE TRIGGER touched BEFORE UPDATE ON res_partner FOR EACH ROW EXECUTE FUNCTION touch();
         COMMENT ON TABLE res_partner IS 'Contact';
         INSERT INTO res_partner (name, email, phone, vat, ref)
             SELECT 'Zoë Müller ' || i, 'zoe' || i % 7 || '@shop.example', '+49 30 ' || 100000 + i, 'DE' || 123456000 + i,
                    jsonb_build_object('en_US', 'note ' || i)
               FROM generate_series(1, 200) i",
    );
    let uuid = format!(
        "INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', '{name}-uuid-0001'), ('database.secret', 's')"
    );
    cluster.psql(name, &uuid);
    for number in 0..files {
        attach(cluster, data_dir, name, &format!("{name} attachment {number}"));
    }
}

fn attach(cluster: &Cluster, data_dir: &Path, name: &str, content: &str) {
    let sha1 = hex::encode(Sha1::digest(content));
    let store_fname = format!("{}/{sha1}", &sha1[..2]);
    let path = data_dir.join("filestore").join(name).join(&store_fname);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(&path, content).expect("a file");
    own(&data_dir.join("filestore"));
    let size = content.len();
    let insert = format!(
        "INSERT INTO ir_attachment (name, store_fname, file_size, checksum) VALUES ('a', '{store_fname}', {size}, '{sha1}')"
    );
    cluster.psql(name, &insert);
}

/// A digest of every table's rows.
fn digests(cluster: &Cluster, database: &str) -> BTreeMap<String, String> {
    let tables = cluster.psql(
        database,
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'",
    );
    let digest = |table: &str| {
        let sql =
            format!("SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t");
        (table.to_owned(), cluster.psql(database, &sql))
    };
    tables.lines().map(digest).collect()
}

/// Relative paths and contents below a directory.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok).filter(|e| e.file_type().is_file());
    files
        .map(|e| (e.path().strip_prefix(directory).expect("below").to_owned(), fs::read(e.path()).expect("readable")))
        .filter(|(path, _)| !path.starts_with("checklist"))
        .collect()
}

/// A cluster with two shops, backed up; `before` is a restore point before the damage to `shop`.
pub(super) struct Shops {
    pub(super) cluster: Cluster,
    pub(super) estate: Estate,
    pub(super) data_dir: PathBuf,
    work: PathBuf,
}

impl Shops {
    fn new(scratch: &Scratch) -> Self {
        let cluster = Cluster::builder(scratch).start();
        let data_dir = scratch.join("odoo");
        fs::create_dir_all(data_dir.join("filestore")).expect("a directory");
        small_odoo(&cluster, &data_dir, "other", 3);
        match fixture_odoo() {
            Some(fixture) => {
                load_fixture(&fixture, &cluster, "shop", &data_dir);
                let trap = "CREATE EXTENSION IF NOT EXISTS unaccent; CREATE EXTENSION IF NOT EXISTS pg_trgm;
                            ALTER FUNCTION unaccent(text) IMMUTABLE;
                            CREATE INDEX partner_search ON res_partner USING gin (unaccent(name) gin_trgm_ops)";
                cluster.psql("shop", trap);
            }
            None => small_odoo(&cluster, &data_dir, "shop", 12),
        }
        Self::backed_up(scratch, cluster, data_dir)
    }

    pub(super) fn small(scratch: &Scratch) -> Self {
        let cluster = Cluster::builder(scratch).start();
        let data_dir = scratch.join("odoo");
        small_odoo(&cluster, &data_dir, "shop", 5);
        Self::backed_up(scratch, cluster, data_dir)
    }

    fn backed_up(scratch: &Scratch, cluster: Cluster, data_dir: PathBuf) -> Self {
        let work = scratch.server_dir("w");
        let tables = format!(
            "[[environment.odoo]]\ndata_dir = \"{}\"\n[environment.drill]\nwork_dir = \"{}\"",
            data_dir.display(),
            work.display()
        );
        let estate = Estate::builder(scratch, &cluster).include("masking/*.toml").tables(&tables).init();
        let receiver = estate.receive(&cluster);
        estate.backup();
        estate.run(&["backup", "filestore"]).ok();
        cluster.psql("shop", "UPDATE res_partner SET phone = '0815'");
        cluster.psql("postgres", "SELECT pg_create_restore_point('before')");
        estate.caught_up(&cluster);
        receiver.kill9();
        Self { cluster, estate, data_dir, work }
    }

    pub(super) fn tenant(&self, more: &[&str]) -> crate::common::Output {
        self.estate.run(&[&["restore", "tenant", "--to", "name:before", "--database", "shop"], more].concat())
    }

    /// Nothing of an attempt is left: no database but these, nothing aside, no file that is not whole.
    #[track_caller]
    fn nothing_left(&self, databases: &str) {
        let there = self.cluster.psql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database");
        assert_eq!(there, databases);
        let aside: Vec<_> = fs::read_dir(&self.work).expect("a directory").flatten().map(|e| e.path()).collect();
        assert!(aside.is_empty(), "{aside:?}");
        let unfinished = |e: &walkdir::DirEntry| e.file_name().to_string_lossy().contains(".lifeboat-");
        let left: Vec<_> = walkdir::WalkDir::new(&self.data_dir)
            .into_iter()
            .flatten()
            .filter(unfinished)
            .map(|e| e.into_path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

const INDEX: &str =
    "SELECT indisvalid, pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = to_regclass('partner_search')";

#[test]
fn one_shop_comes_back_beside_the_living_ones() {
    let scratch = Scratch::new();
    let Shops { cluster, estate, data_dir, work } = Shops::new(&scratch);
    let at_the_target = digests(&cluster, "shop");
    let files = tree(&data_dir.join("filestore/shop"));
    cluster.psql("shop", "DELETE FROM ir_attachment; UPDATE res_partner SET name = 'gone'");
    let (living, other) = (digests(&cluster, "shop"), digests(&cluster, "other"));
    let shops = Shops { cluster, estate, data_dir, work };
    let Shops { cluster, data_dir, .. } = &shops;

    let done = shops.tenant(&["--into-cluster", "production", "--as", "shop_before"]).ok().json();
    assert_eq!(digests(cluster, "shop_before"), at_the_target);
    assert_eq!(digests(cluster, "shop"), living, "the damaged shop was touched");
    assert_eq!(digests(cluster, "other"), other, "another shop was touched");
    let index = cluster.psql("shop_before", INDEX);
    assert!(index.starts_with("t|") && index.contains("unaccent"), "{index}");
    let tenant = &done["restore"]["tenant"];
    assert_eq!(
        tenant["uuid"].as_str(),
        Some(cluster.psql("shop", "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'").as_str())
    );
    assert_eq!(done["restore"]["missing_attachments"], serde_json::json!([]));
    let restored = tree(&data_dir.join("filestore/shop_before"));
    assert!(!restored.is_empty());
    assert!(restored.iter().all(|(name, content)| files.get(name) == Some(content)), "other files than before");
    let referenced = cluster.psql("shop_before", "SELECT count(DISTINCT store_fname) FROM ir_attachment");
    assert_eq!(restored.len().to_string(), referenced);
    // Odoo lists what is no template; anybody may connect again.
    let hidden = "SELECT datistemplate, has_database_privilege('public', oid, 'CONNECT') FROM pg_database WHERE datname = 'shop_before'";
    assert_eq!(cluster.psql("postgres", hidden), "t|t");
    shops.nothing_left("other postgres shop shop_before template0 template1");

    let again = shops.tenant(&["--into-cluster", "production", "--as", "shop_before"]);
    let said = refused(again, 2);
    assert!(
        said.contains("already has a database \\\"shop_before\\\"")
            || said.contains("already has a database \"shop_before\""),
        "{said}"
    );
    let ledger = shops.estate.run(&["evidence", "show"]).ok().stdout;
    assert!(ledger.contains("shop_before at "), "{ledger}");
}

/// The trap is real: without its handling the index is silently lost.
#[test]
fn a_plain_dump_loses_the_index_on_unaccent() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    small_odoo(&cluster, &scratch.join("odoo"), "shop", 0);
    let (Some(pg_dump), Some(psql)) = (tool(cluster.major(), "pg_dump"), tool(cluster.major(), "psql")) else {
        skip!("no pg_dump or psql")
    };
    cluster.psql("postgres", "CREATE DATABASE copy");
    let mut dump = as_server(&pg_dump)
        .args(["-d", &cluster.dsn_for("shop", "postgres")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump");
    let loaded = as_server(&psql)
        .args(["-q", "-d", &cluster.dsn_for("copy", "postgres")])
        .stdin(dump.stdout.take().expect("piped"))
        .output()
        .expect("psql");
    assert!(dump.wait().expect("a child").success() && loaded.status.success());
    assert_eq!(cluster.psql("copy", INDEX), "", "PostgreSQL keeps the mark now: the handling may go");
}

#[test]
fn what_cannot_be_done_leaves_nothing() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let databases = "postgres shop template0 template1";
    let said = refused(
        shops.estate.run(&["restore", "tenant", "--to", "name:before", "--database", "shpo", "--odoo-zip", "/x/y"]),
        2,
    );
    assert!(said.contains("/x does not exist"), "{said}");
    let zip = scratch.join("x.zip").display().to_string();
    let said = refused(
        shops.estate.run(&["restore", "tenant", "--to", "name:before", "--database", "shpo", "--odoo-zip", &zip]),
        2,
    );
    assert!(said.contains("no database \"shpo\"") && said.contains("did you mean shop?"), "{said}");
    shops.nothing_left(databases);
    assert!(!Path::new(&zip).exists());

    let nowhere = format!("host={} user=postgres dbname=postgres", scratch.join("nowhere").display());
    refused(shops.tenant(&["--into-cluster", &nowhere, "--as", "x", "--no-filestore"]), 4);
    shops.nothing_left(databases);

    // Where the attachments would go is taken.
    fs::create_dir_all(shops.data_dir.join("filestore/x/ab")).expect("a directory");
    let said = refused(shops.tenant(&["--into-cluster", "production", "--as", "x"]), 2);
    assert!(said.contains("filestore/x exists"), "{said}");
    fs::remove_dir_all(shops.data_dir.join("filestore/x")).expect("a directory");

    // A role that may create databases, but not mark what belongs to an extension: known only while it is loaded.
    shops.cluster.psql("postgres", "CREATE ROLE clerk LOGIN CREATEDB");
    let clerk = shops.cluster.dsn_for("postgres", "clerk");
    let said = refused(shops.tenant(&["--into-cluster", &clerk, "--as", "x"]), 4);
    assert!(said.contains("cannot mark public.unaccent(text) as IMMUTABLE"), "{said}");
    shops.nothing_left(databases);
    assert!(!shops.data_dir.join("filestore/x").exists());

    let older = (13..shops.cluster.major()).find(|major| server_bin(*major).is_some());
    match older {
        None => println!("SKIPPED in part: no older PostgreSQL"),
        Some(major) => {
            let old = Cluster::builder(&scratch).name("old").major(major).start();
            let said = refused(shops.tenant(&["--into-cluster", &old.dsn(), "--as", "x", "--no-filestore"]), 2);
            assert!(said.contains(&format!("is of PostgreSQL {major}")), "{said}");
            assert_eq!(old.psql("postgres", "SELECT count(*) FROM pg_database"), "3");
            shops.nothing_left(databases);
        }
    }
}

#[test]
fn a_newer_cluster_takes_it() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let Some(major) = (shops.cluster.major() + 1..=18).rev().find(|major| server_bin(*major).is_some()) else {
        skip!("no newer PostgreSQL")
    };
    let new = Cluster::builder(&scratch).name("new").major(major).start();
    if new.psql("postgres", "SELECT count(*) FROM pg_available_extensions WHERE name IN ('unaccent', 'pg_trgm')") != "2"
    {
        skip!("PostgreSQL {major} of this machine has no contrib");
    }
    new.psql("postgres", "CREATE ROLE odoo LOGIN");
    let files = scratch.join("files").display().to_string();
    let there = [
        "--into-cluster",
        &new.dsn(),
        "--as",
        "shop",
        "--owner",
        "odoo",
        "--filestore",
        &files,
        "--new-identity",
        "--release",
    ];
    shops.tenant(&there).ok();
    assert_eq!(digests(&new, "shop")["public.res_partner"], digests(&shops.cluster, "shop")["public.res_partner"]);
    assert!(new.psql("shop", INDEX).starts_with("t|"));
    assert_eq!(
        new.psql("shop", "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname = 'public'"),
        "odoo"
    );
    assert_eq!(
        new.psql("shop", "SELECT value = 'shop-uuid-0001' FROM ir_config_parameter WHERE key = 'database.uuid'"),
        "f"
    );
    assert_eq!(new.psql("shop", "SELECT datistemplate FROM pg_database WHERE datname = 'shop'"), "f");
    assert_eq!(tree(Path::new(&files)).len(), 5);
}

#[test]
fn a_killed_one_is_cleaned_up_by_the_next() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let into =
        ["restore", "tenant", "--to", "name:before", "--database", "shop", "--into-cluster", "production", "--as", "x"];
    let killed = shops.estate.spawn(&into);
    wait_until("the cluster is being restored aside", PATIENCE, || {
        walkdir::WalkDir::new(&shops.work).into_iter().flatten().any(|e| e.file_name() == "PG_VERSION")
    });
    killed.kill9();
    assert!(fs::read_dir(&shops.work).expect("a directory").count() > 0, "it was too fast to be killed");

    // The second is killed while it loads.
    let mut killed = shops.estate.spawn(&into);
    let loading = "SELECT count(*) FROM pg_database WHERE datname LIKE 'lifeboat_loading%'";
    wait_until("a database is being loaded", PATIENCE, || {
        shops.cluster.psql("postgres", loading) != "0" || !killed.is_running()
    });
    killed.kill9();
    let left = shops
        .cluster
        .psql("postgres", "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname ~ '^(x|lifeboat)'");
    assert!(left.starts_with("lifeboat_loading_"), "killed too late: {left}");

    shops.estate.run(&into).ok();
    shops.nothing_left("postgres shop template0 template1 x");
    let servers = Command::new("pgrep").args(["-f", &shops.work.display().to_string()]).output().expect("pgrep");
    assert_eq!(String::from_utf8_lossy(&servers.stdout), "", "a private server lives on");
}

#[test]
fn an_archive_for_odoo_loads_with_psql() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let file = scratch.join("shop.zip");
    let path = file.display().to_string();
    let done = shops.tenant(&["--odoo-zip", &path]).ok().json();
    let bytes = fs::read(&file).expect("the archive");
    assert_eq!(done["archive"]["sha256"], hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)));
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("an archive");
    let names: Vec<String> = zip.file_names().map(|name| name.expect("UTF-8").into_owned()).collect();
    assert_eq!(zip.by_index(0).expect("a member").name_raw(), b"dump.sql");
    assert_eq!(names.len(), 7, "{names:?}");
    let read = |zip: &mut zip::ZipArchive<_>, name: &str| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut zip.by_name(name).expect("a member"), &mut text).expect("readable");
        text
    };
    for name in names.iter().filter(|n| n.starts_with("filestore/")) {
        assert!(name.ends_with(&hex::encode(Sha1::digest(read(&mut zip, name)))), "{name}");
    }
    let manifest: serde_json::Value = serde_json::from_slice(&read(&mut zip, "manifest.json")).expect("JSON");
    let expected = serde_json::json!({
        "odoo_dump": "1", "db_name": "shop", "version": "19.0", "version_info": [19, 0, 0, "final", 0, ""],
        "major_version": "19.0", "pg_version": format!("{}.0", shops.cluster.major()),
        "modules": { "base": "19.0.1.3", "sale": "19.0.1.2" },
    });
    assert_eq!(manifest, expected);

    let Some(psql) = tool(shops.cluster.major(), "psql") else { skip!("no psql") };
    let dump = scratch.write("dump.sql", read(&mut zip, "dump.sql"));
    shops.cluster.psql("postgres", "CREATE DATABASE loaded TEMPLATE template0");
    let target = shops.cluster.dsn_for("loaded", "postgres");
    let loaded =
        as_server(&psql).args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &target, "-f"]).arg(&dump).output().expect("psql");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert_eq!(digests(&shops.cluster, "loaded"), digests(&shops.cluster, "shop"));
    assert!(shops.cluster.psql("loaded", INDEX).starts_with("t|"));
    refused(shops.tenant(&["--odoo-zip", &path]), 2);
    shops.nothing_left("loaded postgres shop template0 template1");
}

#[test]
fn odoo_itself_loads_the_archive() {
    let odoo =
        std::env::var_os("LIFEBOAT_TEST_ODOO").map(PathBuf::from).filter(|root| root.join("19/odoo-bin").exists());
    let (Some(odoo), Some(_)) = (odoo, fixture_odoo()) else {
        skip!("no fixtures or no Odoo (LIFEBOAT_TEST_FIXTURES, LIFEBOAT_TEST_ODOO)")
    };
    let scratch = Scratch::new();
    let shops = Shops::new(&scratch);
    let file = scratch.join("shop.zip");
    let done = shops.tenant(&["--odoo-zip", file.to_str().expect("UTF-8")]).ok().json();
    own(&file);
    shops.cluster.psql("postgres", "CREATE ROLE odoo LOGIN CREATEDB");
    let home = scratch.server_dir("home");
    let addons = format!("{},{}", odoo.join("19/odoo/addons").display(), odoo.join("19/addons").display());
    let mut load = as_server(&odoo.join("venv19/bin/python"));
    load.env_clear().envs([("HOME", home.to_str().expect("UTF-8")), ("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")]);
    load.arg(odoo.join("19/odoo-bin")).args(["db", "-c", "/dev/null", "--db_user", "odoo", "--db_host"]);
    load.arg(shops.cluster.socket_dir()).args([
        "--db_port",
        &shops.cluster.port().to_string(),
        "--addons-path",
        &addons,
    ]);
    load.arg("--pg_path").arg(shops.cluster.bin_dir()).arg("--data-dir").arg(&home);
    let loaded = load.args(["load", "by_odoo"]).arg(&file).output().expect("odoo-bin");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let same = ["res_partner", "sale_order", "account_move_line", "stock_move"];
    let (by_odoo, original) = (digests(&shops.cluster, "by_odoo"), digests(&shops.cluster, "shop"));
    for table in same.map(|t| format!("public.{t}")) {
        assert_eq!(by_odoo[&table], original[&table], "{table}");
    }
    let files = tree(&home.join("filestore/by_odoo"));
    let restored = done["archive"]["files"].as_u64().expect("a number");
    assert!(restored > 900 && files.len() as u64 >= restored, "{} of {restored} files", files.len());
}

const RULES: &str = "[masking]\n\"res_partner.name\" = \"fake-name\"\n\"res_partner.email\" = \"fake-email\"\n\
                     \"res_partner.phone\" = \"scramble-digits\"\n\"res_partner.ref\" = \"hash\"\n";

#[test]
fn a_masked_copy_holds_nothing_of_the_original() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("masking")).expect("a directory");
    let shops = Shops::small(&scratch);
    let into = ["--into-cluster", "production", "--as", "masked", "--no-filestore", "--mask"];
    refused(shops.tenant(&into), 3);
    scratch.write("masking/shop.toml", RULES);
    let said = refused(shops.tenant(&into), 10);
    assert!(said.contains("res_partner.vat") && said.contains("scramble-digits"), "{said}");
    shops.nothing_left("postgres shop template0 template1");

    scratch.write("masking/shop.toml", format!("{RULES}\"res_partner.vat\" = \"scramble-digits\"\n"));
    let done = shops.tenant(&into).ok().json();
    assert_eq!(done["masked"]["columns"].as_array().map(Vec::len), Some(5), "{done}");
    let copy = |sql: &str| shops.cluster.psql("masked", sql);
    assert_eq!(
        copy("SELECT count(DISTINCT email), count(*) FROM res_partner"),
        "7|200",
        "equal values must stay equal"
    );
    assert_eq!(copy("SELECT count(*) FROM res_partner WHERE vat !~ '^DE[0-9]{9}$'"), "0");
    let Some(pg_dump) = tool(shops.cluster.major(), "pg_dump") else { skip!("no pg_dump") };
    let dump =
        as_server(&pg_dump).args(["-d", &shops.cluster.dsn_for("masked", "postgres")]).output().expect("pg_dump");
    let dump = String::from_utf8(dump.stdout).expect("UTF-8");
    assert!(dump.contains("@example.invalid"));
    let originals =
        shops.cluster.psql("shop", "SELECT unnest(ARRAY[name, email, vat, ref ->> 'en_US']) FROM res_partner");
    let kept: Vec<&str> = originals.lines().filter(|value| !value.is_empty() && dump.contains(value)).collect();
    assert!(kept.is_empty(), "{} originals are in the copy: {:?}", kept.len(), &kept[..kept.len().min(5)]);
    // Another copy of the same database has the same masks.
    shops.tenant(&["--into-cluster", "production", "--as", "masked_again", "--no-filestore", "--mask"]).ok();
    assert_eq!(digests(&shops.cluster, "masked"), digests(&shops.cluster, "masked_again"));
}

#[test]
fn a_refresh_makes_a_masked_and_harmless_copy_or_none() {
    let scratch = Scratch::new();
    let shops = Shops::small(&scratch);
    let config = fs::read_to_string(scratch.join("lifeboat.toml")).expect("a configuration");
    let staging = config[config.find("[[environment]]").expect("one")..]
        .replacen("\"production\"", "\"staging\"", 1)
        .replacen("\"production\"", "\"staging\"", 1)
        .replace("heartbeat", "slot = \"staging\"\nheartbeat");
    scratch.write("lifeboat.toml", format!("{config}\n{staging}"));
    let arguments = ["refresh", "--database", "shop", "--as", "copy", "--no-filestore", "--to-environment"];
    let to = |other| shops.estate.run(&[&arguments[..], &[other]].concat());
    refused(to("production"), 2);
    let said = refused(to("staging"), 10);
    assert!(said.contains("not known how to neutralise"), "{said}");

    // The code of the module `sale`, which says how it is made harmless, is not there.
    let code = scratch.join("odoo");
    scratch.write("odoo/addons/base/__manifest__.py", "{}");
    let odoo = format!("[environment.drill.odoo]\ncommand = [\"{}/odoo-bin\"]\n", code.display());
    scratch.write("lifeboat.toml", format!("{config}\n{odoo}\n{staging}"));
    scratch.write("masking/shop.toml", format!("{RULES}\"res_partner.vat\" = \"scramble-digits\"\n"));
    let said = refused(to("staging"), 10);
    assert!(said.contains("sale"), "{said}");
    shops.nothing_left("postgres shop template0 template1");

    scratch.write("odoo/addons/sale/__manifest__.py", "{}");
    let script = "INSERT INTO ir_config_parameter (key, value) VALUES ('sale.endpoint', 'nowhere')";
    scratch.write("odoo/addons/sale/data/neutralize.sql", script);
    to("staging").ok();
    let copy = |sql: &str| shops.cluster.psql("copy", sql);
    let parameter = |key: &str| copy(&format!("SELECT value FROM ir_config_parameter WHERE key = '{key}'"));
    assert_eq!(parameter("sale.endpoint"), "nowhere");
    assert_ne!(parameter("database.uuid"), "shop-uuid-0001");
    assert_eq!(copy("SELECT count(*) FROM res_partner WHERE email NOT LIKE '%@example.invalid'"), "0");
    let kept = "SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'";
    assert_eq!(shops.cluster.psql("shop", kept), "shop-uuid-0001");

    // Where staging wants a second person, it is asked, not production.
    let asks = "[environment.restore]\napproval = true\n";
    scratch.write("lifeboat.toml", format!("{config}\n{odoo}\n{staging}\n{asks}"));
    let arguments = ["--database", "shop", "--as", "again", "--no-filestore", "--to-environment", "staging"];
    let refresh = |more: &[&str]| shops.estate.run(&[&["refresh"], &arguments[..], more].concat());
    let said = refused(refresh(&[]), 10);
    assert!(said.contains("a restore into staging needs the approval") && said.contains("request-refresh"), "{said}");
    let asked = shops.estate.run(&[&["approval", "request-refresh"], &arguments[..]].concat()).ok().json();
    let id = asked["approval"]["id"].as_str().expect("an id");
    assert_eq!(asked["approval"]["plan"]["environment"], "staging");
    second_person(&scratch, "staging", id);
    let target = asked["approval"]["plan"]["target"].as_str().expect("a target");
    refresh(&["--to", target, "--approval", id]).ok();
    assert_eq!(shops.cluster.psql("again", "SELECT count(*) FROM res_partner WHERE phone = '0815'"), "0", "masked");
    shops.cluster.psql("postgres", "DROP DATABASE again");
    let said = refused(refresh(&["--to", target, "--approval", id]), 10);
    assert!(said.contains("serves only once"), "{said}");
}

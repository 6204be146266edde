//! The commands of a generated runbook, taken from its text and executed on a real estate: each scenario ends in a running,
//! restored database.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha1::{Digest, Sha1};

use crate::common::{Cluster, Estate, Lifeboat, Scratch, as_server, own};

const ODOO: &str = "
    CREATE TABLE ir_config_parameter (id serial PRIMARY KEY, key varchar UNIQUE, value text);
    CREATE TABLE ir_module_module (id serial PRIMARY KEY, name varchar, state varchar, latest_version varchar, author varchar, license varchar);
    CREATE TABLE ir_cron (id serial PRIMARY KEY, cron_name varchar, active boolean, nextcall timestamp);
    CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, res_model varchar, res_id int, res_field varchar,
        type varchar NOT NULL DEFAULT 'binary', url varchar, store_fname varchar, db_datas bytea, file_size int, checksum varchar(40),
        create_date timestamp DEFAULT now(), write_date timestamp DEFAULT now());
    INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', '6b1c0000-0000-4000-8000-000000000001'), ('web.base.url', 'https://shop.example');
    INSERT INTO ir_module_module (name, state, latest_version) VALUES ('base', 'installed', '19.0.1.3');
    CREATE TABLE sale (id int PRIMARY KEY);
    INSERT INTO sale SELECT generate_series(1, 1000)";

/// The blocks of a scenario that can be executed as they stand, in order.
fn blocks(markdown: &str, scenario: &str) -> Vec<String> {
    let (_, rest) = markdown.split_once(&format!("<!-- scenario: {scenario} -->")).expect("the scenario is there");
    let part = rest.split("<!-- scenario: ").next().expect("one part");
    let blocks = part.split("```sh run\n").skip(1);
    blocks.map(|block| block.split_once("\n```").expect("a block ends").0.to_owned()).collect()
}

/// A server that a scenario has started; ended with this value.
struct Started<'a> {
    cluster: &'a Cluster,
    pgdata: PathBuf,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let mut command = as_server(&self.cluster.bin_dir().join("pg_ctl"));
        command.args(["-w", "-m", "immediate", "stop", "-D"]).arg(&self.pgdata);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

struct Place<'a> {
    scratch: &'a Scratch,
    cluster: &'a Cluster,
    markdown: String,
}

impl Place<'_> {
    fn restored(&self, scenario: &str) -> PathBuf {
        self.scratch.join(format!("restored-{scenario}"))
    }

    /// Executes a scenario as somebody would who types everything into one shell, with these decisions taken before.
    #[track_caller]
    fn execute(&self, scenario: &str, decisions: &[(&str, &str)]) -> Started<'_> {
        let blocks = blocks(&self.markdown, scenario);
        assert!(blocks.len() >= 4, "{scenario}: {blocks:?}");
        let script = self.scratch.write(&format!("{scenario}.sh"), blocks.join("\n"));
        let program = Path::new(Lifeboat::program()).parent().expect("a directory").display().to_string();
        let bin = self.cluster.bin_dir().display().to_string();
        let mut command = Command::new("bash");
        command.args(["-e", "-x"]).arg(&script).current_dir("/").env_clear().stdin(Stdio::null());
        command.env("PATH", format!("{program}:{bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        command.env("LC_ALL", "C.UTF-8").env("HOME", "/root").env("TMPDIR", self.scratch.join("tmp"));
        command.env("RESTORED", self.restored(scenario)).env("KEY", self.scratch.join("recovery.key"));
        command.env("RECOVERY", self.scratch.join(format!("recovery-{scenario}")));
        command.envs(decisions.iter().copied());
        // Output into a file: the server that the script leaves behind would hold a pipe open.
        let log = self.scratch.join(format!("{scenario}.log"));
        let output = fs::File::create(&log).expect("a file");
        command.stdout(output.try_clone().expect("clone")).stderr(output).process_group(0);
        let status = command.status().expect("bash runs");
        let started = Started { cluster: self.cluster, pgdata: self.restored(scenario).join("pgdata") };
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{scenario}: {status}\n{said}");
        started
    }

    /// Asks the server that a scenario has started.
    #[track_caller]
    fn ask(&self, scenario: &str, sql: &str) -> String {
        let run = self.restored(scenario).join("run");
        let mut psql = Command::new(self.cluster.bin_dir().join("psql"));
        psql.args(["-X", "-At", "-U", "postgres", "-d", "retail", "-p", "54329", "-c", sql, "-h"]).arg(run);
        let output = psql.output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[test]
fn the_commands_of_a_generated_runbook_end_in_running_restored_databases() {
    let scratch = Scratch::new();
    let mut cluster = Cluster::builder(&scratch).start();
    cluster.psql("postgres", "CREATE DATABASE retail");
    cluster.psql("retail", ODOO);
    let data_dir = scratch.server_dir("odoo");
    let content = b"an attachment";
    let sha1 = hex::encode(Sha1::digest(content));
    let file = data_dir.join("filestore/retail").join(&sha1[..2]).join(&sha1);
    fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    fs::write(&file, content).expect("written");
    own(&data_dir.join("filestore"));
    cluster.psql(
        "retail",
        &format!("INSERT INTO ir_attachment (name, store_fname, file_size) VALUES ('a', '{}/{sha1}', 13)", &sha1[..2]),
    );
    let tables = format!(
        "[[environment.odoo]]\ndata_dir = \"{}\"\ndatabases = [\"retail\"]\n[environment.configuration]\nprocess_environment = false\n\
         [runbook]\ncontacts = {{ test = \"dial 1\" }}\nrecovery_key = \"the safe\"\n",
        data_dir.display()
    );
    let estate = Estate::builder(&scratch, &cluster).tables(&tables).init();
    let running = estate.receive(&cluster);
    estate.lifeboat.run(&["backup", "all", "-e", "production"]).ok();

    let out = scratch.join("runbooks");
    let written = estate.lifeboat.run(&["runbook", "-e", "production", "--out", out.to_str().expect("UTF-8")]).ok();
    assert!(written.stdout.contains("runbook-production.html"), "{}", written.stdout);
    let markdown = fs::read_to_string(out.join("runbook-production.md")).expect("written");
    for words in
        ["| Call | test: dial 1 |", "**none**: no drill has ever restored", &format!("PostgreSQL {}", cluster.major())]
    {
        assert!(markdown.contains(words), "{words} in {markdown}");
    }
    // What a key begins with is said; no key is.
    assert!(!markdown.contains("AGE-SECRET-KEY-1"));
    // For looking at the page: LIFEBOAT_PAGES=/tmp/pages.
    if let Some(folder) = std::env::var_os("LIFEBOAT_PAGES") {
        fs::copy(out.join("runbook-production.html"), Path::new(&folder).join("runbook.html")).expect("copied");
    }
    let place = Place { scratch: &scratch, cluster: &cluster, markdown };
    let own_dsn = cluster.dsn();

    // Wrong deletion: production runs, the copy beside it has what was deleted.
    let before = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    cluster.psql("retail", "DELETE FROM sale WHERE id > 400");
    estate.caught_up(&cluster);
    let target = format!("lsn:{before}");
    let started = place.execute("wrong-deletion", &[("TARGET", target.as_str())]);
    assert_eq!(place.ask("wrong-deletion", "SELECT count(*) FROM sale"), "1000");
    assert_eq!(cluster.psql("retail", "SELECT count(*) FROM sale"), "400");
    assert!(place.restored("wrong-deletion").join("filestore/retail").join(&sha1[..2]).join(&sha1).exists());
    drop(started);

    // One database alone, beside the living one.
    let started = place.execute("single-tenant", &[("TARGET", target.as_str()), ("CLUSTER", own_dsn.as_str())]);
    assert_eq!(cluster.psql("retail_restored", "SELECT count(*) FROM sale"), "1000");
    assert_eq!(cluster.psql("retail", "SELECT count(*) FROM sale"), "400");
    drop(started);

    // The host of Lifeboat is gone with everything on it; production lives.
    drop(running);
    fs::remove_dir_all(scratch.join("state")).expect("removed");
    cluster.psql("retail", "INSERT INTO sale VALUES (5000)");
    let home = scratch.join("new-host").display().to_string();
    let started = place.execute("orchestrator-loss", &[("HOME_OF_LIFEBOAT", home.as_str())]);
    assert_eq!(place.ask("orchestrator-loss", "SELECT count(*), max(id) FROM sale"), "401|5000");
    drop(started);

    // Everything but repository and key is gone.
    fs::remove_dir_all(scratch.join("new-host")).expect("removed");
    let Place { markdown, .. } = place;
    cluster.stop();
    let kept = scratch.join("kept");
    fs::rename(cluster.data_dir(), &kept).expect("moved away");
    fs::remove_dir_all(&data_dir).expect("removed");
    let place = Place { scratch: &scratch, cluster: &cluster, markdown };
    let started = place.execute("total-loss", &[]);
    assert_eq!(place.ask("total-loss", "SELECT count(*), max(id) FROM sale"), "401|5000");
    assert!(place.restored("total-loss").join("filestore/retail").join(&sha1[..2]).join(&sha1).exists());
    assert!(place.restored("total-loss").join("configuration/postgresql/pg_hba.conf").exists());
    drop(started);

    // The documents know whether they still hold.
    estate.lifeboat.run(&["init"]).ok();
    for name in ["runbook-production.md", "runbook-production.html"] {
        let file = out.join(name);
        let verify =
            || estate.lifeboat.run(&["--format", "json", "runbook", "--verify", file.to_str().expect("UTF-8")]);
        assert_eq!(verify().ok().json()["standing"], "current", "{name}");
        estate.reconfigure("heartbeat = \"1s\"", "heartbeat = \"2s\"");
        assert_eq!(verify().ok().json()["standing"], "same_commands", "{name}");
        estate.reconfigure("[environment.postgres]", "[environment.postgres]\nslot = \"other\"");
        assert_eq!(verify().expect_code(8).json()["standing"], "outdated", "{name}");
        estate.reconfigure("\nslot = \"other\"", "");
        estate.reconfigure("heartbeat = \"2s\"", "heartbeat = \"1s\"");
        fs::write(&file, fs::read_to_string(&file).expect("text").replacen("the safe", "the sofa", 1))
            .expect("written");
        assert_eq!(verify().expect_code(8).json()["standing"], "edited", "{name}");
    }
}

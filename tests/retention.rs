//! Retention on real clusters: what goes, goes; what stays is restored byte for byte; and what is gone is no damage.

mod kills;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{
    Cluster, Estate, EstateBuilder, Moto, Scratch, as_server, pgbench_init, pgbench_run, skip, wait_until,
};
use crate::format::python;

const PATIENCE: Duration = Duration::from_secs(60);

/// Recent is a second, and so are the delays: a short life.
const SHORT: &str = "[environment.retention]\nrecent = \"1s\"\nminimum_base_backups = 1\ndelete_after = \"1s\"\n\
                     unreferenced_after = \"1s\"\n";

fn cluster(scratch: &Scratch) -> Cluster {
    let config = "wal_keep_size = 0\nmin_wal_size = 2MB\nmax_wal_size = 16MB";
    Cluster::builder(scratch).config(config).wal_segment_mib(1).start()
}

/// Four base backups, the later ones on the earlier, with rows and WAL between them, under load.
struct Shop {
    estate: Estate,
    cluster: Cluster,
    /// Ids of the base backups.
    bases: Vec<String>,
    /// A moment between the second and the third, after its row.
    between: String,
}

fn shop(scratch: &Scratch, build: impl FnOnce(EstateBuilder) -> EstateBuilder) -> Shop {
    let cluster = cluster(scratch);
    let estate = build(Estate::builder(scratch, &cluster).tables(SHORT)).init();
    cluster.psql("postgres", "CREATE TABLE said (word text)");
    pgbench_init(&cluster, "postgres", 1);
    let receiver = estate.receive(&cluster);
    let load = pgbench_run(scratch, &cluster, "postgres", 2, 60);
    let (mut bases, mut between) = (Vec::new(), String::new());
    for word in ["a", "b", "c", "d"] {
        bases.push(estate.backup());
        cluster.psql("postgres", &format!("INSERT INTO said VALUES ('{word}')"));
        if word == "b" {
            between =
                cluster.psql("postgres", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ')");
        }
        for _ in 0..3 {
            cluster.psql("postgres", "INSERT INTO said VALUES ('more'); SELECT pg_switch_wal()");
        }
    }
    drop(load);
    // The newest recovery point is to lie more than a second behind the last base backup.
    let later = cluster.psql("postgres", "SELECT now() + interval '1500 ms'");
    wait_until("time has passed", PATIENCE, || cluster.psql("postgres", &format!("SELECT now() > '{later}'")) == "t");
    cluster.psql("postgres", "INSERT INTO said VALUES ('more'); SELECT pg_switch_wal()");
    estate.caught_up(&cluster);
    receiver.signal(nix::sys::signal::Signal::SIGTERM);
    receiver.wait(PATIENCE).ok();
    Shop { estate, cluster, bases, between }
}

impl Shop {
    fn prune(&self, more: &[&str]) -> Value {
        self.estate.run(&[&["prune"], more].concat()).ok().json()["prune"][0].clone()
    }

    /// The base backups that stay, by the rules as they are now.
    fn staying(&self) -> Vec<String> {
        let report = self.prune(&["--dry-run"]);
        let of = |p: &&Value| p["kind"] == "base_backup" && p["stays"] == true;
        let points = report["points"].as_array().expect("a list").iter().filter(of);
        points.map(|p| p["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Retires, waits, deletes.
    fn prune_to_the_end(&self) -> Value {
        let retired = self.prune(&[])["retired"].clone();
        assert_eq!(retired["gone"]["base_backups"], 2, "{retired}");
        let mut deleted = Value::Null;
        wait_until("the delay has passed", PATIENCE, || {
            deleted = self.prune(&[])["deleted"].clone();
            deleted.as_array().is_some_and(|d| !d.is_empty())
        });
        assert_eq!(deleted[0]["gone"]["base_backups"], 2, "{deleted}");
        assert_eq!(
            (&deleted[0]["objects"], &deleted[0]["left"]),
            (&retired["objects"], &0.into()),
            "{deleted} of {retired}"
        );
        deleted[0].clone()
    }

    fn shown(&self) -> Value {
        self.estate.run(&["show"]).ok().json()["environments"][0].clone()
    }

    /// Restores, lets PostgreSQL's own judge look at the files, starts the copy and asks what was said.
    fn words(&self, target: &str, name: &str) -> String {
        let place = self.estate.place(name);
        self.estate.restore(target, &place, &["--no-start"]).ok();
        let judge = self.cluster.bin_dir().join("pg_verifybackup");
        let judged = as_server(&judge).arg("-n").arg(&place).output().expect("pg_verifybackup runs");
        let said = String::from_utf8_lossy(&judged.stderr);
        assert!(judged.status.success(), "{said}");
        let copy = self.estate.restored(target, &format!("{name}-running"), &self.cluster);
        copy.psql("postgres", "SELECT count(*) FROM pgbench_accounts");
        copy.psql("postgres", "SELECT string_agg(word, '' ORDER BY word) FROM said WHERE word <> 'more'")
    }
}

#[test]
fn what_stays_is_restored_and_what_goes_is_gone_without_a_trace_of_damage() {
    let scratch = Scratch::new();
    let shop = shop(&scratch, |builder| builder);
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| shop.bases[n].clone());
    let held = ["hold", "add", "--until", "2100-01-01", "--reason", "audit", "--point"];
    let hold = |id: &str| shop.estate.run(&[&held[..], &[format!("backup:{id}").as_str()]].concat()).ok().json();
    let made = hold(&b);
    assert_eq!(made["hold"]["base_backups"], serde_json::json!([b]));
    wait_until("the last base backup is a second old", PATIENCE, || shop.staying() == [b.clone(), d.clone()]);
    let files = shop.estate.objects("").len();

    // Two at once.
    let (one, two) = (shop.estate.spawn(&["prune"]), shop.estate.spawn(&["prune"]));
    let retired: Vec<Value> =
        [one, two].map(|run| run.wait(PATIENCE).ok().json()["prune"][0]["retired"].clone()).into();
    assert_eq!(retired.iter().filter(|r| r["gone"]["base_backups"] == 2).count(), 1, "{retired:?}");
    // What waits counts as gone, and comes back when somebody holds it.
    let refused = shop.estate.plan(&format!("backup:{a}")).expect_code(7).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("given up by retention")), "{refused}");
    let again = hold(&c);
    assert!(again["hold"]["revived"].is_number(), "{again}");
    shop.estate.plan(&format!("backup:{c}")).ok();
    let slip = again["hold"]["hold"]["id"].as_str().expect("an id");
    shop.estate.run(&["hold", "remove", slip, "--reason", "a slip"]).ok();
    let holds = shop.estate.run(&["hold", "list"]).ok().json()["holds"].clone();
    assert_eq!((&holds[0]["in_force"], &holds[1]["in_force"]), (&true.into(), &false.into()), "{holds}");

    let mut gone = 0;
    wait_until("all of it is deleted", PATIENCE, || {
        let report = shop.prune(&[]);
        let deleted = report["deleted"].as_array().expect("a list");
        gone += deleted.iter().filter_map(|d| d["gone"]["base_backups"].as_u64()).sum::<u64>();
        gone == 2
    });
    assert!(shop.estate.objects("").len() < files, "nothing was deleted");

    let shown = shop.shown();
    let ids: Vec<&str> = shown["bases"].as_array().expect("a list").iter().filter_map(|b| b["id"].as_str()).collect();
    assert_eq!((ids, &shown["gaps"]), (vec![b.as_str(), d.as_str()], &serde_json::json!([])));
    let verified = shop.estate.run(&["verify", "--deep"]).ok().json();
    assert_eq!(verified["verify"]["problems"], serde_json::json!([]));
    let refused = shop.estate.plan(&shop.between).expect_code(7).json();
    let said = refused["error"].to_string();
    assert!(said.contains("retention gave up the WAL in between") && said.contains(&format!("backup:{d}")), "{said}");
    shop.estate.plan(&format!("backup:{c}")).expect_code(7);

    assert_eq!(shop.words(&format!("backup:{b}"), "point"), "a");
    assert_eq!(shop.words("latest", "latest"), "abcd");

    // The next base backup builds on what is left, and another program reads what is left.
    let next = shop.estate.run(&["backup", "base"]).ok().json()["base_backup"].clone();
    assert_eq!(next["previous"], d.as_str());
    shop.estate.run(&["verify"]).ok();
    shop.estate.run(&["evidence", "verify"]).ok();
    if let Some(python) = python() {
        let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format_reader.py");
        let mut read = Command::new(python);
        read.arg(reader).arg(scratch.join("repository")).arg(scratch.join("recovery.key")).arg("production");
        let output = read.arg("--out").arg(scratch.join("out")).args(["--file", "PG_VERSION"]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("retire") && said.contains("deleted"), "{said}");
    }
}

#[test]
fn the_same_on_s3() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
    moto.create_bucket("retention");
    let shop = shop(&scratch, |builder| builder.repository(&Estate::s3("retention", &moto.endpoint())));
    let [b, d] = [1, 3].map(|n| shop.bases[n].clone());
    let point = format!("backup:{b}");
    shop.estate.run(&["hold", "add", "--until", "released", "--reason", "audit", "--point", &point]).ok();
    wait_until("the last base backup is a second old", PATIENCE, || shop.staying() == [b.clone(), d.clone()]);
    shop.prune_to_the_end();
    shop.estate.run(&["verify", "--deep"]).ok();
    assert_eq!(shop.words(&format!("backup:{b}"), "point"), "a");
}

#[test]
fn what_is_locked_is_named_and_stays() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
    moto.create_bucket_with_locks("locked");
    let lock = "\nobject_lock = { mode = \"governance\", days = 2 }";
    let shop = shop(&scratch, |builder| builder.repository(&(Estate::s3("locked", &moto.endpoint()) + lock)));
    let d = shop.bases[3].clone();
    wait_until("the last base backup is a second old", PATIENCE, || shop.staying() == [d.clone()]);
    let first = shop.prune(&[]);
    assert!(first["locks"]["objects"].as_u64().is_some_and(|n| n > 10), "{first}");
    assert_eq!(
        (&first["locks"]["failed"], &first["retired"]["gone"]["base_backups"]),
        (&0.into(), &3.into()),
        "{first}"
    );
    let mut deleted = Value::Null;
    wait_until("the delay has passed", PATIENCE, || {
        deleted = shop.prune(&[])["deleted"].clone();
        deleted.as_array().is_some_and(|d| !d.is_empty())
    });
    // Superseded pieces of WAL are not locked, everything else is, for two days.
    assert!(deleted[0]["left"].as_u64().is_some_and(|left| left > 10), "{deleted}");
    let said = deleted[0]["left_named"][0]["reason"].as_str().expect("a reason").to_owned();
    assert!(said.contains("locked (governance) until"), "{said}");
    shop.estate.run(&["verify", "--deep"]).ok();
    assert_eq!(shop.words("latest", "latest"), "abcd");
}

#[test]
fn without_rules_prune_says_so_and_does_nothing() {
    let scratch = Scratch::new();
    let cluster = cluster(&scratch);
    let estate = Estate::builder(&scratch, &cluster).init();
    estate.backup();
    let before = estate.objects("");
    let report = estate.run(&["prune"]).ok().json()["prune"][0].clone();
    assert_eq!((&report["rules"], &report["retired"]), (&Value::Null, &Value::Null));
    assert_eq!(report["points"][0]["why"][0]["rule"], "no_rules");
    assert_eq!(estate.objects(""), before);
    let all = estate.lifeboat.run(&["prune", "--all", "--dry-run"]).ok().stdout;
    assert!(all.contains("everything stays"), "{all}");
    estate.lifeboat.run(&["prune"]).expect_code(2);
}

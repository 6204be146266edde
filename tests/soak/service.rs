//! A soak of the service: two environments under pgbench and attachments that are written, two services on one repository,
//! and meanwhile services killed and stopped still, their jobs killed, PostgreSQL killed and restarted, base backups, the store
//! cut off or struck dumb. In the end every acknowledged commit, every file that an acknowledged commit names, and every row of
//! pgbench is in a restore of the newest state, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha1::{Digest, Sha1};
use tokio_postgres::NoTls;

use super::chaos::{Load, Random};
use super::{Log, PATIENCE, Plan, truth};
use crate::common::{
    Cluster, Estate, FlakyProxy, Moto, ODOO_TABLES, Running, Scratch, children_of, own, pgbench_init, skip, tool,
    wait_until,
};
use crate::serve::{Host, Served, received};

/// What goes wrong, and what is done in between.
const FAULTS: [&str; 10] = [
    "kill",
    "kill",
    "stall",
    "kill a job",
    "kill PostgreSQL",
    "restart PostgreSQL",
    "cut the store",
    "silence the store",
    "base",
    "base",
];

/// Between two uploads.
const PACE: Duration = Duration::from_millis(15);

/// An Odoo at work: each upload is a file, then a commit that names it.
struct Shop {
    name: &'static str,
    cluster: Mutex<Cluster>,
    data_dir: std::path::PathBuf,
    /// Acknowledged: id of the row, name and size of its file.
    acknowledged: Arc<Mutex<BTreeMap<i64, (String, usize)>>>,
}

impl Shop {
    fn new(scratch: &Scratch, name: &'static str) -> Self {
        let settings = "max_wal_size = 256MB\ncheckpoint_timeout = 30s\nwal_sender_timeout = 5s";
        let cluster = Cluster::builder(scratch).name(name).config(settings).start();
        cluster.psql("postgres", "CREATE DATABASE shop");
        cluster.psql("shop", ODOO_TABLES);
        let data_dir = scratch.server_dir(&format!("odoo-{name}"));
        std::fs::create_dir_all(data_dir.join("filestore/shop")).expect("a directory");
        own(&data_dir);
        Self { name, cluster: Mutex::new(cluster), data_dir, acknowledged: Arc::default() }
    }

    fn cluster(&self) -> std::sync::MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What pgbench and the clients have left in the two databases, once nobody works in them any more.
    fn sum(cluster: &Cluster) -> [String; 2] {
        let tables = ["accounts", "tellers", "branches", "history"];
        let sums = tables.map(|t| format!("(SELECT count(*) || '/' || sum(hashtext(t::text)) FROM pgbench_{t} t)"));
        let files = "SELECT count(*), sum(hashtext(store_fname)) FROM ir_attachment";
        [cluster.psql("postgres", &format!("SELECT {}", sums.join(", "))), cluster.psql("shop", files)]
    }

    fn sell(&self, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
        let (stop, acknowledged) = (stop.clone(), self.acknowledged.clone());
        let (dsn, store) = (self.cluster().dsn_for("shop", "postgres"), self.data_dir.join("filestore/shop"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut number = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    // It is killed now and then; what was not acknowledged may or may not be there.
                    if let Ok((client, connection)) = tokio_postgres::connect(&dsn, NoTls).await {
                        tokio::spawn(connection);
                        while !stop.load(Ordering::SeqCst) {
                            number += 1;
                            let content = format!("attachment {number} ").repeat(1 + (number % 40) as usize);
                            let digits = hex::encode(Sha1::digest(content.as_bytes()));
                            let name = format!("{}/{digits}", &digits[..2]);
                            let path = store.join(&name);
                            std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
                            std::fs::write(&path, &content).expect("written");
                            let insert = "INSERT INTO ir_attachment (name, res_model, res_id, store_fname, file_size) \
                                          VALUES ('x', 'sale.order', 1, $1, $2) RETURNING id";
                            let size = i32::try_from(content.len()).expect("small");
                            let Ok(row) = client.query_one(insert, &[&name, &size]).await else { break };
                            let id = i64::from(row.get::<_, i32>(0));
                            acknowledged.lock().expect("no panic").insert(id, (name, content.len()));
                            tokio::time::sleep(PACE).await;
                        }
                    }
                    tokio::time::sleep(PACE).await;
                }
            });
        })
    }
}

/// The services, each running, standing still, or dead for a moment.
struct Services {
    hosts: Vec<Host>,
    running: Vec<Option<Running>>,
}

impl Services {
    fn new(hosts: Vec<Host>) -> Self {
        let running = hosts.iter().map(|host| Some(host.serve())).collect();
        Self { hosts, running }
    }

    fn kill(&mut self, which: usize) {
        if let Some(service) = self.running[which].take() {
            service.kill9();
        }
        self.running[which] = Some(self.hosts[which].serve());
    }

    /// Whether any job runs.
    fn run_jobs(&self) -> bool {
        self.running.iter().flatten().any(|service| !children_of(service.pid()).is_empty())
    }

    /// Kills the jobs that run now; whether there were any.
    fn kill_jobs(&self, which: usize) -> bool {
        let jobs = self.running[which].as_ref().map(|service| children_of(service.pid())).unwrap_or_default();
        // One that has just ended is no fault.
        let killed = jobs.into_iter().filter(|job| kill(Pid::from_raw(job.cast_signed()), Signal::SIGKILL).is_ok());
        killed.count() > 0
    }

    fn stall(&self, which: usize, span: Duration) {
        if let Some(service) = &self.running[which] {
            service.signal(Signal::SIGSTOP);
            std::thread::sleep(span); // as long as it stands still
            service.signal(Signal::SIGCONT);
        }
    }
}

#[test]
#[ignore = "takes minutes: ./deploy/test.sh --soak"]
fn service() {
    let plan = Plan::from_environment();
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    let shops = [Shop::new(&scratch, "one"), Shop::new(&scratch, "two")];
    if tool(shops[0].cluster().major(), "pgbench").is_none() {
        skip!("no pgbench");
    }
    println!("service soak: {:?}; seed {}; again: {plan}", plan.span, plan.seed);
    let mut served = Served::on(&scratch, &Estate::s3("estate", &proxy.endpoint()));
    for shop in &shops {
        assert!(pgbench_init(&shop.cluster(), "postgres", 2), "pgbench");
        let odoo = format!("[[environment.odoo]]\ndata_dir = \"{}\"", shop.data_dir.display());
        served = served.environment(shop.name, &shop.cluster().dsn(), &odoo);
    }
    let log = Log { began: Instant::now(), plan };
    let mut services = Services::new(vec![served.host("a"), served.host("b")]);
    for shop in &shops {
        wait_until("WAL is received", PATIENCE, || received(&shop.cluster(), shop.name));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = shops.iter().map(|shop| shop.sell(&stop)).collect();
    let mut loads: Vec<_> = shops.iter().map(|shop| Load::start(&shop.cluster())).collect();
    let mut random = Random::new(plan.seed);
    let mut faults = BTreeMap::<&str, u32>::new();
    let until = log.began + plan.span;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500 + random.below(4_000))); // a moment that nothing announces
        let (which, shop) = (random.below(2) as usize, random.below(2) as usize);
        let what = random.one_of(&FAULTS);
        log.say(&format!("{what} (service {which}, {})", shops[shop].name));
        *faults.entry(what).or_default() += 1;
        match what {
            "kill" => services.kill(which),
            "stall" => services.stall(which, Duration::from_millis(500 + random.below(6_000))),
            "kill PostgreSQL" | "restart PostgreSQL" => {
                let mut cluster = shops[shop].cluster();
                if what.starts_with("kill") {
                    cluster.kill9()
                } else {
                    cluster.stop()
                }
                std::thread::sleep(Duration::from_millis(random.below(2_000))); // as long as it is away
                cluster.start();
                drop(cluster);
                loads[shop] = Load::start(&shops[shop].cluster());
            }
            "cut the store" | "silence the store" => {
                if what.starts_with("cut") {
                    proxy.cut()
                } else {
                    proxy.silence()
                }
                std::thread::sleep(Duration::from_millis(200 + random.below(8_000))); // as long as it is away
                proxy.restore();
            }
            "kill a job" => {
                // One of the two services runs the jobs of this environment.
                for host in &services.hosts {
                    let _ = host.lifeboat.run(&["service", "run", "base", "-e", shops[shop].name]);
                }
                // It waits for its place and its turn; then for a moment that nothing announces.
                let (asked, moment) = (Instant::now(), Duration::from_millis(random.below(1_000)));
                while !services.run_jobs() && asked.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                std::thread::sleep(moment);
                if (0..services.hosts.len()).filter(|host| services.kill_jobs(*host)).count() > 0 {
                    *faults.entry("jobs killed").or_default() += 1;
                }
            }
            _ => {
                // Refused where the other service does it, or nobody yet.
                let run = ["service", "run", "base", "-e", shops[shop].name];
                let _ = services.hosts[which].lifeboat.run(&run);
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    writers.into_iter().for_each(|writer| writer.join().expect("it does not fail"));
    drop(loads);
    log.say(&format!("faults: {faults:?}"));

    // One of them goes on until all is there; the other one stops.
    let first = services.running[0].take().expect("it runs");
    first.signal(Signal::SIGTERM);
    first.wait(PATIENCE).ok();
    let (host, mut service) = (services.hosts[1].clone(), services.running[1].take().expect("it runs"));
    for shop in &shops {
        let cluster = shop.cluster();
        wait_until("pgbench's sessions end", PATIENCE, || {
            cluster.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'") == "0"
        });
        cluster.psql("shop", "CREATE TABLE the_end AS SELECT 1");
        let end = cluster.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
        wait_until("all is received", PATIENCE, || {
            let question = format!(
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND restart_lsn >= '{end}'",
                shop.name
            );
            cluster.psql("postgres", &question) != "0"
        });
        // The slot's mark is where a receiver would go on; the pieces up to the end are there as well.
        wait_until("the last commit is received", PATIENCE, || received(&cluster, shop.name));
        let done = host.ended(&host.ask_in_time("base", shop.name), &mut service);
        assert_eq!(done["outcome"], "done", "{done:#}");
        let done = host.ended(&host.ask_in_time("filestore", shop.name), &mut service);
        assert_eq!(done["outcome"], "done", "{done:#}");
    }
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    shops.iter().for_each(|shop| check(&scratch, &host, shop, &log));
}

/// Restores the newest state and holds it against what was acknowledged.
fn check(scratch: &Scratch, host: &Host, shop: &Shop, log: &Log) {
    let name = shop.name;
    let place = scratch.server_dir(&format!("restored-{name}"));
    let (data, files) = (place.join("data"), place.join("filestore"));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let lifeboat = host.lifeboat.clone().timeout(PATIENCE * 5);
    let (data_text, files_text) = (text(&data), text(&files));
    let restore = ["restore", "-e", name, "--to", "latest", "--pgdata", &data_text, "--filestore", &files_text];
    lifeboat.run(&restore).ok();
    let copy = Cluster::adopt(scratch, &data, shop.cluster().major());
    truth::assert_whole(&copy, name);
    assert_eq!(Shop::sum(&copy), Shop::sum(&shop.cluster()), "{name}: rows of the source and of its restore");
    let transactions = copy.psql("postgres", "SELECT count(*) FROM pgbench_history");
    let rows = copy.psql("shop", "SELECT string_agg(id || ' ' || store_fname, ',') FROM ir_attachment");
    let rows: BTreeMap<i64, String> = rows
        .split(',')
        .filter_map(|row| row.split_once(' '))
        .map(|(id, name)| (id.parse().expect("a number"), name.to_owned()))
        .collect();
    let acknowledged = shop.acknowledged.lock().expect("no panic");
    for (id, (file, size)) in acknowledged.iter() {
        assert_eq!(rows.get(id), Some(file), "{name}: the commit of {id} was acknowledged");
        let content = std::fs::read(files.join("shop").join(file)).unwrap_or_else(|e| panic!("{name}: {file}: {e}"));
        assert_eq!(content.len(), *size, "{name}: {file}");
        assert!(file.ends_with(&hex::encode(Sha1::digest(&content))), "{name}: {file}");
    }
    lifeboat.run(&["verify", "-e", name]).ok();
    lifeboat.run(&["evidence", "verify", "-e", name]).ok();
    log.say(&format!(
        "{name}: {} uploads acknowledged (a commit and a file each), all restored; {transactions} transactions of pgbench, \
         no difference",
        acknowledged.len()
    ));
}

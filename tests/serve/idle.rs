//! What an idle service costs: processor time, memory, requests to the store, for each number of environments. Prints figures,
//! asserts none; run on request, best with a release build:
//! `LIFEBOAT_TEST_PROGRAM=$PWD/target/release/lifeboat LIFEBOAT_IDLE_SECONDS=120 LIFEBOAT_IDLE_ENVIRONMENTS=1,2,5,10 \
//! cargo test --test integration serve::idle -- --ignored --nocapture`.
//!
//! Each environment has a cluster of its own, in which nobody works; two services serve the same clusters, one with a
//! repository in a folder, one on S3 (moto).

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;

/// Requests to moto so far, by method and what they are about.
fn requests(scratch: &Scratch) -> BTreeMap<String, u64> {
    let log = fs::read_to_string(scratch.join("moto.log")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Some(request) = line.split('"').nth(1) else { continue };
        let mut words = request.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { continue };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).map(|p| p.replace("%2F", "/"));
        let about = prefix.unwrap_or_else(|| path.trim_start_matches("/estate/").to_owned());
        // …/<environment>/<area>/…
        let area = about.split('/').skip_while(|part| *part == "estate").nth(1).unwrap_or("-").to_owned();
        let method = if method == "GET" && query.contains("list-type") { "LIST" } else { method };
        *counts.entry(format!("{method} {area}")).or_default() += 1;
    }
    counts
}

/// Processor time of a process in seconds, and its resident size in MiB.
fn spent(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: u64 = rss.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    (ticks as f64 / 100.0, kib as f64 / 1024.0)
}

/// A service with all clusters, as it comes: nothing shortened, no job but the first base backups.
fn start(scratch: &Scratch, repository: &str, name: &str, clusters: &[Cluster]) -> (Host, Running) {
    let mut served = Served::on(scratch, repository);
    for (n, cluster) in clusters.iter().enumerate() {
        served = served.environment(&format!("{name}-{n}"), &cluster.dsn(), "");
    }
    let host = served.host(name);
    let config = fs::read_to_string(&host.config).expect("a configuration");
    let config = config.replace("lease = \"4s\"\n", "").replace("refresh_every = \"1s\"\n", "");
    fs::write(&host.config, config).expect("written");
    let mut service = host.serve();
    for (n, cluster) in clusters.iter().enumerate() {
        wait_until("WAL is received", PATIENCE, || received(cluster, &format!("{name}_{n}")));
        let run = host.ask_in_time("base", &format!("{name}-{n}"));
        assert_eq!(host.ended(&run, &mut service)["outcome"], "done");
    }
    (host, service)
}

fn measure(count: usize, span: Duration) {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
    moto.create_bucket("estate");
    let clusters: Vec<Cluster> =
        (0..count).map(|n| Cluster::builder(&scratch).name(&format!("pg{n}")).start()).collect();
    let services = [
        ("folder", start(&scratch, &file_url(&scratch.join("repository")), "folder", &clusters).1),
        ("S3", start(&other, &Estate::s3("estate", &moto.endpoint()), "s3", &clusters).1),
    ];
    // What follows a backup has been done after one look.
    std::thread::sleep(Duration::from_secs(40));
    let began = Instant::now();
    let (before, cpu) = (requests(&scratch), services.each_ref().map(|(_, service)| spent(service.pid()).0));
    std::thread::sleep(span);
    let seconds = began.elapsed().as_secs_f64();
    let after = requests(&scratch);
    for ((name, service), cpu) in services.iter().zip(cpu) {
        let (now, rss) = spent(service.pid());
        println!(
            "{count} environments, {name}, {seconds:.0} s: {:.2} % of a core ({:.0} CPU seconds an hour), {rss:.1} MiB",
            (now - cpu) * 100.0 / seconds,
            (now - cpu) * 3600.0 / seconds
        );
    }
    let hourly = |n: u64| n as f64 * 3600.0 / seconds / count as f64;
    let came = |what: &String, n: &u64| n - before.get(what).copied().unwrap_or_default();
    let all: u64 = after.iter().map(|(what, n)| came(what, n)).sum();
    println!("  {:>6.0} requests an hour and environment", hourly(all));
    for (what, n) in after.iter().filter(|(what, n)| came(what, n) > 0) {
        println!("  {:>6.0} {what}", hourly(came(what, n)));
    }
    for (_, service) in services {
        service.signal(Signal::SIGTERM);
        service.wait(PATIENCE).ok();
    }
}

#[test]
#[ignore = "measures for minutes"]
fn idle() {
    let said = |name: &str| std::env::var(name).ok();
    let seconds = said("LIFEBOAT_IDLE_SECONDS").map_or(120, |s| s.parse().expect("a number"));
    let counts = said("LIFEBOAT_IDLE_ENVIRONMENTS").unwrap_or_else(|| "1,2,5,10".to_owned());
    for count in counts.split(',') {
        measure(count.parse().expect("a number"), Duration::from_secs(seconds));
    }
}

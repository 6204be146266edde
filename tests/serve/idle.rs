//! What an idle service costs: processor time, memory, requests to the store. Prints figures, asserts none; run on
//! request: `LIFEBOAT_IDLE_SECONDS=120 cargo test --test integration serve::idle -- --ignored --nocapture`.

use std::collections::BTreeMap;

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
fn spent(pid: u32) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: u64 = rss.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    (ticks as f64 / 100.0, kib / 1024)
}

#[test]
#[ignore = "measures for minutes"]
fn idle() {
    let seconds = std::env::var("LIFEBOAT_IDLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(120);
    for count in [1, 8] {
        let scratch = Scratch::new();
        let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
        moto.create_bucket("estate");
        let cluster = Cluster::builder(&scratch).config("max_replication_slots = 20\nmax_wal_senders = 20").start();
        let mut served = Served::on(&scratch, &Estate::s3("estate", &moto.endpoint()));
        for n in 0..count {
            served = served.environment(&format!("e{n}"), &cluster.dsn(), "");
        }
        let host = served.host("here");
        // As it comes, with nothing shortened.
        let config = fs::read_to_string(&host.config).expect("a configuration");
        let config = config.replace("lease = \"4s\"\n", "").replace("refresh_every = \"1s\"\n", "");
        fs::write(&host.config, config).expect("written");
        let mut service = host.serve();
        for n in 0..count {
            wait_until("WAL is received", PATIENCE, || received(&cluster, &format!("e{n}")));
            let run = host.ask("base", &format!("e{n}"));
            assert_eq!(host.ended(&run, &mut service)["outcome"], "done");
        }
        // What follows a backup has been done after one look.
        std::thread::sleep(Duration::from_secs(40));
        let (before, (cpu, _)) = (requests(&scratch), spent(service.pid()));
        std::thread::sleep(Duration::from_secs(seconds));
        let (after, (cpu_after, rss)) = (requests(&scratch), spent(service.pid()));
        let hourly = |n: u64| n * 3600 / seconds;
        println!(
            "{count} environments, {seconds} s: {:.2} % of a core, {rss} MiB",
            (cpu_after - cpu) * 100.0 / seconds as f64
        );
        for (what, n) in &after {
            let n = n - before.get(what).copied().unwrap_or_default();
            if n > 0 {
                println!("  {:>8} an hour  {what}", hourly(n));
            }
        }
        service.signal(Signal::SIGTERM);
        service.wait(PATIENCE).ok();
    }
}

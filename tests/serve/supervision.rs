//! Workers and jobs: that they work, and that nothing that hangs or dies takes others with it.

use std::net::TcpListener;

use super::*;

#[test]
fn two_environments_are_received_and_jobs_run_on_request() {
    let scratch = Scratch::new();
    let one = Cluster::builder(&scratch).name("one").start();
    let two = Cluster::builder(&scratch).name("two").start();
    let served = Served::new(&scratch).environment("one", &one.dsn(), "").environment("two", &two.dsn(), "");
    let host = served.host("here");
    let mut service = host.serve();
    for (cluster, name) in [(&one, "one"), (&two, "two")] {
        wait_until("WAL is received", PATIENCE, || received(cluster, name));
        let run = host.ask("base", name);
        let ended = host.ended(&run, &mut service);
        assert_eq!((&ended["outcome"], &ended["exit_code"]), (&Value::from("done"), &Value::from(0)), "{ended:#}");
        assert!(ended["result"]["base_backup"]["id"].is_string(), "{ended:#}");
        assert_eq!(host.entries(name, "base_backup").len(), 1);
    }
    // What the service knows of them is what `show` says.
    let status = host.until("both can be restored", &mut service, |status| {
        let environments = status["environments"].as_array().expect("a list");
        environments.iter().all(|e| e["view"]["windows"].as_array().is_some_and(|windows| !windows.is_empty()))
    });
    assert_eq!(status["repository"]["reachable"], true);
    assert_eq!(worker(&status, "one", "wal")["state"]["is"], "running");
    assert!(worker(&status, "one", "wal")["durable"].is_array(), "{status:#}");
    // A job that fails says why, and no more.
    let failed = host.lifeboat.run(&["service", "run", "base", "-e", "three"]).expect_code(2);
    assert!(failed.stderr.contains("there is no environment \"three\""), "{}", failed.stderr);
    let ended = host.ended(&host.ask("filestore", "one"), &mut service);
    assert_eq!(ended["outcome"], "failed", "{ended:#}");
    assert!(ended["message"].as_str().is_some_and(|m| m.contains("Odoo")), "{ended:#}");
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    for name in ["one", "two"] {
        assert_eq!(host.entries(name, "wal_range").len(), 1, "recorded when it stopped");
        host.lifeboat.run(&["verify", "-e", name]).ok();
    }
}

#[test]
fn a_service_that_is_killed_leaves_no_process_and_the_next_one_goes_on() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::new(&scratch).environment("one", &cluster.dsn(), "max_rate = \"1MiB\"");
    let host = served.host("here");
    let mut service = host.serve();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    let run = host.ask("base", "one");
    host.until("the backup reads", &mut service, |status| {
        status["jobs_running"]
            .as_array()
            .is_some_and(|jobs| jobs.iter().any(|j| j["run"] == *run && j["phase"].is_object()))
    });
    let children = children_of(service.pid());
    assert_eq!(children.len(), 1, "the job is a child");
    service.kill9();
    wait_until("its job ends with it", PATIENCE, || children.iter().all(|pid| !alive(*pid)));
    let service = host.serve();
    wait_until("WAL is received again", PATIENCE, || received(&cluster, "one"));
    cluster.psql("postgres", "CREATE TABLE after_the_kill AS SELECT 1");
    wait_until("and goes on", PATIENCE, || received(&cluster, "one"));
    assert!(host.status()["jobs_running"].as_array().is_some_and(Vec::is_empty));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    assert!(host.entries("one", "base_backup").is_empty(), "an interrupted backup does not exist");
}

#[test]
fn one_environment_whose_postgresql_hangs_holds_up_none_of_nine() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).config("max_replication_slots = 20\nmax_wal_senders = 20").start();
    // Takes connections and never says a word.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = hanging.local_addr().expect("bound").port();
    let names: Vec<String> = (1..=9).map(|n| format!("e{n}")).collect();
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable");
    let mut served = Served::new(&scratch).head("jobs_at_once = 2\n").environment("hangs", &dsn, "");
    for name in &names {
        served = served.environment(name, &cluster.dsn(), "");
    }
    let host = served.host("here");
    let mut service = host.serve();
    for kind in ["base", "configuration"] {
        host.ask(kind, "hangs");
    }
    for name in &names {
        wait_until("WAL is received", PATIENCE, || received(&cluster, name));
    }
    let run = host.ask("base", "e9");
    assert_eq!(host.ended(&run, &mut service)["outcome"], "done");
    let status = host.until("all are looked at", &mut service, |status| {
        let looked = |e: &Value| e["view"]["now"].is_string();
        status["environments"].as_array().expect("a list").iter().all(looked)
    });
    let hangs = &status["environments"][0];
    assert_eq!(hangs["view"]["postgres"]["reachable"], false, "{hangs:#}");
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    drop(hanging);
}

#[test]
fn a_store_that_goes_away_and_comes_back_loses_nothing_and_ends_nothing() {
    let scratch = Scratch::new();
    let Some(moto) = Moto::start_new(&scratch) else { skip!("no moto") };
    moto.create_bucket("estate");
    let proxy = FlakyProxy::new(moto.port());
    let cluster = Cluster::builder(&scratch).start();
    let served = Served::on(&scratch, &Estate::s3("estate", &proxy.endpoint())).environment("one", &cluster.dsn(), "");
    let host = served.host("here");
    // It starts while its store is away.
    proxy.cut();
    let mut service = host.serve();
    host.until("the store is known to be away", &mut service, |s| s["repository"]["reachable"] == false);
    proxy.restore();
    wait_until("WAL is received", PATIENCE, || received(&cluster, "one"));
    assert_eq!(host.ended(&host.ask("base", "one"), &mut service)["outcome"], "done");
    proxy.cut();
    cluster.psql("postgres", "CREATE TABLE meanwhile AS SELECT generate_series(1, 1000) g");
    let ended = host.ended(&host.ask("configuration", "one"), &mut service);
    assert_eq!(ended["exit_code"], 5, "a job without a store says so: {ended:#}");
    host.until("the store is known to be away", &mut service, |s| s["repository"]["reachable"] == false);
    proxy.restore();
    host.until("and to be back", &mut service, |s| s["repository"]["reachable"] == true);
    wait_until("what was written meanwhile is received", PATIENCE, || received(&cluster, "one"));
    assert_eq!(host.ended(&host.ask("configuration", "one"), &mut service)["outcome"], "done");
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
    let place = scratch.server_dir("restored").join("data");
    let place = place.to_str().expect("UTF-8");
    host.lifeboat.run(&["restore", "-e", "one", "--to", "latest", "--pgdata", place]).ok();
    let copy = Cluster::adopt(&scratch, std::path::Path::new(place), cluster.major());
    assert_eq!(copy.psql("postgres", "SELECT count(*) FROM meanwhile"), "1000");
}

//! SIGHUP: what was changed is served anew, what was not is not disturbed, and what is wrong changes nothing.

use super::*;

#[test]
fn a_bad_configuration_changes_nothing_and_a_good_one_only_what_it_says() {
    let scratch = Scratch::new();
    let one = Cluster::builder(&scratch).name("one").start();
    let two = Cluster::builder(&scratch).name("two").start();
    let served = Served::new(&scratch).environment("one", &one.dsn(), "").environment("two", &two.dsn(), "");
    let host = served.host("here");
    let mut service = host.serve();
    let pid = |cluster: &Cluster, slot: &str| {
        let question = format!("SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = '{slot}'");
        cluster.psql("postgres", &question)
    };
    wait_until("WAL is received", PATIENCE, || received(&one, "one") && received(&two, "two"));
    let before = (pid(&one, "one"), pid(&two, "two"));

    let good = fs::read_to_string(&host.config).expect("a configuration");
    fs::write(&host.config, good.replace("rto = \"1h\"", "rto = 1")).expect("written");
    service.signal(Signal::SIGHUP);
    let status = host.until("it is refused", &mut service, |s| s["config_problem"].is_object());
    assert_eq!(status["config_generation"], 1);
    host.until("it is an alert", &mut service, |s| s["alerts"].to_string().contains("configuration_refused"));
    assert!(status["config_problem"]["message"].as_str().is_some_and(|m| m.contains("here.toml:")), "{status:#}");
    // Jobs go on with the configuration in force, whatever the file says.
    let ended = host.ended(&host.ask("base", "one"), &mut service);
    assert_eq!(ended["outcome"], "done", "{ended:#}");
    assert_eq!((pid(&one, "one"), pid(&two, "two")), before, "nobody was disturbed");
    fs::write(&host.config, good.replace("rto = \"1h\"", "rto = \"0s\"")).expect("written");
    let refused = host.lifeboat.run(&["service", "reload"]);
    assert_eq!(refused.code(), Some(3), "{}", refused.stderr);

    // The second environment goes through another slot; the first stays as it is.
    fs::write(&host.config, good.replace("slot = \"two\"", "slot = \"other\"")).expect("written");
    service.signal(Signal::SIGHUP);
    host.until("it is in force", &mut service, |s| s["config_generation"] == 2 && s["config_problem"].is_null());
    wait_until("the other slot is used", PATIENCE, || received(&two, "other"));
    wait_until("and the first no more", PATIENCE, || pid(&two, "two") == "0");
    assert_eq!(pid(&one, "one"), before.0, "an environment that did not change was disturbed");

    // One that is configured no more is left alone.
    let only_two = good.split("[[environment]]").enumerate().filter(|(n, _)| *n != 1).map(|(_, part)| part);
    let only_two: Vec<&str> = only_two.collect();
    fs::write(&host.config, only_two.join("[[environment]]")).expect("written");
    host.lifeboat.run(&["service", "reload"]).ok();
    wait_until("its worker has stopped", PATIENCE, || pid(&one, "one") == "0");
    assert_eq!(host.status()["environments"].as_array().map(Vec::len), Some(1));
    service.signal(Signal::SIGTERM);
    service.wait(PATIENCE).ok();
}

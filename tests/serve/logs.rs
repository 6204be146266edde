//! Lines of JSON on standard error: each is whole, and says what it concerns.

use super::*;

/// All lines, each of which must be what it is said to be.
#[track_caller]
fn lines(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(value[key].is_string(), "{key} is missing in {line}");
        }
        value
    };
    text.lines().map(line).collect()
}

#[test]
fn every_line_of_the_service_is_json_and_those_of_jobs_and_workers_carry_the_ids() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let schedule = "[[job]]\nname = \"base-hourly\"\nkind = \"base\"\ncron = \"0 * * * *\"\n";
    let served = Served::new(&scratch).schedule(schedule).environment("one", &cluster.dsn(), "");
    let mut host = served.host("here");
    // What libraries log in the process of a job must arrive as well.
    host.lifeboat = host.lifeboat.env("LIFEBOAT_LOG_FORMAT", "json").env("LIFEBOAT_LOG", "warn,lifeboat=debug");
    let mut service = host.serve();
    let status = host.until("a base backup is due and taken", &mut service, |status| {
        status["recent_jobs"].as_array().is_some_and(|jobs| jobs.iter().any(|job| job["outcome"] == "done"))
    });
    let due = status["recent_jobs"][0]["run"].as_str().expect("a run").to_owned();
    let asked = host.ask("filestore", "one");
    assert_eq!(host.ended(&asked, &mut service)["outcome"], "failed");
    service.signal(Signal::SIGTERM);
    let said = service.wait(PATIENCE).ok().stderr;
    let lines = lines(&said);
    let of = |run: &str| lines.iter().filter(|line| line["run"] == run).collect::<Vec<_>>();

    for (run, job) in [(&due, "base-hourly"), (&asked, "filestore")] {
        let found = of(run);
        assert!(found.iter().all(|line| line["environment"] == "one" && line["job"] == job), "{found:#?}");
        assert!(found[0]["message"].as_str().is_some_and(|said| said.starts_with("began ")), "{found:#?}");
    }
    // What the process of the job tells, and what is logged in it.
    let due = of(&due);
    let read = due.iter().find(|line| line["phase"] == "reading the cluster").expect("a phase");
    assert!(read["seconds"].is_f64() && read["level"] == "INFO", "{read}");
    let logged =
        due.iter().find(|line| line["target"] == "lifeboat::repository::pack_put").expect("a line of a library");
    assert_eq!(logged["level"], "DEBUG", "{logged}");
    let failed = of(&asked);
    let failed = failed.iter().find(|line| line["level"] == "WARN").expect("a warning");
    assert!(failed["message"].as_str().is_some_and(|said| said.contains("Odoo")), "{failed}");
    // The receiver of WAL made its slot.
    let worker = lines.iter().find(|line| line["worker"] == "wal").expect("a line of the receiver");
    assert!(worker["environment"] == "one" && worker["run"].is_null(), "{worker}");
}

#[test]
fn a_command_that_fails_says_so_in_one_line_of_json() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(&scratch).start();
    let estate = Estate::builder(&scratch, &cluster).init();
    let failed = estate.lifeboat.run(&["--log-format", "json", "backup", "filestore", "-e", "production"]);
    assert_ne!(failed.code(), Some(0));
    let said = lines(&failed.stderr);
    let last = said.last().expect("a line");
    assert_eq!((&last["level"], &last["environment"]), (&"ERROR".into(), &"production".into()), "{last}");
    assert_eq!(last["exit_code"].as_i64(), failed.code().map(i64::from), "{last}");
    assert!(last["hints"].is_array() && last["kind"].is_string(), "{last}");
    // The option counts more than the variable; a word that is none is refused.
    let text = estate.lifeboat.clone().env("LIFEBOAT_LOG_FORMAT", "json");
    let text = text.run(&["--log-format", "text", "backup", "filestore", "-e", "production"]);
    assert!(text.stderr.starts_with("error: "), "{}", text.stderr);
    let refused = estate.lifeboat.env("LIFEBOAT_LOG_FORMAT", "xml").run(&["show"]).expect_code(2);
    assert!(refused.stderr.contains("LIFEBOAT_LOG_FORMAT is \"xml\""), "{}", refused.stderr);
}

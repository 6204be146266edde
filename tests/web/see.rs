//! What page and API show of a real estate, and jobs started from there.

use futures::StreamExt;
use serde_json::{Value, json};

use super::{Site, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_estate_is_shown_as_it_is_and_jobs_are_started_and_followed() {
    // The backup takes some seconds: running jobs are told once a second.
    let site = Site::new("", "max_rate = \"8 MiB\"").await;
    // Before anything: nothing can be restored, and what to do is said.
    let estate = site.until("the first look", |e| e["summary"]["looked_at"].is_string()).await;
    assert_eq!(estate["summary"]["state"], "bad", "{estate:#}");
    let (status, page) = site.get("vera", "/").await;
    assert!(
        status == 200 && page.contains("Nothing can be restored") && page.contains("lifeboat backup all -e production"),
        "{page}"
    );

    // Somebody follows what happens while somebody else starts a backup.
    let events = site.client.get(format!("{}/api/v1/events", site.address)).bearer_auth(token("vera"));
    let events = events.send().await.expect("a stream");
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut stream = events.bytes_stream();
    let followed = tokio::spawn(async move {
        let mut told = String::new();
        while let Some(Ok(bytes)) = stream.next().await {
            told += &String::from_utf8_lossy(&bytes);
            if told.contains("\"kind\":\"base\"") && told.contains("event: news") {
                return told;
            }
        }
        panic!("the stream ended: {told}");
    });
    let job = site.job("otto", &json!({ "kind": "base" })).await;
    assert_eq!((&job["state"], &job["requested_by"]), (&json!("done"), &json!("otto")), "{job:#}");
    let told = tokio::time::timeout(super::PATIENCE, followed).await.expect("in time").expect("no panic");
    assert!(told.contains("event: jobs"), "{told}");

    let after = site.until("a window", |e| e["summary"]["restorable_to"].is_string()).await;
    assert_eq!(after["show"]["bases"].as_array().map(Vec::len), Some(1));
    let windows = site.json("vera", "/api/v1/environments/production/windows").await;
    assert_eq!(windows["windows"].as_array().map(Vec::len), Some(1));
    let backups = site.json("vera", "/api/v1/environments/production/backups").await;
    assert_eq!(backups["base_backups"][0]["restorable"], true);

    // A drill, its report, and the ledger around it.
    let drill = site.job("otto", &json!({ "kind": "drill" })).await;
    assert!(["done", "partial"].contains(&drill["state"].as_str().unwrap_or_default()), "{drill:#}");
    site.until("the drill", |e| e["summary"]["last_drill"].is_object()).await;
    let drills = site.json("vera", "/api/v1/environments/production/drills").await;
    let sequence = drills["drills"][0]["sequence"].as_u64().expect("a drill");
    let record = site.json("vera", &format!("/api/v1/environments/production/drills/{sequence}")).await;
    assert_eq!(record["record"]["environment"], "production");
    let (status, report) = site.get("vera", &format!("/environments/production/drills/{sequence}")).await;
    assert!(status == 200 && report.contains("Where the time went") && !report.contains("<style"), "{report}");
    let (status, page) = site.get("vera", "/environments/production").await;
    assert!(
        status == 200 && page.contains("What drills have proven so far") && page.contains("proven by a drill"),
        "{page}"
    );

    let ledger = site.json("aude", "/api/v1/environments/production/ledger?limit=3").await;
    assert_eq!(ledger["entries"].as_array().map(Vec::len), Some(3));
    let older = ledger["older"].as_u64().expect("older entries");
    let next = site.json("aude", &format!("/api/v1/environments/production/ledger?before={older}&limit=1")).await;
    assert_eq!(next["entries"][0]["sequence"], older - 1, "no entry is shown twice or left out");
    let verification = site.json("aude", "/api/v1/environments/production/ledger/verification").await;
    assert_eq!(verification["ok"], true, "{verification:#}");
    let kinds: Vec<Value> = all_entries(&site).await;
    assert!(
        kinds.iter().any(|e| e["kind"] == "action" && e["summary"].as_str().is_some_and(|s| s.contains("otto"))),
        "{kinds:?}"
    );

    // Tampering shows: one byte of an old entry.
    let path = site
        .estate
        .objects("ledger")
        .into_iter()
        .find(|p| p.ends_with(format!("{sequence:020}.json")))
        .expect("an entry");
    let bytes = std::fs::read(&path).expect("an entry");
    let mut changed = bytes.clone();
    changed[200] ^= 1;
    std::fs::write(&path, &changed).expect("written");
    let (status, page) = site.get("aude", &format!("/environments/production/ledger/{sequence}")).await;
    assert!(status == 500 && page.contains("Something is damaged"), "{status} {page}");
    let (_, page) = site.get("aude", "/environments/production/ledger?verify=1").await;
    assert!(page.contains("Damaged or tampered with"), "{page}");
    std::fs::write(&path, &bytes).expect("written");

    // The audit log knows who started what.
    let audit = site.json("aude", "/api/v1/audit").await;
    let started = audit["lines"].as_array().expect("lines").iter().find(|line| line["action"] == "start job");
    assert_eq!(started.expect("a line")["person"], "otto");
}

async fn all_entries(site: &Site) -> Vec<Value> {
    let page = site.json("aude", "/api/v1/environments/production/ledger").await;
    page["entries"].as_array().expect("a list").clone()
}

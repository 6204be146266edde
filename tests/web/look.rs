//! The pages in a real browser (Chromium, by playwright-core): every role through what it can do, with and without script,
//! light, dark and on a phone. The pictures are for people: `LIFEBOAT_TEST_SCREENSHOTS` says where they go.

use std::process::Command;

use serde_json::json;

use super::{PEOPLE, Site};
use crate::common::skip;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_finds_its_way_in_a_browser() {
    let Some(node_modules) = std::env::var_os("LIFEBOAT_TEST_NODE_MODULES") else {
        skip!("LIFEBOAT_TEST_NODE_MODULES names no directory with playwright-core");
    };
    let site = Site::new("client_rate = 1000\ntotal_rate = 1000", "[environment.restore]\napproval = true").await;
    site.job("otto", &json!({ "kind": "base" })).await;
    site.job("otto", &json!({ "kind": "configuration" })).await;
    site.job("otto", &json!({ "kind": "drill" })).await;
    site.until("the drill", |e| e["summary"]["last_drill"].is_object()).await;
    let pictures = match std::env::var_os("LIFEBOAT_TEST_SCREENSHOTS") {
        Some(folder) => folder.into(),
        None => site.scratch.join("screenshots"),
    };
    std::fs::create_dir_all(&pictures).expect("a directory");
    let people: serde_json::Map<String, serde_json::Value> =
        PEOPLE.iter().map(|(name, _, token)| ((*name).to_owned(), json!(token))).collect();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/look.mjs"))
        .env("NODE_PATH", &node_modules)
        .env("LIFEBOAT_SITE", &site.address)
        .env("LIFEBOAT_PEOPLE", serde_json::to_string(&people).expect("JSON"))
        .env("LIFEBOAT_PGDATA", site.estate.place("browsed"))
        .env("LIFEBOAT_PICTURES", &pictures)
        .output()
        .expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", site.serve.said());
    println!("{said}");
}

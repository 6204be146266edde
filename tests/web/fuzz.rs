//! The API against its own description: schemathesis makes requests from it, valid and not, and holds the answers against it.

use std::process::Command;

use super::{Site, token};
use crate::common::skip;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_does_what_its_description_says() {
    let Some(program) = std::env::var_os("LIFEBOAT_TEST_SCHEMATHESIS") else {
        skip!("LIFEBOAT_TEST_SCHEMATHESIS names no schemathesis");
    };
    let site = Site::new("client_rate = 10000\ntotal_rate = 10000", "").await;
    site.job("otto", &serde_json::json!({ "kind": "base" })).await;
    site.until("a window", |e| e["summary"]["restorable_to"].is_string()).await;
    let output = Command::new(program)
        .args(["run", &format!("{}/api/openapi.json", site.address), "--header"])
        .arg(format!("Authorization:Bearer {}", token("ada")))
        // The stream of events does not end; jobs are started by other tests.
        .args(["--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/environments/{environment}/jobs"])
        .args(["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "12", "--max-time", "60", "--seed", "1"])
        .args(["--workers", "2", "--request-timeout", "30", "--warnings", "off", "--no-color"])
        .env("HYPOTHESIS_STORAGE_DIRECTORY", site.scratch.join("hypothesis"))
        .current_dir(site.scratch.join(""))
        .output()
        .expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
}

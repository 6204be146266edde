//! A restore that two people make: asked for on the page, approved on the page, carried out by the command, once.

use serde_json::json;

use super::Site;
use crate::common::{Cluster, Output};

fn refused(output: Output) -> String {
    output.expect_code(10).json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_person_opens_the_gate_once_and_for_that_restore_only() {
    let site = Site::new("", "[environment.restore]\napproval = true\napprovers = [\"petra\", \"paul\"]").await;
    let job = site.job("otto", &json!({ "kind": "base" })).await;
    assert_eq!(job["state"], "done", "{job:#}");
    site.until("a window", |e| e["summary"]["restorable_to"].is_string()).await;
    let place = site.estate.place("r");
    let text = place.to_str().expect("UTF-8");
    let wanted = json!({ "to": "latest", "pgdata": text });
    let base = "/api/v1/environments/production";

    let (status, plan) = site.post("otto", &format!("{base}/plan"), &wanted).await;
    assert_eq!((status, &plan["approval_required"]), (200, &json!(true)), "{plan:#}");
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("to", "latest")
        .append_pair("pgdata", text)
        .finish();
    let (status, page) = site.get("otto", &format!("/environments/production/restore?{query}")).await;
    assert!(status == 200 && page.contains("Ask for approval") && page.contains("--break-glass"), "{page}");

    // The requester may not approve, even with the role; who is not among the approvers neither.
    let (status, own) = site.post("petra", &format!("{base}/approvals"), &wanted).await;
    assert_eq!(status, 201, "{own:#}");
    let approve = |id: &str| format!("{base}/approvals/{id}/approve");
    let id = own["id"].as_str().expect("an id");
    let (status, problem) = site.post("petra", &approve(id), &json!({})).await;
    assert!(status == 403 && problem["detail"].as_str().is_some_and(|d| d.contains("as well")), "{problem:#}");
    let (status, problem) = site.post("ada", &approve(id), &json!({})).await;
    assert!(status == 403 && problem["detail"].as_str().is_some_and(|d| d.contains("not among")), "{problem:#}");
    let (status, _) = site.post("otto", &approve(id), &json!({})).await;
    assert_eq!(status, 403, "an operator approves nothing");
    let (status, approved) = site.post("paul", &approve(id), &json!({ "reason": "by phone" })).await;
    assert_eq!((status, &approved["status"]), (200, &json!("approved")), "{approved:#}");
    let (status, page) = site.get("otto", "/approvals").await;
    assert!(status == 200 && page.contains(&format!("--approval {id}")), "{page}");

    // The command as printed, but into another directory: not what was approved.
    let target = approved["plan"]["target"].as_str().expect("a target").to_owned();
    let timeline = approved["plan"]["timeline"].to_string();
    let restore = |place: &str| {
        let arguments = ["restore", "--to", &target, "--timeline", &timeline, "--pgdata", place, "--approval", id];
        site.estate.run(&arguments)
    };
    let other = site.scratch.join("elsewhere").display().to_string();
    let said = refused(restore(&other));
    assert!(said.contains("another restore") && said.contains("pgdata"), "{said}");
    restore(text).ok();
    let copy = Cluster::adopt(&site.scratch, &place, site.cluster.major());
    assert_eq!(copy.psql("postgres", "SELECT one FROM t"), "1");
    drop(copy);
    // Once only.
    std::fs::rename(&place, site.scratch.join("r/moved")).expect("moved");
    let said = refused(restore(text));
    assert!(said.contains("serves only once"), "{said}");
    let list = site.json("vera", &format!("{base}/approvals")).await;
    assert_eq!(list["approvals"][0]["status"], "used", "{list:#}");
    site.estate.run(&["evidence", "verify"]).ok();
}

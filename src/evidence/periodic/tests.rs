//! A period's report from a real ledger: what it counts, what it does not, and that it hides nothing.

use super::*;
use crate::config::Estate;
use crate::error;
use crate::evidence::entry::Failure;
use crate::evidence::examples;
use crate::evidence::testing::{key, ledger, memory};
use crate::runtime::{Clock, Runtime};

struct At(DateTime<Utc>);

impl Clock for At {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

fn environment() -> crate::config::Environment {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sample-configs/valid/every-key.toml");
    Estate::load(std::path::Path::new(file)).expect("valid").environments.remove(0)
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

async fn written() -> PeriodReport {
    let store = memory();
    let ledger = ledger(&store, &[1]);
    let append = async |when: &str, body: Body| {
        let runtime = Runtime::silent().with_clock(At(at(when)));
        ledger.append(&runtime, &key(1), Vec::new(), body).await.expect("appended");
    };
    append("2026-10-31T23:59:59Z", Body::Drill(Box::new(examples::failed()))).await;
    for body in examples::backups() {
        append("2026-11-22T01:02:00Z", body).await;
    }
    append("2026-11-23T01:00:00Z", Body::Drill(Box::new(examples::passed()))).await;
    append("2026-11-24T01:00:00Z", Body::Drill(Box::new(examples::missed()))).await;
    let failure = error::source("cannot connect to <script>alert(1)</script>");
    append(
        "2026-11-25T01:00:00Z",
        Body::Failure(Failure::new("backup base", &failure, at("2026-11-25T00:59:00Z"), 1.0)),
    )
    .await;
    append("2026-12-01T00:00:00Z", Body::Drill(Box::new(examples::failed()))).await;
    let reading = ledger.read().await.expect("reads");
    report(&environment(), &reading, &"2026-11".parse().expect("a month"), at("2026-12-02T00:00:00Z"))
}

#[tokio::test]
async fn a_period_holds_what_was_recorded_in_it_and_nothing_else() {
    let report = written().await;
    assert_eq!(report.entries.map(|(first, _)| first), Some(2));
    assert_eq!(report.drills.len(), 2, "neither of the two beside the period");
    assert_eq!((report.bases.len(), report.captures.0, report.exports.0, report.restores.len()), (1, 1, 1, 1));
    assert_eq!(report.attainment.rto.1, 2);
    assert!(report.attainment.rpo.0 <= report.attainment.rpo.1);
    assert!(report.ledger_problems.is_empty());
    let all: u64 = report.kinds.values().sum();
    let (first, last) = report.entries.expect("entries");
    assert_eq!(all, last - first + 1, "every entry of the period is counted");
    let told = report.attention.join("\n");
    for words in ["objective missed", "filestore captures were incomplete", "1 thing failed or was not done in time"] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert!(!told.contains("No drill was run"));
    assert!(
        report.longest_without_base_seconds.is_some_and(|s| s > 6.0 * 86_400.0),
        "{:?}",
        report.longest_without_base_seconds
    );
}

#[tokio::test]
async fn the_forms_agree_and_trust_no_content() {
    let report = written().await;
    let page = page(std::slice::from_ref(&report));
    if let Some(folder) = std::env::var_os("LIFEBOAT_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join("period.html"), &page).expect("written");
        let both =
            [report.clone(), PeriodReport { environment: "other".into(), attention: Vec::new(), ..report.clone() }];
        std::fs::write(std::path::Path::new(&folder).join("periods.html"), super::page(&both)).expect("written");
    }
    for foreign in ["<script", "<link", "<img", "url(", "@import", " onload"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert!(page.contains("To look at") && page.contains("2 drills"));
    let xml = junit(std::slice::from_ref(&report));
    assert_eq!(
        xml.matches("<failure ").count().to_string(),
        xml.split("failures=\"").nth(1).expect("a count").split('"').next().expect("a number")
    );
    assert!(xml.contains("drill ") && !xml.contains("<script"), "{xml}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["drills"].as_array().map(Vec::len), Some(2));
}

#[test]
fn nothing_in_a_period_is_told_as_nothing_proven() {
    let reading = Reading::default();
    let report = report(&environment(), &reading, &"2026-11".parse().expect("a month"), at("2026-12-02T00:00:00Z"));
    assert_eq!(report.entries, None);
    assert!(report.attention.iter().any(|line| line.contains("nothing was proven")));
    assert!(junit(&[report]).contains("none was"));
}

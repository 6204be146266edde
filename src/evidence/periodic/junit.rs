//! The report of a period as JUnit, for dashboards that know nothing else: what must be true of every period, and each drill.

use maud::html;

use super::PeriodReport;
use crate::evidence::drill_record::Verdict;
use crate::evidence::wording::{span, verdict_word};

/// One test case: its name, and why it fails.
type Case = (String, Option<String>);

/// The document.
pub fn junit(reports: &[PeriodReport]) -> String {
    let suites: Vec<(String, Vec<Case>)> =
        reports.iter().map(|r| (format!("{} {}", r.environment, r.period.name), cases(r))).collect();
    let failed = |cases: &[Case]| cases.iter().filter(|(_, why)| why.is_some()).count();
    let all: usize = suites.iter().map(|(_, cases)| cases.len()).sum();
    let failures: usize = suites.iter().map(|(_, cases)| failed(cases)).sum();
    let body = html! {
        testsuites name="lifeboat report" tests=(all) failures=(failures) {
            @for (name, cases) in &suites {
                testsuite name=(name) tests=(cases.len()) failures=(failed(cases)) {
                    @for (case, why) in cases {
                        testcase classname=(name) name=(case) {
                            @if let Some(why) = why { failure message=(why) {} }
                        }
                    }
                }
            }
        }
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", body.into_string())
}

fn cases(report: &PeriodReport) -> Vec<Case> {
    let unless = |holds: bool, why: &dyn Fn() -> String| (!holds).then(why);
    let met = |(met, measured): (u64, u64), worst: Option<f64>| {
        unless(met == measured, &|| {
            format!("met in {met} of {measured} drills, at worst {}", span(worst.unwrap_or_default()))
        })
    };
    let bad = report.troubles.iter().chain(&report.others).filter(|row| row.bad);
    let mut cases = vec![
        (
            "the ledger is sound".to_owned(),
            unless(report.ledger_problems.is_empty(), &|| report.ledger_problems.join("; ")),
        ),
        ("a base backup was taken".to_owned(), unless(!report.bases.is_empty(), &|| "none was".to_owned())),
        ("a drill was run".to_owned(), unless(!report.drills.is_empty(), &|| "none was".to_owned())),
        ("RPO is met".to_owned(), met(report.attainment.rpo, report.attainment.worst_rpo_seconds)),
        ("RTO is met".to_owned(), met(report.attainment.rto, report.attainment.worst_rto_seconds)),
    ];
    for drill in &report.drills {
        let why = unless(drill.verdict == Verdict::Passed, &|| {
            format!("{} {}", verdict_word(drill.verdict), drill.error.as_deref().unwrap_or_default())
        });
        cases.push((format!("drill {}", drill.id), why));
    }
    cases.extend(bad.map(|row| (format!("entry {}: {}", row.sequence, row.kind), Some(row.summary.clone()))));
    cases
}

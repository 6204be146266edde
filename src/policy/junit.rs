//! The verdict as JUnit: a test suite for each environment, a test case for each requirement.

use maud::{PreEscaped, html};

use super::{Judged, State};

/// The document.
pub fn junit(judged: &[Judged]) -> String {
    let mut environments: Vec<&str> = judged.iter().map(|j| j.environment.as_str()).collect();
    environments.sort_unstable();
    environments.dedup();
    let count = |environment: Option<&str>, states: &[State]| {
        let of = judged.iter().filter(|j| environment.is_none_or(|e| e == j.environment));
        of.filter(|j| states.is_empty() || states.contains(&j.state)).count()
    };
    let body = html! {
        testsuites name="lifeboat policy" tests=(count(None, &[])) failures=(count(None, &[State::Violated])) {
            @for environment in environments {
                @let all = count(Some(environment), &[]);
                testsuite name=(environment) tests=(all) failures=(count(Some(environment), &[State::Violated]))
                    skipped=(count(Some(environment), &[State::Waived, State::Unknown])) {
                    @for j in judged.iter().filter(|j| j.environment == environment) {
                        testcase classname=(format!("{environment}.{}", if j.rule.is_empty() { "policy" } else { &j.rule })) name=(j.requirement) {
                            @match j.state {
                                State::Held => {}
                                State::Violated => failure message=(format!("{}; should be: {}", j.is, j.should)) {
                                    (j.to_do.as_deref().unwrap_or_default())
                                }
                                State::Unknown => skipped message=(j.is) {}
                                State::Waived => skipped message=(waived(j)) {}
                            }
                        }
                    }
                }
            }
        }
    };
    format!("{}{}\n", PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").0, body.into_string())
}

fn waived(judged: &Judged) -> String {
    let exception = judged.exception.as_ref();
    let words = exception.map(|e| format!("waived until {} by {}: {}", e.until, e.by, e.why));
    format!("{}; {}", judged.is, words.unwrap_or_default())
}

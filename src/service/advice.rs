//! What is wrong with an environment and what to do about it, for somebody who was woken by it. Pure: made from the
//! state alone, so that page and API say the same.

use serde::Serialize;
use utoipa::ToSchema;

use super::state::{EnvironmentView, EstateView, WorkerState};
use crate::units::Span;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is known to be wrong.
    Good,
    /// Nobody has looked yet.
    Unknown,
    /// Somebody should look at it in the daytime.
    Look,
    /// Somebody should get up.
    Bad,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Advice {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What to do, in order; commands stand in backquotes.
    pub to_do: Vec<String>,
}

/// The worst of all.
pub fn worst(advice: &[Advice]) -> Severity {
    advice.iter().map(|one| one.severity).max().unwrap_or(Severity::Good)
}

/// Everything about one environment, worst first.
pub fn of(environment: &EnvironmentView, estate: &EstateView) -> Vec<Advice> {
    let name = &environment.name;
    let mut all = Vec::new();
    let mut say = |severity, what: String, to_do: Vec<String>| all.push(Advice { severity, what, to_do });
    if estate.repository.reachable == Some(false) {
        let why = estate.repository.error.as_deref().unwrap_or("it does not answer");
        say(
            Severity::Bad,
            format!("the repository is away: {why}"),
            vec![
                "PostgreSQL keeps its WAL until the repository is back: watch the space of its disk".into(),
                "`lifeboat doctor` says whether address, credentials or network are wrong".into(),
            ],
        );
    }
    if let Some(trouble) = &environment.trouble {
        say(Severity::Look, format!("it could not be looked at: {}", trouble.message), trouble.hints.clone());
    }
    match environment.view.as_deref() {
        None => say(Severity::Unknown, "not looked at yet".into(), Vec::new()),
        Some(view) => {
            if view.windows.is_empty() && view.unreadable.is_none() {
                let todo = match view.bases.is_empty() {
                    true => format!("take a first backup: `lifeboat backup all -e {name}`"),
                    false => format!("take a base backup: `lifeboat backup base -e {name}`"),
                };
                say(Severity::Bad, "nothing can be restored".into(), vec![todo]);
            }
            for sentence in &view.broken {
                let (severity, to_do) = judged(sentence, name);
                say(severity, sentence.clone(), to_do);
            }
            if !view.postgres.reachable {
                let why = view.postgres.error.as_deref().unwrap_or("no reason was given");
                say(
                    Severity::Look,
                    format!("PostgreSQL does not answer: {why}"),
                    vec![
                        "if it is lost: restore, on the page “Restore” of this environment".into(),
                        "if it is only being restarted: nothing; the receiver goes on by itself".into(),
                    ],
                );
            }
            if view.last_drill.is_none() && !view.windows.is_empty() {
                let to_do = vec![format!("`lifeboat drill run -e {name}`, or start one on this page")];
                say(Severity::Look, "no drill has proven yet that it can be restored".into(), to_do);
            }
        }
    }
    for worker in &environment.workers {
        if let (WorkerState::Waiting { .. }, Some(failure)) = (&worker.state, &worker.last_failure) {
            let what = match worker.kind {
                super::state::WorkerKind::Wal => "WAL is not being received",
                super::state::WorkerKind::Filestore => "filestores are not being watched",
            };
            say(Severity::Bad, format!("{what}: {}", failure.message), failure.hints.clone());
        }
    }
    if let Some(forecast) = environment.outlook.as_ref().and_then(|outlook| outlook.forecast.as_ref())
        && !forecast.met
    {
        let seconds = |s: f64| Span(std::time::Duration::try_from_secs_f64(s).unwrap_or_default());
        say(
            Severity::Look,
            format!(
                "a restore at the worst moment would take {}, longer than the objective of {}",
                seconds(forecast.predicted_seconds + forecast.assumed_seconds),
                seconds(forecast.objective_seconds)
            ),
            vec!["take base backups more often, so that there is less WAL to replay".into()],
        );
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.severity));
    all
}

/// How bad a sentence of `look.rs` is, and what to do.
fn judged(sentence: &str, environment: &str) -> (Severity, Vec<String>) {
    let base = format!("take a base backup now: `lifeboat backup base -e {environment}`");
    let known: [(&str, Severity, Vec<String>); 10] = [
        (
            "the repository cannot be read",
            Severity::Bad,
            vec!["`lifeboat doctor`, then `lifeboat verify`, say what is wrong with it".into()],
        ),
        (
            "the ledger is damaged",
            Severity::Bad,
            vec![
                format!("`lifeboat evidence verify -e {environment}` lists all that is wrong"),
                "bring the named objects back from the bucket's versions or from a copy".into(),
            ],
        ),
        (
            "the glass was broken",
            Severity::Bad,
            vec!["read the reason in the ledger, and talk to whoever did it; this is told for a day".into()],
        ),
        ("WAL has a hole", Severity::Bad, vec![base.clone(), "moments inside the hole stay lost".into()]),
        ("base backup ", Severity::Look, vec![format!("`lifeboat verify -e {environment}` says what is missing")]),
        (
            "the filestore of ",
            Severity::Look,
            vec![
                format!("`lifeboat --format json show -e {environment}` names the files"),
                "find them in older backups of the source; Lifeboat keeps what it has".into(),
            ],
        ),
        (
            "the last drill did not pass",
            Severity::Bad,
            vec!["read its report below: it says what does not hold".into()],
        ),
        ("PostgreSQL has removed WAL", Severity::Bad, vec![base]),
        (
            "nobody receives WAL",
            Severity::Bad,
            vec!["start `lifeboat serve` on the database host, or look at its log".into()],
        ),
        (
            "more would be lost now",
            Severity::Bad,
            vec!["look at the receiver below, and at the network to the repository".into()],
        ),
    ];
    let found = known.into_iter().find(|(beginning, ..)| sentence.starts_with(beginning));
    let otherwise = || vec![format!("`lifeboat verify -e {environment}` says what that affects")];
    found.map_or_else(|| (Severity::Look, otherwise()), |(_, severity, to_do)| (severity, to_do))
}

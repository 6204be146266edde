//! What random drills say about all the seconds that no drill restored, in figures and in one honest
//! sentence: how many there were, how they ended, the bound that follows, and what that takes for granted.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::evidence::bound::{CONFIDENCE, upper_bound};
use crate::evidence::draw_check::{DrawOutcome, DrawResult};
use crate::evidence::wording::{counted, day, number};

/// What random drills say about all seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Random {
    /// Draws that came to an end: restored, failed, or abandoned.
    pub drills: u64,
    /// Those of them that did not bring back sound data.
    pub failures: u64,
    /// Those of the failures that were abandoned: committed, and never told of again.
    pub abandoned: u64,
    /// Commitments that may still run.
    pub open: u64,
    /// Random drills since the last failure, all of them sound.
    pub since_failure: u64,
    /// When the first was committed.
    pub first: Option<DateTime<Utc>>,
    /// When the last that failed was committed.
    pub last_failure: Option<DateTime<Utc>>,
    /// How often the bound holds.
    pub confidence: f64,
    /// At most this part of the seconds could not be restored; null: nothing was drawn.
    pub bound: Option<f64>,
    /// The same from the drills since the last failure, for when its cause was repaired; null without a failure.
    pub bound_since_failure: Option<f64>,
    /// Every commitment.
    pub draws: Vec<DrawOutcome>,
    /// All of that in one sentence.
    pub sentence: String,
}

impl Random {
    /// Sums up the draws of a ledger.
    pub fn of(draws: Vec<DrawOutcome>) -> Self {
        let ended: Vec<&DrawOutcome> = draws.iter().filter(|d| d.result != DrawResult::Open).collect();
        let bad = |draw: &&&DrawOutcome| draw.result != DrawResult::Restored;
        let (drills, failures) = (ended.len() as u64, ended.iter().filter(bad).count() as u64);
        let last_failure = ended.iter().rev().find(bad).map(|draw| draw.committed_at);
        let since_failure = ended.iter().rev().take_while(|draw| !bad(draw)).count() as u64;
        let mut random = Random {
            drills,
            failures,
            abandoned: ended.iter().filter(|d| d.result == DrawResult::Abandoned).count() as u64,
            open: (draws.len() - ended.len()) as u64,
            since_failure,
            first: draws.first().map(|draw| draw.committed_at),
            last_failure,
            confidence: CONFIDENCE,
            bound: (drills > 0).then(|| upper_bound(drills, failures)),
            bound_since_failure: (failures > 0 && since_failure > 0).then(|| upper_bound(since_failure, 0)),
            sentence: String::new(),
            draws,
        };
        random.sentence = sentence(&random);
        random
    }
}

fn sentence(random: &Random) -> String {
    // Rounded up: a bound that was rounded down would claim too much.
    let percent = |share: f64| format!("{:.1} %", (share * 1000.0).ceil() / 10.0);
    let (Some(bound), Some(first)) = (random.bound, random.first) else {
        return "No second of the recovery window was drawn at random for a drill yet: nothing can be said about the \
                seconds that no drill restored."
            .to_owned();
    };
    let sound = random.drills - random.failures;
    let drills = counted(random.drills, "random drill", "random drills");
    let mut text = format!("{} of {drills} since {} brought back sound data", number(sound), day(first));
    if random.abandoned > 0 {
        text += &format!(" ({} abandoned, which counts as a failure)", random.abandoned);
    }
    text += &format!(
        ": with 95 % confidence at most {} of the seconds in the recovery window could not be restored soundly",
        percent(bound)
    );
    if let (Some(since), Some(failed)) = (random.bound_since_failure, random.last_failure) {
        text += &format!(
            " (at most {} from the {} since the failure of {}, if its cause is gone)",
            percent(since),
            random.since_failure,
            day(failed)
        );
    }
    text + "; each second was drawn uniformly from the window as it then was, by a seed committed before; what is stored \
            now is taken to be like what was drilled then."
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples::at;

    const HOUR: f64 = 3600.0;

    fn drawn(results: &[DrawResult]) -> Random {
        let outcome = |(n, result): (u64, &DrawResult)| DrawOutcome {
            entry: n,
            committed_at: at(n as f64 * 24.0 * HOUR),
            seconds: 1000,
            revealed_by: Some(n + 1),
            second: Some(at(0.0)),
            result: *result,
        };
        Random::of((0..).zip(results).map(outcome).collect())
    }

    #[test]
    fn the_sentence_about_random_drills_says_no_more_than_they_show() {
        use DrawResult::{Abandoned, Failed, Open, Restored};
        let none = drawn(&[Open]);
        assert_eq!((none.drills, none.open, none.bound), (0, 1, None));
        assert!(none.sentence.contains("nothing can be said"), "{}", none.sentence);

        let twelve = drawn(&[Restored; 12]);
        assert!(
            twelve.sentence.starts_with("12 of 12 random drills since 22 November 2026 brought back sound data"),
            "{}",
            twelve.sentence
        );
        assert!(twelve.sentence.contains("at most 22.1 % of the seconds"), "{}", twelve.sentence);

        let mixed = drawn(&[Restored, Failed, Restored, Abandoned, Restored, Restored, Restored]);
        assert_eq!((mixed.drills, mixed.failures, mixed.abandoned, mixed.since_failure), (7, 2, 1, 3));
        assert_eq!(mixed.bound.map(|b| (b * 1000.0).round()), Some(659.0));
        for said in [
            "1 abandoned",
            "at most 65.9 %",
            "at most 63.2 % from the 3 since the failure of 25 November 2026, if its cause is gone",
        ] {
            assert!(mixed.sentence.contains(said), "{said} in {}", mixed.sentence);
        }
        // After a failure nothing was drawn: no better bound is offered.
        assert_eq!(drawn(&[Restored, Failed]).bound_since_failure, None);
    }
}

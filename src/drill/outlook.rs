//! From what the repository holds now, and all drills of its ledger: what is proven, what is not, and
//! how long the next restore will take. Derived anew each time; stored nowhere.

use chrono::{DateTime, Utc};

use super::longest::replays;
use crate::config::Environment;
use crate::evidence::forecast::{Worst, forecast, measured};
use crate::evidence::outlook::Outlook;
use crate::evidence::proven::{Stretch, proven};
use crate::repository::catalogue::Catalogue;
use crate::repository::frontier::Recovery;
use crate::repository::window::Window;

/// The outlook of an environment.
pub fn outlook(environment: &Environment, catalogue: &Catalogue, recovery: &Recovery, now: DateTime<Utc>) -> Outlook {
    let stretches: Vec<Stretch> = recovery.windows.iter().map(|window| stretch(window, catalogue)).collect();
    let drills = measured(&catalogue.entries);
    let replay = replays(&recovery.windows, catalogue.bases()).into_iter().max_by_key(|replay| replay.bytes);
    let worst = replay.and_then(|replay| {
        let base = catalogue.bases().find(|base| base.id == replay.base)?;
        Some(Worst {
            base: replay.base,
            base_bytes: base.logical_bytes,
            wal_bytes: replay.bytes,
            attachment_bytes: drills.last().map_or(0, |drill| drill.bytes[2]),
            still_growing: replay.still_growing,
        })
    });
    let assumed = environment.assumed.seconds();
    let objective = environment.objectives.rto.as_secs_f64();
    Outlook {
        coverage: proven(&catalogue.entries, &stretches, now),
        forecast: worst.and_then(|worst| forecast(&drills, worst, assumed, objective)),
    }
}

fn stretch(window: &Window, catalogue: &Catalogue) -> Stretch {
    let line = catalogue.wal.as_ref().map(|wal| wal.line(window.line)).unwrap_or_default();
    Stretch {
        from: (window.from.lsn, window.from.time),
        to: (window.to.lsn, window.to.time),
        legs: line.iter().map(|leg| (leg.timeline, leg.from)).collect(),
        bases: window.bases.clone(),
        gap: window.ended_by.as_ref().map(|gap| match gap.segments {
            1 => gap.first.clone(),
            _ => format!("{} to {}", gap.first, gap.last),
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::forecast::{ATTACHMENT_PHASE, BASE_PHASES};

    #[test]
    fn phases_are_called_by_the_names_that_the_forecast_looks_for() {
        assert!(BASE_PHASES.contains(&crate::restore::files::PHASE));
        assert_eq!(ATTACHMENT_PHASE, crate::filestore::restore::PHASE);
    }
}

//! An estate as its calendars make it at an instant: objectives as tight, base backups as slow as they say.
//!
//! For what begins and ends: a command takes the estate as it is when it begins. What runs for years asks
//! [`Calendars`] each time instead.

use chrono::{DateTime, Utc};

use super::calendars::Calendars;
use crate::config::{Environment, Estate, Objectives};

/// `estate` with the objectives and rates that are in force at `at`.
#[must_use]
pub fn in_force(mut estate: Estate, at: DateTime<Utc>) -> Estate {
    let calendars = Calendars::new(&estate);
    for environment in &mut estate.environments {
        apply(&calendars, environment, at);
    }
    estate
}

fn apply(calendars: &Calendars, environment: &mut Environment, at: DateTime<Utc>) {
    let Objectives { rpo, rto } = environment.objectives;
    let objectives = calendars.objectives(&environment.name, rpo, rto, at);
    environment.objectives = Objectives { rpo: objectives.rpo, rto: objectives.rto };
    if let Some((rate, _)) = calendars.max_rate(&environment.name, at) {
        let usual = environment.postgres.max_rate.unwrap_or(rate);
        environment.postgres.max_rate = Some(usual.min(rate));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::testing::{estate, utc};
    use crate::units::ByteSize;

    #[test]
    fn a_season_is_in_force_while_it_lasts_and_for_whom_it_is() {
        let estate = estate(
            "[[calendar]]\nname = \"peak\"\nenvironments = [\"production\"]\neffects = [\"slow-base-backups\"]\n\
             max_rate = \"20MiB\"\nobjectives = { rpo = \"10s\", rto = \"2h\" }\n\
             [[calendar.window]]\nstarts = \"2026-11-23\"\nlasts = \"7d\"\n",
        );
        let at = |time| {
            let estate = in_force(estate.clone(), utc(time));
            estate.environments.iter().map(|e| (e.objectives.rpo.as_secs(), e.postgres.max_rate)).collect::<Vec<_>>()
        };
        assert_eq!(at("2026-11-22T23:59:59Z"), [(60, None), (60, None)]);
        assert_eq!(at("2026-11-23T00:00:00Z"), [(10, Some(ByteSize(20 << 20))), (60, None)]);
        let season = in_force(estate, utc("2026-11-25T00:00:00Z"));
        assert_eq!(season.environments[0].objectives.rto, Duration::from_secs(3600), "two hours are not tighter");
    }
}

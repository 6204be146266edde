//! Runbooks: what to do in a disaster, with the names, paths and commands of this very estate, on paper if need be.
//!
//! Promises: written from the live configuration and what the repository holds now; holds no secret, only where each
//! is; the commands marked `run` can be executed as they stand, in order, and a test does that on a real estate; a
//! printed runbook can be asked whether it still says what a new one would (`bound`).
//!
//! * `facts`: what is known of an environment; `model`: scenarios, steps, commands; `words`: how text is marked up;
//! * `scenarios`: the scenarios, built from `steps`, which several share; `recovery_config`: the configuration that
//!   a responder writes on an empty machine;
//! * `markdown`, `html`: the two forms; `bound`: what binds a document to the configuration.

mod bound;
mod facts;
mod html;
mod markdown;
mod model;
mod recovery_config;
mod scenarios;
mod steps;
#[cfg(test)]
mod tests;
mod words;

pub use bound::{Marker, Standing, read_marker, standing};
pub use facts::{Facts, Held};
pub use model::{Commands, Runbook, Scenario, Step};
pub use scenarios::SCENARIOS;

use crate::error::{self, Result};

/// The runbook of an environment; with names in `only`, these scenarios alone.
pub fn runbook(facts: &Facts<'_>, only: &[String]) -> Result<Runbook> {
    for name in only {
        if !SCENARIOS.iter().any(|known| known == name) {
            return Err(error::usage(format!("there is no scenario \"{name}\""))
                .hint(format!("scenarios: {}", SCENARIOS.join(", "))));
        }
    }
    let scenarios = scenarios::all(facts).into_iter().filter(|s| only.is_empty() || only.iter().any(|o| o == s.id));
    Ok(Runbook {
        environment: facts.environment.name.clone(),
        written_at: facts.now,
        version: env!("CARGO_PKG_VERSION"),
        configuration: facts.estate.digest.clone(),
        known: facts::table(facts),
        scenarios: scenarios.collect(),
    })
}

/// The runbook as Markdown; its last line binds it to the configuration.
pub fn markdown(runbook: &Runbook) -> String {
    let text = markdown::text(runbook);
    let marker = Marker::of(runbook, &text);
    format!("{text}<!-- lifeboat-runbook: {} -->\n", marker.line())
}

/// The runbook as one page that needs nothing else and prints well.
pub fn page(runbook: &Runbook) -> String {
    html::page(runbook)
}

//! How long the next restore will take, from the drills that were measured. Pure.
//!
//! A restore is taken apart into what grows with the base backup, with the WAL to replay, with the
//! attachments, and the rest. For each part *seconds = fixed + bytes / rate* is fitted by least
//! squares, neither below zero; with fewer than three drills, or drills of nearly equal size, by the
//! plain rate. The error is that of drills which the fit did not see: each is left out in turn.

use serde::Serialize;

use crate::evidence::bound::needed_for_percentile;
use crate::evidence::drill_record::DrillRecord;
use crate::evidence::entry::Body;
use crate::evidence::read::LedgerEntry;
use crate::evidence::wording::{bytes, counted, span};
use crate::units::ByteSize;

/// Phases that grow with the base backup.
pub const BASE_PHASES: [&str; 4] =
    ["restoring files", "verifying files", "checking indexes", "checking page checksums"];
/// The phase that grows with WAL.
pub const REPLAY_PHASE: &str = "replaying WAL";
/// The phase that grows with attachments.
pub const ATTACHMENT_PHASE: &str = "restoring attachments";

/// Fewer drills tell a rate, but not how far to trust it.
const ENOUGH: usize = 3;

/// One measured drill.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Bytes of base backup, WAL and attachments.
    pub bytes: [u64; 3],
    /// Seconds for each, and for the rest.
    pub seconds: [f64; 4],
}

impl Measured {
    /// What a drill's record tells; `None` where it did not get to validated data.
    pub fn of(record: &DrillRecord) -> Option<Self> {
        let (restored, total) = (record.restored.as_ref()?, record.rto.measured_seconds?);
        let sum = |names: &[&str]| -> f64 {
            record.phases.iter().filter(|p| names.contains(&p.name.as_str())).map(|p| p.seconds).sum()
        };
        let parts = [sum(&BASE_PHASES), sum(&[REPLAY_PHASE]), sum(&[ATTACHMENT_PHASE])];
        Some(Self {
            bytes: [restored.base_bytes, restored.wal_bytes, restored.attachment_bytes],
            seconds: [parts[0], parts[1], parts[2], (total - parts.iter().sum::<f64>()).max(0.0)],
        })
    }

    /// From an empty machine to validated data.
    pub fn total(&self) -> f64 {
        self.seconds.iter().sum()
    }
}

/// The drills of a ledger that a forecast is fitted from: those in the same kind of sandbox as the newest.
pub fn measured(entries: &[LedgerEntry]) -> Vec<Measured> {
    let records = entries.iter().filter_map(|entry| match &entry.statement.predicate.body {
        Body::Drill(record) => Some((record.sandbox.as_ref().map(|s| s.kind.clone()), Measured::of(record)?)),
        _ => None,
    });
    let records: Vec<(Option<String>, Measured)> = records.collect();
    let newest = records.last().map(|(kind, _)| kind.clone());
    records.into_iter().filter(|(kind, _)| Some(kind) == newest.as_ref()).map(|(_, drill)| drill).collect()
}

/// What there is to restore at the worst moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Worst {
    /// The base backup that recovery starts from.
    pub base: String,
    /// Size of its files.
    pub base_bytes: u64,
    /// WAL to replay.
    pub wal_bytes: u64,
    /// Size of the attachments, as the newest drill restored them.
    pub attachment_bytes: u64,
    /// Whether no base backup ended that stretch of WAL yet: it still grows.
    pub still_growing: bool,
}

/// How long one part takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Seconds that it takes whatever the amount.
    pub fixed_seconds: f64,
    /// Seconds for each byte on top.
    pub seconds_per_byte: f64,
}

/// How far a forecast misses drills that it did not see.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Missed {
    /// On average, in seconds.
    pub mean_seconds: f64,
    /// At most, in seconds.
    pub largest_seconds: f64,
    /// On average, as a part of what was measured.
    pub mean_share: f64,
}

/// A prediction of the time until the data is back, at the worst moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Drills that it was fitted from.
    pub drills: u64,
    /// What is restored.
    pub worst: Worst,
    /// From an empty machine to validated data.
    pub predicted_seconds: f64,
    /// What people need, as assumed.
    pub assumed_seconds: f64,
    /// The objective in force.
    pub objective_seconds: f64,
    /// Whether prediction and assumptions together keep it.
    pub met: bool,
    /// How far it misses drills that it did not see; null with fewer than three drills.
    pub error: Option<Missed>,
    /// The longest drill that was measured.
    pub longest_measured_seconds: f64,
    /// The most WAL that a drill replayed.
    pub largest_measured_wal_bytes: u64,
    /// What grows with the base backup.
    pub base: Rate,
    /// What grows with WAL.
    pub replay: Rate,
    /// What grows with attachments.
    pub attachments: Rate,
    /// The rest, the same every time.
    pub rest_seconds: f64,
    /// Drills needed before a percentile can be claimed: that 9 of 10 restores take no longer than the longest.
    pub drills_for_p90: u64,
    /// All of that in one sentence.
    pub sentence: String,
}

/// A fitted model.
#[derive(Debug, Clone, Copy)]
struct Model {
    parts: [Rate; 3],
    rest: f64,
}

impl Model {
    fn fit(drills: &[Measured]) -> Self {
        let part = |n: usize| {
            let points: Vec<(f64, f64)> = drills.iter().map(|d| (d.bytes[n] as f64, d.seconds[n])).collect();
            rate(&points)
        };
        let rest = drills.iter().map(|d| d.seconds[3]).sum::<f64>() / drills.len() as f64;
        Self { parts: [part(0), part(1), part(2)], rest }
    }

    fn predict(&self, amounts: [u64; 3]) -> f64 {
        let part = |(rate, amount): (&Rate, u64)| rate.fixed_seconds + rate.seconds_per_byte * amount as f64;
        self.rest + self.parts.iter().zip(amounts).map(part).sum::<f64>()
    }
}

/// Fits seconds over bytes; neither figure is below zero.
fn rate(points: &[(f64, f64)]) -> Rate {
    let n = points.len() as f64;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    let (largest, smallest) = points.iter().fold((0.0_f64, f64::INFINITY), |(l, s), p| (l.max(p.0), s.min(p.0)));
    if sum_x <= 0.0 {
        return Rate { fixed_seconds: sum_y / n.max(1.0), seconds_per_byte: 0.0 };
    }
    // From drills of nearly equal size nobody can tell what is fixed: then all of it grows, which errs to the long side.
    if points.len() < ENOUGH || largest - smallest < largest / 10.0 {
        return Rate { fixed_seconds: 0.0, seconds_per_byte: sum_y / sum_x };
    }
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let slope = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread;
    let fixed = mean_y - slope * mean_x;
    if slope < 0.0 {
        return Rate { fixed_seconds: mean_y, seconds_per_byte: 0.0 };
    }
    if fixed < 0.0 {
        let squares: f64 = points.iter().map(|p| p.0 * p.0).sum();
        return Rate { fixed_seconds: 0.0, seconds_per_byte: points.iter().map(|p| p.0 * p.1).sum::<f64>() / squares };
    }
    Rate { fixed_seconds: fixed, seconds_per_byte: slope }
}

/// Predicts the time at the worst moment; `None` without a single measured drill.
pub fn forecast(drills: &[Measured], worst: Worst, assumed_seconds: f64, objective_seconds: f64) -> Option<Forecast> {
    if drills.is_empty() {
        return None;
    }
    let model = Model::fit(drills);
    let predicted = model.predict([worst.base_bytes, worst.wal_bytes, worst.attachment_bytes]);
    let [base, replay, attachments] = model.parts;
    let mut forecast = Forecast {
        drills: drills.len() as u64,
        predicted_seconds: predicted,
        assumed_seconds,
        objective_seconds,
        met: predicted + assumed_seconds <= objective_seconds,
        error: missed(drills),
        longest_measured_seconds: drills.iter().map(Measured::total).fold(0.0, f64::max),
        largest_measured_wal_bytes: drills.iter().map(|d| d.bytes[1]).max().unwrap_or_default(),
        base,
        replay,
        attachments,
        rest_seconds: model.rest,
        drills_for_p90: needed_for_percentile(0.9),
        worst,
        sentence: String::new(),
    };
    forecast.sentence = sentence(&forecast);
    Some(forecast)
}

/// Each drill predicted from the others.
fn missed(drills: &[Measured]) -> Option<Missed> {
    if drills.len() < ENOUGH {
        return None;
    }
    let misses: Vec<(f64, f64)> = (0..drills.len())
        .map(|left_out| {
            let others: Vec<Measured> =
                drills.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, d)| *d).collect();
            let drill = drills[left_out];
            ((Model::fit(&others).predict(drill.bytes) - drill.total()).abs(), drill.total())
        })
        .collect();
    let n = misses.len() as f64;
    Some(Missed {
        mean_seconds: misses.iter().map(|m| m.0).sum::<f64>() / n,
        largest_seconds: misses.iter().map(|m| m.0).fold(0.0, f64::max),
        mean_share: misses.iter().map(|m| m.0 / m.1.max(f64::MIN_POSITIVE)).sum::<f64>() / n,
    })
}

fn sentence(f: &Forecast) -> String {
    let worst = &f.worst;
    let moment = match worst.still_growing {
        true => "now, before the next base backup",
        false => "just before the next base backup",
    };
    let mut text = format!(
        "At the worst moment ({moment}: {} of WAL to replay) a restore is predicted to take {}",
        bytes(worst.wal_bytes),
        span(f.predicted_seconds)
    );
    if f.assumed_seconds > 0.0 {
        text += &format!(", with {} assumed for people on top", span(f.assumed_seconds));
    }
    let kept = if f.met { "within" } else { "beyond" };
    text += &format!(
        ", {kept} the objective of {}; fitted from {}",
        span(f.objective_seconds),
        counted(f.drills, "drill", "drills")
    );
    match &f.error {
        Some(e) => {
            text += &format!(
                ", each of which it misses by {} on average and {} at most when fitted from the others",
                span(e.mean_seconds),
                span(e.largest_seconds)
            );
        }
        None => text += ", too few to say how far to trust it",
    }
    if worst.wal_bytes > f.largest_measured_wal_bytes.saturating_mul(2) {
        text += &format!("; no drill replayed more than {} of WAL", ByteSize(f.largest_measured_wal_bytes));
    }
    let longest = span(f.longest_measured_seconds);
    if f.drills < f.drills_for_p90 {
        text += &format!(
            "; the longest drill took {longest}, and {} are needed before that bounds 9 of 10 restores",
            f.drills_for_p90
        );
    } else {
        text += &format!("; with 95 % confidence 9 of 10 restores like the drilled ones take no longer than {longest}");
    }
    text + "."
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;

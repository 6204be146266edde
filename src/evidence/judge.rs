//! What a drill's record amounts to: which figures are held against the objectives, and the verdict.

use crate::evidence::drill_record::{
    AttachmentReconciliation, Check, CheckResult, DrillRecord, MissingCause, Rpo, Rto, Severity, Verdict,
};

impl Rto {
    /// The objective held against what was measured and what is assumed, together.
    pub fn new(objective_seconds: f64, measured_seconds: Option<f64>, assumed_seconds: f64) -> Self {
        let met = measured_seconds.is_some_and(|measured| measured + assumed_seconds <= objective_seconds);
        Self { objective_seconds, measured_seconds, assumed_seconds, met }
    }

    /// The figure that is held against the objective; null if the drill did not get there.
    pub fn total_seconds(&self) -> Option<f64> {
        self.measured_seconds.map(|measured| measured + self.assumed_seconds)
    }
}

impl Rpo {
    /// The figure that is held against the objective: that of the estate, or of the databases.
    pub fn measured_seconds(&self) -> f64 {
        self.components.composite.or(self.loss_window_seconds).unwrap_or(self.exposure_seconds)
    }
}

impl DrillRecord {
    /// The outcome that the rest of the record amounts to. A drill that was not finished, a hard check
    /// that failed or could not be run, no check that passed, a file that the backup lost or that nobody
    /// accounts for, or a stop at another place than intended: each fails it.
    pub fn judge(&self) -> Verdict {
        if self.killed_in.is_some() {
            return Verdict::NotCompleted;
        }
        let proven = self.checks.iter().any(|check| check.result == CheckResult::Passed)
            && !self.checks.iter().any(Check::fails_the_drill)
            && self.attachments.iter().all(AttachmentReconciliation::is_sound);
        if self.error.is_some() || !proven || !self.target.as_intended || self.rpo.is_none() {
            return Verdict::Failed;
        }
        if self.rto.met && self.rpo.as_ref().is_some_and(|rpo| rpo.met) {
            Verdict::Passed
        } else {
            Verdict::ObjectiveMissed
        }
    }
}

impl Check {
    /// Whether this result alone fails the drill.
    pub fn fails_the_drill(&self) -> bool {
        self.severity == Severity::Hard && matches!(self.result, CheckResult::Failed | CheckResult::Error)
    }
}

impl AttachmentReconciliation {
    /// Whether every file that can be there is there, with the right content.
    pub fn is_sound(&self) -> bool {
        let accounted = self.present + self.missing.len() as u64 >= self.referenced;
        accounted && self.verified >= self.present && self.lost_by_us() == 0
    }

    /// Number of files that the backup lost.
    pub fn lost_by_us(&self) -> usize {
        self.missing.iter().filter(|m| m.cause == MissingCause::LostByUs).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::examples;

    #[test]
    fn the_examples_are_judged_as_they_say() {
        for record in
            [examples::passed(), examples::failed(), examples::missed(), examples::crashed(), examples::killed()]
        {
            assert_eq!(record.judge(), record.verdict, "{}", record.id);
        }
    }

    #[test]
    fn each_of_these_alone_fails_a_drill() {
        type Spoil = (&'static str, fn(&mut DrillRecord));
        let spoil: [Spoil; 9] = [
            ("nothing was checked", |r| r.checks.clear()),
            ("a file is not accounted for", |r| r.attachments[0].referenced += 1),
            ("a hard check failed", |r| r.checks[0].result = CheckResult::Failed),
            ("a hard check could not be run", |r| r.checks[0].result = CheckResult::Error),
            ("a file is not what its name says", |r| r.attachments[0].verified -= 1),
            ("recovery stopped elsewhere", |r| r.target.as_intended = false),
            ("an error ended it", |r| r.error = Some("disk full".into())),
            ("loss was not measured", |r| r.rpo = None),
            ("a file was lost", |r| r.attachments = examples::failed().attachments),
        ];
        for (what, spoil) in spoil {
            let mut record = examples::passed();
            spoil(&mut record);
            assert_eq!(record.judge(), Verdict::Failed, "{what}");
        }
        let mut record = examples::passed();
        record.checks[6].result = CheckResult::Failed;
        assert_eq!(record.judge(), Verdict::Passed, "what the source already broke is a finding");
    }
}

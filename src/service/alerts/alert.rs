//! One thing that is wrong, so that a person who has just been woken knows what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{AlertSeverity, Purpose};

/// What kind of thing is wrong; the name is part of the interface (labels, silences, dashboards).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing can be restored.
    NothingRestorable,
    /// More would be lost now than the objective allows.
    RpoMissed,
    /// The loss comes near the objective.
    RpoInDanger,
    /// The next restore takes longer than the objective allows, as far as drills tell.
    RtoMissed,
    /// It comes near the objective.
    RtoInDanger,
    /// The server has written much more WAL than the repository holds.
    WalLag,
    /// WAL is missing, with later WAL behind the hole.
    WalGap,
    /// The replication slot is lost, inactive, or may soon be given up.
    SlotAtRisk,
    /// PostgreSQL does not answer.
    PostgresUnreachable,
    /// A receiver or a watcher fails and is started again.
    WorkerFailing,
    /// The newest run of a job failed.
    JobFailed,
    /// A job did not run when it was due.
    JobOverdue,
    /// The newest base backup is too old.
    BackupOverdue,
    /// The newest drill did not pass.
    DrillFailed,
    /// The newest drill is too old.
    DrillOverdue,
    /// A verification found damage.
    VerificationFailed,
    /// The ledger is damaged, or names in the archive are.
    LedgerDamaged,
    /// The store does not answer.
    RepositoryUnreachable,
    /// The disk of a repository in a folder is nearly full.
    RepositoryNearlyFull,
    /// A password or key expires soon, or has.
    KeyExpiring,
    /// A certificate expires soon, or has.
    CertificateExpiring,
    /// Clocks differ.
    ClockOff,
    /// A backup is much larger or smaller than those before it.
    SizeChange,
    /// The configuration could not be reloaded.
    ConfigurationRefused,
    /// The configuration of the environment changed in a way that a rule calls critical.
    ConfigurationDrift,
    /// A restore went around its approval.
    BreakGlass,
    /// Somebody could not be told.
    NotificationFailed,
}

impl Condition {
    /// Every condition, for documentation and completion.
    pub const ALL: [Condition; 27] = [
        Condition::NothingRestorable,
        Condition::RpoMissed,
        Condition::RpoInDanger,
        Condition::RtoMissed,
        Condition::RtoInDanger,
        Condition::WalLag,
        Condition::WalGap,
        Condition::SlotAtRisk,
        Condition::PostgresUnreachable,
        Condition::WorkerFailing,
        Condition::JobFailed,
        Condition::JobOverdue,
        Condition::BackupOverdue,
        Condition::DrillFailed,
        Condition::DrillOverdue,
        Condition::VerificationFailed,
        Condition::LedgerDamaged,
        Condition::RepositoryUnreachable,
        Condition::RepositoryNearlyFull,
        Condition::KeyExpiring,
        Condition::CertificateExpiring,
        Condition::ClockOff,
        Condition::SizeChange,
        Condition::ConfigurationRefused,
        Condition::ConfigurationDrift,
        Condition::BreakGlass,
        Condition::NotificationFailed,
    ];

    /// Its name in labels: `rpo_missed`.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a condition is written as a word"),
        }
    }

    /// Its name as Prometheus' users write alerts: `LifeboatRpoMissed`.
    pub fn alert_name(self) -> String {
        format!("Lifeboat{self:?}")
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What makes two alerts the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlertKey {
    /// What kind of thing is wrong.
    pub condition: Condition,
    /// In which environment; `None`: with the service itself.
    pub environment: Option<String>,
    /// With what: a job, a database, a receiver; empty where the environment says enough.
    pub subject: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What makes it the same as an earlier one.
    #[serde(flatten)]
    pub key: AlertKey,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// The team that answers for the environment.
    pub owner: Option<String>,
    /// What the environment is for.
    pub purpose: Option<Purpose>,
    /// What happened, in a sentence.
    pub summary: String,
    /// What it means for the data.
    pub meaning: String,
    /// What to do next, first things first.
    pub todo: Vec<String>,
}

impl Alert {
    /// An alert about the service itself.
    pub fn of_service(condition: Condition, severity: AlertSeverity, summary: impl Into<String>) -> Self {
        Self {
            key: AlertKey { condition, environment: None, subject: String::new() },
            severity,
            owner: None,
            purpose: None,
            summary: summary.into(),
            meaning: String::new(),
            todo: Vec::new(),
        }
    }

    /// Says with what.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.key.subject = subject.into();
        self
    }

    /// Says what it means for the data.
    #[must_use]
    pub fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }

    /// Adds one thing to do.
    #[must_use]
    pub fn todo(mut self, what: impl Into<String>) -> Self {
        self.todo.push(what.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_labels_and_of_prometheus() {
        assert_eq!(Condition::RpoMissed.name(), "rpo_missed");
        assert_eq!(Condition::RpoMissed.alert_name(), "LifeboatRpoMissed");
    }

    #[test]
    fn all_conditions_are_listed_once() {
        let mut names: Vec<String> = Condition::ALL.iter().map(|c| c.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Condition::ALL.len());
    }
}

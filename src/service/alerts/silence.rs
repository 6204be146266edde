//! Silences: somebody has seen it, says so, and until when. They stand in the environment's ledger, so that an auditor
//! sees who kept what from being told.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::alert::{AlertKey, Condition};
use crate::evidence::{Body, LedgerEntry};

/// A silence in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// Only this condition; `None`: all of the environment.
    pub condition: Option<Condition>,
    /// Only about this; `None`: whatever it is about.
    pub subject: Option<String>,
    /// When it ends by itself.
    pub until: DateTime<Utc>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
}

impl Silence {
    /// Whether it keeps an alert from being told at `now`.
    pub fn holds(&self, alert: &AlertKey, now: DateTime<Utc>) -> bool {
        now < self.until
            && alert.environment.as_deref() == Some(&self.environment)
            && self.condition.is_none_or(|condition| condition == alert.condition)
            && self.subject.as_ref().is_none_or(|subject| *subject == alert.subject)
    }
}

/// The silences that an environment's ledger holds and that are in force at `now`, oldest first.
pub fn silences(entries: &[LedgerEntry], now: DateTime<Utc>) -> Vec<Silence> {
    let mut silences: Vec<Silence> = Vec::new();
    for entry in entries {
        let said = &entry.statement.predicate;
        let Body::Silence(change) = &said.body else { continue };
        silences.retain(|silence| silence.id != change.id);
        if let Some(until) = change.until.filter(|until| *until > now) {
            silences.push(Silence {
                id: change.id.clone(),
                environment: said.environment.clone(),
                // A condition that this version does not know silences nothing.
                condition: match &change.condition {
                    None => None,
                    Some(name) => match serde_json::from_value(serde_json::Value::String(name.clone())) {
                        Ok(condition) => Some(condition),
                        Err(_) => continue,
                    },
                },
                subject: change.subject.clone(),
                until,
                author: change.author.clone(),
                reason: change.reason.clone(),
            });
        }
    }
    silences
}

//! From what is wrong now to what is told to whom. Pure: time comes in, notifications go out.
//!
//! The words are Alertmanager's. Alerts of one environment and severity for one receiver are a *group*: told together, first
//! after `group_wait`, again at most every `group_interval` while it grows or shrinks, and every `repeat_interval` while nothing
//! changes. What is over for [`RESOLVE_AFTER`] is told as resolved, to those who were told that it began. A silence keeps an alert
//! from being told, not from being seen. What could not be told stays to be told.
//!
//! An Alertmanager groups and repeats by itself: it is sent everything that fires, every minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertKey};
use super::silence::Silence;
use crate::config::{AlertSeverity, AlertsConfig, Receiver, Route};

/// How long something must be gone before it is over: a condition that comes and goes is told once.
const RESOLVE_AFTER: TimeDelta = TimeDelta::minutes(2);

/// How often an Alertmanager is sent what fires.
const ALERTMANAGER_EVERY: TimeDelta = TimeDelta::minutes(1);

/// How soon a failed notification is tried again, at most.
const RETRY_AFTER: TimeDelta = TimeDelta::seconds(30);

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// What is wrong.
    #[serde(flatten)]
    pub alert: Alert,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When it was last seen.
    pub seen: DateTime<Utc>,
    /// The silence that keeps it from being told, where one does.
    pub silenced_by: Option<String>,
}

/// What is told to one receiver at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// The receiver's name.
    pub receiver: String,
    /// The group, which is what success or failure is reported for.
    pub group: String,
    /// What is wrong.
    pub firing: Vec<Firing>,
    /// What is over.
    pub resolved: Vec<Firing>,
}

/// What a group knows of its last notification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// When its first alert that nobody was told of came.
    first_untold: Option<DateTime<Utc>>,
    /// When it was last told.
    told_at: Option<DateTime<Utc>>,
    /// What was told as firing, by then.
    told: BTreeMap<String, Firing>,
    /// When it could not be told, if that was the last try.
    failed_at: Option<DateTime<Utc>>,
}

/// What fires, and who was told; kept from one look to the next, and over a restart of the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    firing: BTreeMap<String, Firing>,
    groups: BTreeMap<String, Group>,
}

impl Engine {
    /// What fires, worst first.
    pub fn firing(&self) -> Vec<Firing> {
        let mut firing: Vec<Firing> = self.firing.values().cloned().collect();
        firing.sort_by_key(|f| (std::cmp::Reverse(f.alert.severity), f.since));
        firing
    }

    /// Takes in what is wrong `now`, and says what is to be told. Report each with [`Engine::told`] or [`Engine::failed`].
    pub fn step(
        &mut self,
        now: DateTime<Utc>,
        wrong: &[Alert],
        silences: &[Silence],
        config: &AlertsConfig,
    ) -> Vec<Tell> {
        self.take_in(now, wrong, silences);
        let mut wanted: BTreeMap<String, (String, BTreeMap<String, Firing>)> = BTreeMap::new();
        for (key, firing) in &self.firing {
            if firing.silenced_by.is_some() {
                continue;
            }
            for receiver in receivers(config, &firing.alert) {
                let group = group_name(receiver, &config.receivers[receiver], &firing.alert);
                let entry = wanted.entry(group).or_insert_with(|| (receiver.to_owned(), BTreeMap::new()));
                entry.1.insert(key.clone(), firing.clone());
            }
        }
        // A group whose last alert is over still has to say so; one of a receiver that is gone has nobody to tell.
        self.groups.retain(|name, group| {
            let receiver = receiver_of(name);
            config.receivers.contains_key(receiver) && (wanted.contains_key(name) || !group.told.is_empty())
        });
        for name in self.groups.keys() {
            wanted.entry(name.clone()).or_insert_with(|| (receiver_of(name).to_owned(), BTreeMap::new()));
        }
        let mut tells = Vec::new();
        for (name, (receiver, mut firing)) in wanted {
            let group = self.groups.entry(name.clone()).or_default();
            // What has gone again before anybody was told of it need not be told.
            firing.retain(|key, firing| firing.seen == now || group.told.contains_key(key));
            let resolved: Vec<Firing> =
                group.told.iter().filter(|(key, _)| !self.firing.contains_key(*key)).map(|(_, f)| f.clone()).collect();
            let grown =
                firing.iter().any(|(key, f)| group.told.get(key).is_none_or(|t| t.alert.severity < f.alert.severity));
            group.first_untold = group.first_untold.or(Some(now)).filter(|_| grown);
            let due = match &config.receivers[&receiver] {
                Receiver::Alertmanager { .. } => !firing.is_empty() || !resolved.is_empty(),
                _ => due(group, now, grown, !resolved.is_empty(), !firing.is_empty(), config),
            };
            let paced = match &config.receivers[&receiver] {
                Receiver::Alertmanager { .. } => {
                    grown || !resolved.is_empty() || group.told_at.is_none_or(|at| over(at, ALERTMANAGER_EVERY, now))
                }
                _ => true,
            };
            if due && paced && group.failed_at.is_none_or(|at| over(at, RETRY_AFTER, now)) {
                tells.push(Tell { receiver, group: name, firing: firing.into_values().collect(), resolved });
            }
        }
        tells
    }

    /// A receiver was told.
    pub fn told(&mut self, tell: &Tell, now: DateTime<Utc>) {
        if let Some(group) = self.groups.get_mut(&tell.group) {
            group.told = tell.firing.iter().map(|f| (key(&f.alert.key), f.clone())).collect();
            group.told_at = Some(now);
            group.first_untold = None;
            group.failed_at = None;
        }
    }

    /// A receiver could not be told: it is tried again.
    pub fn failed(&mut self, tell: &Tell, now: DateTime<Utc>) {
        if let Some(group) = self.groups.get_mut(&tell.group) {
            group.failed_at = Some(now);
        }
    }

    fn take_in(&mut self, now: DateTime<Utc>, wrong: &[Alert], silences: &[Silence]) {
        for alert in wrong {
            let firing = self.firing.entry(key(&alert.key)).or_insert_with(|| Firing {
                alert: alert.clone(),
                since: now,
                seen: now,
                silenced_by: None,
            });
            firing.alert = alert.clone();
            firing.seen = now;
        }
        let seen: BTreeSet<String> = wrong.iter().map(|alert| key(&alert.key)).collect();
        // A clock that was set back must not keep an alert for ever.
        self.firing.retain(|key, f| seen.contains(key) || (now - f.seen).abs() < RESOLVE_AFTER);
        for firing in self.firing.values_mut() {
            firing.silenced_by =
                silences.iter().find(|s| s.holds(&firing.alert.key, now)).map(|silence| silence.id.clone());
        }
    }
}

/// Whether this much time has passed; also where the clock was set back meanwhile.
fn over(since: DateTime<Utc>, span: TimeDelta, now: DateTime<Utc>) -> bool {
    since > now || now - since >= span
}

/// Whether a group must be told now.
fn due(group: &Group, now: DateTime<Utc>, grown: bool, shrunk: bool, firing: bool, config: &AlertsConfig) -> bool {
    // What is yet to come was noted by a clock that was set back since: told once too often is better than not at all.
    let elapsed = |since: DateTime<Utc>| (now - since).to_std().unwrap_or(Duration::MAX);
    match group.told_at {
        None => grown && group.first_untold.is_some_and(|since| elapsed(since) >= config.group_wait),
        Some(told) if grown || shrunk => {
            let waited = !grown || group.first_untold.is_some_and(|since| elapsed(since) >= config.group_wait);
            // What begins after everything was over is a new group, which waits for no earlier one.
            waited && (group.told.is_empty() || elapsed(told) >= config.group_interval)
        }
        Some(told) => firing && elapsed(told) >= config.repeat_interval,
    }
}

/// Who is told of an alert: every route that matches; where none does, everybody, because an alert that goes nowhere is
/// worse than one too many.
fn receivers<'a>(config: &'a AlertsConfig, alert: &Alert) -> BTreeSet<&'a str> {
    let failing = (alert.key.condition == super::Condition::NotificationFailed).then_some(alert.key.subject.as_str());
    let matched: BTreeSet<&str> =
        config.routes.iter().filter(|route| matches(route, alert)).map(|route| route.receiver.as_str()).collect();
    let others = |names: BTreeSet<&'a str>| -> BTreeSet<&'a str> {
        names.into_iter().filter(|name| failing != Some(*name)).collect()
    };
    let chosen = others(matched);
    match chosen.is_empty() {
        true => others(config.receivers.keys().map(String::as_str).collect()),
        false => chosen,
    }
}

fn matches(route: &Route, alert: &Alert) -> bool {
    let named = |list: &Option<Vec<String>>, value: Option<&String>| {
        list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(value)))
    };
    alert.severity >= route.severity
        && named(&route.environments, alert.key.environment.as_ref())
        && named(&route.owners, alert.owner.as_ref())
        && route.purposes.as_ref().is_none_or(|list| alert.purpose.is_some_and(|purpose| list.contains(&purpose)))
}

/// A group's name: who, and where. An Alertmanager has one group.
fn group_name(receiver: &str, to: &Receiver, alert: &Alert) -> String {
    let environment = alert.key.environment.as_deref().unwrap_or("service");
    match to {
        Receiver::Alertmanager { .. } => format!("{receiver}/"),
        _ => format!("{receiver}/{environment}/{}", severity_group(alert.severity)),
    }
}

/// What wakes somebody does not wait in a group with what does not.
fn severity_group(severity: AlertSeverity) -> &'static str {
    if severity == AlertSeverity::Critical { "critical" } else { "other" }
}

fn receiver_of(group: &str) -> &str {
    group.split('/').next().unwrap_or_default()
}

fn key(key: &AlertKey) -> String {
    format!("{}/{}/{}", key.condition.name(), key.environment.as_deref().unwrap_or_default(), key.subject)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

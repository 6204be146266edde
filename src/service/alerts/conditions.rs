//! The alerts in what is wrong (`service/findings/`), with environment, owner and purpose. Pure.

use chrono::{DateTime, Utc};

use super::alert::{Alert, AlertKey};
use super::facts::Facts;
use crate::config::AlertsConfig;
use crate::service::findings::{self, Finding};
use crate::service::state::{EnvironmentView, EstateView};

/// Everything that is wrong at `now` and that somebody is told.
pub fn conditions(view: &EstateView, facts: &Facts, config: &AlertsConfig, now: DateTime<Utc>) -> Vec<Alert> {
    let of_service = findings::of_service(view, facts, now);
    let mut alerts: Vec<Alert> = of_service.into_iter().filter_map(|finding| alert(finding, None)).collect();
    for environment in &view.environments {
        let own = findings::of_environment(environment, view, facts, config, now);
        alerts.extend(own.into_iter().filter_map(|finding| alert(finding, Some(environment))));
    }
    alerts
}

fn alert(finding: Finding, environment: Option<&EnvironmentView>) -> Option<Alert> {
    let Finding { condition, subject, severity, summary, meaning, todo } = finding;
    Some(Alert {
        key: AlertKey { condition: condition?, environment: environment.map(|e| e.name.clone()), subject },
        severity,
        owner: environment.map(|e| e.owner.clone()),
        purpose: environment.map(|e| e.purpose),
        summary,
        meaning,
        todo,
    })
}

//! Prometheus' Alertmanager, API v2: `POST /api/v2/alerts`
//! (<https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>).
//!
//! It forgets an alert at its `endsAt`, so a service that dies does not leave alerts behind; what fires is sent anew
//! before that.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};
use url::Url;

use super::{Firing, Notification, post};
use crate::config::SecretRef;
use crate::error::Result;

/// How long an alert lives that is not sent anew.
const LIVES: TimeDelta = TimeDelta::minutes(5);

pub(super) async fn tell(
    http: &reqwest::Client,
    url: &Url,
    token: Option<&SecretRef>,
    notification: &Notification<'_>,
) -> Result<()> {
    let mut address = url.clone();
    address.set_path(&format!("{}/api/v2/alerts", url.path().trim_end_matches('/')));
    post(http, address, token, &document(notification)).await
}

fn document(notification: &Notification<'_>) -> Value {
    let firing = notification.firing.iter().map(|firing| alert(firing, notification, notification.now + LIVES));
    let resolved = notification.resolved.iter().map(|firing| alert(firing, notification, notification.now));
    firing.chain(resolved).collect()
}

fn alert(firing: &Firing, notification: &Notification<'_>, ends: chrono::DateTime<chrono::Utc>) -> Value {
    let alert = &firing.alert;
    let mut labels = Map::new();
    let mut label = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(name.to_owned(), value.into());
        }
    };
    label("alertname", Some(alert.key.condition.alert_name()));
    label("severity", Some(alert.severity.word().to_owned()));
    label("environment", alert.key.environment.clone());
    label("subject", Some(alert.key.subject.clone()));
    label("owner", alert.owner.clone());
    // Alerts of environments come from whoever looks after them; only the service's own name the instance.
    label("instance", alert.key.environment.is_none().then(|| notification.instance.to_owned()));
    let lines: Vec<&str> = [alert.meaning.as_str()]
        .into_iter()
        .chain(alert.todo.iter().map(String::as_str))
        .filter(|line| !line.is_empty())
        .collect();
    json!({
        "labels": labels,
        "annotations": { "summary": alert.summary, "description": lines.join("\n") },
        "startsAt": firing.since.to_rfc3339(),
        "endsAt": ends.to_rfc3339(),
    })
}

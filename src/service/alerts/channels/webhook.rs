//! A JSON document by POST, for programs that speak nothing else. Its shape is documented in `docs/json.md`.

use serde_json::{Value, json};
use url::Url;

use super::{Firing, Notification, post};
use crate::config::SecretRef;
use crate::error::Result;

pub(super) async fn tell(
    http: &reqwest::Client,
    url: &Url,
    token: Option<&SecretRef>,
    notification: &Notification<'_>,
) -> Result<()> {
    post(http, url.clone(), token, &document(notification)).await
}

fn document(notification: &Notification<'_>) -> Value {
    let list = |status: &str, alerts: &[Firing]| -> Vec<Value> {
        alerts
            .iter()
            .map(|firing| {
                json!({
                    "status": status,
                    "condition": firing.alert.key.condition,
                    "environment": firing.alert.key.environment,
                    "subject": firing.alert.key.subject,
                    "severity": firing.alert.severity,
                    "owner": firing.alert.owner,
                    "summary": firing.alert.summary,
                    "meaning": firing.alert.meaning,
                    "todo": firing.alert.todo,
                    "since": firing.since,
                })
            })
            .collect()
    };
    let mut alerts = list("firing", notification.firing);
    alerts.extend(list("resolved", notification.resolved));
    json!({
        "version": 1,
        "receiver": notification.receiver,
        "instance": notification.instance,
        "sent_at": notification.now,
        "status": if notification.firing.is_empty() { "resolved" } else { "firing" },
        "alerts": alerts,
    })
}

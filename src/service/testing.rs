//! Environments for tests: one of which nothing is known yet, one that is looked at.

use chrono::{DateTime, Utc};

use super::state::{EnvironmentView, ObjectivesInForce};
use super::view::{Server, View};
use crate::config::Purpose;
use crate::repository::window::{Point, Window};
use crate::units::{Lsn, Timeline};

/// An environment of which nothing is known yet: RPO one minute, RTO one hour.
pub(crate) fn environment(name: &str) -> EnvironmentView {
    EnvironmentView {
        name: name.into(),
        purpose: Purpose::Production,
        owner: "erp".into(),
        objectives: ObjectivesInForce { rpo_seconds: 60.0, rto_seconds: 3600.0, calendar: None },
        view: None,
        outlook: None,
        trouble: None,
        silences: Vec::new(),
        broken_glass: Vec::new(),
        critical_drift: Vec::new(),
        leads: true,
        workers: Vec::new(),
    }
}

/// A stretch that can be restored.
pub(crate) fn window(from: DateTime<Utc>, to: DateTime<Utc>) -> Window {
    let point = |lsn, time| Point { timeline: Timeline(1), lsn: Lsn(lsn), time };
    Window {
        from: point(0x1000, from),
        to: point(0x2000, to),
        last_commit: Some(to),
        bases: vec!["base".into()],
        line: Timeline(1),
        ended_by: None,
    }
}

/// What a look at an empty repository and a server that does not answer finds.
pub(crate) fn nothing(name: &str, now: DateTime<Utc>) -> View {
    let postgres = Server {
        reachable: false,
        error: None,
        current_lsn: None,
        standby: false,
        slot_name: "lifeboat".into(),
        slot: None,
    };
    View::unseen(name, Purpose::Production, "erp", 60.0, postgres, now)
}

//! `lifeboat init`.

use serde_json::json;

use super::context::{Context, host_name};
use super::output::Outcome;
use crate::error::Result;
use crate::repository::{self, Initialised};
use crate::storage;

/// Makes the repository after the store was tried, or enrols this host.
pub(crate) async fn run(context: &Context) -> Result<Outcome> {
    let location = context.location()?;
    let store = storage::open_for_init(&location, &context.runtime).await?;
    let probed = storage::probe(&store, &location, &context.runtime).await?;
    let recovery = context.recovery()?;
    let state = context.state_dir();
    let recipients = &context.estate.keys.recipients;
    let done = repository::init(&store, &state, recipients, recovery.as_ref(), &host_name(), &context.runtime).await?;
    let what = match done {
        Initialised::Made => "made a repository in",
        Initialised::Enrolled => "enrolled this host in the repository in",
        Initialised::Already => "this host already belongs to the repository in",
    };
    let mut text = format!("{what} {}\n", store.url());
    for finding in probed.warnings() {
        text += &format!("warning: {}: {}\n", finding.name, finding.words);
    }
    text += &format!("keys of this host: {} (they write backups, they cannot read them)\n", state.path().display());
    text += &format!("who can restore: {}\n", recipients.join(", "));
    text += "next: `lifeboat backup all -e ENV`, and keep `lifeboat wal receive -e ENV` running";
    let json = json!({
        "repository": store.url(),
        "result": match done {
            Initialised::Made => "made",
            Initialised::Enrolled => "enrolled",
            Initialised::Already => "already",
        },
        "state_dir": state.path(),
        "recipients": recipients,
        "probe": probed,
    });
    Ok(Outcome::new(json, text))
}

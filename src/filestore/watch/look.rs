//! Which databases there are now, and where their files are: at the start, when directories come and go, and
//! from time to time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::database_uuid;
use super::super::tenants::{Tenant, open, tenants};
use super::tenant::Tracked;
use super::{PAUSE, Watcher};
use crate::error::Result;
use crate::event::Event;
use crate::postgres::source::Source;
use crate::runtime::Runtime;

/// Databases are looked for this often while one of them has no directory yet.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long questions to PostgreSQL may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Watcher<'_> {
    /// Looks which databases there are, and watches them.
    pub(super) async fn look(&mut self) {
        let with = self.with;
        let runtime = if self.strays_told { Runtime::silent() } else { with.runtime.clone() };
        let found = timeout(ANSWER_WITHIN, tenants(with.source, &with.environment.odoo, &runtime)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => return self.trouble(&format!("cannot look for databases, trying again: {failure}")),
            Err(_) => return self.trouble("PostgreSQL does not answer; trying again"),
        };
        (self.strays_told, self.told_trouble) = (true, false);
        for data_dir in self.with.environment.odoo.iter().map(|o| &o.data_dir) {
            let watched = match self.watches.filestores(&data_dir.join("filestore")) {
                // A new Odoo makes it with its first file.
                Ok(false) => self.watches.filestores(data_dir),
                other => other,
            };
            if let Err(failure) = watched {
                self.trouble(&failure.to_string());
            }
        }
        let there: BTreeSet<PathBuf> = found.iter().map(Tenant::directory).collect();
        for gone in self.watches.databases().difference(&there) {
            self.watches.forget(gone);
        }
        self.tracked.retain(|t| {
            let stays = there.contains(&*t.directory);
            if !stays {
                let text = format!("database {} is gone; its filestore is no longer watched", t.tenant.database);
                with.runtime.emit(Event::Note(text));
            }
            stays
        });
        let mut pause = with.options.scan_every.max(LOOK_EVERY);
        for tenant in found {
            let uuid = timeout(ANSWER_WITHIN, uuid(with.source, &tenant.database)).await.ok().and_then(Result::ok);
            let Some(uuid) = uuid else {
                pause = LOOK_EVERY; // not an Odoo yet, or not to be reached now
                continue;
            };
            let now = with.runtime.now();
            let known = self.tracked.iter().position(|t| t.tenant == tenant && t.uuid == uuid);
            let at = known.unwrap_or_else(|| {
                self.tracked.retain(|t| t.tenant != tenant);
                self.tracked.push(Tracked::new(tenant, uuid, now));
                self.tracked.len() - 1
            });
            let tracked = &mut self.tracked[at];
            let was = tracked.watched;
            match self.watches.database(&tracked.directory) {
                Ok(watched) => tracked.watched = watched,
                Err(failure) => {
                    tracked.watched = false;
                    let what = format!("{}: {failure}", tracked.tenant.database);
                    self.trouble(&what);
                    pause = LOOK_EVERY;
                    continue;
                }
            }
            if tracked.watched && !was {
                tracked.missed(now);
                let directory = tracked.directory.display();
                with.runtime.emit(Event::Note(format!("watching {directory}")));
            }
            if !tracked.watched {
                pause = LOOK_EVERY;
            }
        }
        self.next_look = Instant::now() + pause;
    }

    fn trouble(&mut self, what: &str) {
        if !std::mem::replace(&mut self.told_trouble, true) {
            self.with.runtime.emit(Event::Warning(what.to_owned()));
        }
        self.next_look = Instant::now() + PAUSE;
    }
}

/// `database.uuid`, where the database holds an Odoo.
async fn uuid(source: &Source, database: &str) -> Result<Option<String>> {
    let client = open(source, database).await?;
    database_uuid(&client).await
}

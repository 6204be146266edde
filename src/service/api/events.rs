//! `/api/v1/events`: what happens now, as server-sent events. `jobs` carries all jobs that run whenever they changed (at
//! most once a second), `news` what workers and jobs tell, `lost` says that news were missed by a reader too slow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::model::running;
use super::refusals::Guarded;
use crate::service::http::app::{App, busy};
use crate::service::http::problem::Problem;
use crate::service::http::visitor::Visitor;
use crate::service::state::{EstateView, News};

/// Jobs are told this often at most.
const PAUSE: Duration = Duration::from_secs(1);
/// A stream ends after this, and the browser begins anew: by then a session may have ended.
const LONGEST: Duration = Duration::from_secs(15 * 60);

struct Following {
    visitor: Visitor,
    view: watch::Receiver<Arc<EstateView>>,
    news: Receiver<Arc<News>>,
    stop: CancellationToken,
    until: Instant,
    /// When jobs may be told again.
    next: Instant,
    /// Whether they may have changed since.
    changed: bool,
    told: String,
    _place: OwnedSemaphorePermit,
}

/// What happens now, as server-sent events.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    summary = "Live events",
    description = "Role: viewer. Server-sent events: `jobs` (running jobs, as in /api/v1/jobs), `news` (at, environment, from, event), `lost` (missed).",
    responses(
        (status = 200, description = "A stream that does not end by itself for 15 minutes", content_type = "text/event-stream", body = String),
        Guarded,
    )
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let place = app.streams.clone().try_acquire_owned().map_err(|_| busy("readers of events"))?;
    let now = Instant::now();
    let following = Following {
        visitor,
        view: app.state.watch(),
        news: app.state.news(),
        stop: app.stop.clone(),
        until: now + LONGEST,
        next: now,
        changed: true,
        told: String::new(),
        _place: place,
    };
    let stream = unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

impl Following {
    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.view.changed(), if !self.changed => match changed {
                    Ok(()) => self.changed = true,
                    Err(_) => return None,
                },
                () = tokio::time::sleep_until(self.next), if self.changed => {
                    self.changed = false;
                    let view = self.view.borrow_and_update().clone();
                    let jobs = serde_json::to_string(&running(&view, &self.visitor)).unwrap_or_default();
                    if jobs != self.told {
                        self.next = Instant::now() + PAUSE;
                        self.told.clone_from(&jobs);
                        return Some(Event::default().event("jobs").data(jobs));
                    }
                }
                news = self.news.recv() => match news {
                    Ok(news) if news.environment.as_ref().is_none_or(|name| self.visitor.sees(name)) => {
                        let text = serde_json::to_string(news.as_ref()).unwrap_or_default();
                        return Some(Event::default().event("news").data(text));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        return Some(Event::default().event("lost").data(json!({ "missed": missed }).to_string()));
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

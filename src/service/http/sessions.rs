//! Who is signed in. A session lives in this process only: its id is random, known to the browser as a cookie and here
//! as a hash; it ends by signing out, by time, by an administrator, with the token that it began with, or with this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::secrets;
use super::visitor::Visitor;
use crate::error::Result;

/// Sessions at once; beyond, the one that was idle longest ends.
const MOST: usize = 2_000;
/// A session that nobody uses ends after this.
const IDLE: TimeDelta = TimeDelta::hours(1);

/// The sessions of this process.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_hash: HashMap<[u8; 32], Session>,
    number: u64,
}

/// One session.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Names it towards administrators; not its secret.
    pub(crate) number: u64,
    pub(crate) visitor: Visitor,
    /// What forms must carry.
    pub(crate) csrf: String,
    pub(crate) began: DateTime<Utc>,
    pub(crate) ends: DateTime<Utc>,
    pub(crate) last_seen: DateTime<Utc>,
    /// The hash of the token that it began with, where it was one.
    pub(crate) token: Option<[u8; 32]>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::new(Open::default()) }
    }

    /// Begins a session; gives its secret, for the cookie.
    pub(crate) fn begin(
        &self,
        visitor: Visitor,
        token: Option<[u8; 32]>,
        lasts: Duration,
        now: DateTime<Utc>,
    ) -> Result<String> {
        let (secret, csrf) = (secrets::random()?, secrets::random()?);
        let mut open = self.locked();
        open.by_hash.retain(|_, session| session.is_open(now));
        if open.by_hash.len() >= MOST
            && let Some(oldest) = open.by_hash.iter().min_by_key(|(_, s)| s.last_seen).map(|(hash, _)| *hash)
        {
            open.by_hash.remove(&oldest);
        }
        open.number += 1;
        let ends = now + TimeDelta::from_std(lasts).unwrap_or(IDLE);
        let session = Session { number: open.number, visitor, csrf, began: now, ends, last_seen: now, token };
        open.by_hash.insert(secrets::hash(&secret), session);
        Ok(secret)
    }

    /// The session with this secret, which is in use now.
    pub(crate) fn find(&self, secret: &str, now: DateTime<Utc>) -> Option<Session> {
        let hash = secrets::hash(secret);
        let mut open = self.locked();
        let session = open.by_hash.get_mut(&hash)?;
        if !session.is_open(now) {
            open.by_hash.remove(&hash);
            return None;
        }
        session.last_seen = now;
        Some(session.clone())
    }

    /// Ends the session with this secret.
    pub(crate) fn end(&self, secret: &str) {
        self.locked().by_hash.remove(&secrets::hash(secret));
    }

    /// Ends the session with this number; whose it was.
    pub(crate) fn end_number(&self, number: u64) -> Option<Visitor> {
        let mut open = self.locked();
        let hash = open.by_hash.iter().find(|(_, session)| session.number == number).map(|(hash, _)| *hash)?;
        open.by_hash.remove(&hash).map(|session| session.visitor)
    }

    /// The open ones, oldest first.
    pub(crate) fn all(&self, now: DateTime<Utc>) -> Vec<Session> {
        let mut all: Vec<Session> = self.locked().by_hash.values().filter(|s| s.is_open(now)).cloned().collect();
        all.sort_by_key(|session| session.number);
        all
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        // What is behind it is whole after every statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_open(&self, now: DateTime<Utc>) -> bool {
        now < self.ends && now - self.last_seen < IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::evidence::approval::KnownBy;

    fn visitor(name: &str) -> Visitor {
        Visitor { name: name.into(), known_by: KnownBy::Token, role: Role::Viewer, environments: None, session: None }
    }

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    const LASTS: Duration = Duration::from_secs(3 * 3600);

    #[test]
    fn a_session_ends_by_sign_out_by_idleness_by_time_and_by_an_administrator() {
        let sessions = Sessions::new();
        let begin = |name: &str| sessions.begin(visitor(name), None, LASTS, at(0)).expect("random");
        let (alice, bob) = (begin("alice"), begin("bob"));
        assert_eq!(sessions.find(&alice, at(30)).expect("open").visitor.name, "alice");
        assert!(sessions.find("guess", at(30)).is_none());
        assert!(sessions.find(&bob, at(61)).is_none(), "idle for an hour");
        assert!(sessions.find(&alice, at(89)).is_some(), "was in use");
        for minute in [120, 150, 179] {
            assert!(sessions.find(&alice, at(minute)).is_some());
        }
        assert!(sessions.find(&alice, at(180)).is_none(), "whatever it does, after its time");
        let carol = begin("carol");
        sessions.end(&carol);
        assert!(sessions.find(&carol, at(1)).is_none());
        let dave = begin("dave");
        let number = sessions.find(&dave, at(1)).expect("open").number;
        assert_eq!(sessions.end_number(number).map(|v| v.name).as_deref(), Some("dave"));
        assert!(sessions.find(&dave, at(1)).is_none());
    }

    #[test]
    fn however_many_sign_in_memory_is_bounded() {
        let sessions = Sessions::new();
        let first = sessions.begin(visitor("first"), None, LASTS, at(0)).expect("random");
        for _ in 0..MOST {
            sessions.begin(visitor("x"), None, LASTS, at(1)).expect("random");
        }
        assert_eq!(sessions.all(at(2)).len(), MOST);
        assert!(sessions.find(&first, at(2)).is_none(), "the one that was idle longest made room");
    }
}
